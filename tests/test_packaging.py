"""What an installed package brings, and the versions it was tried with."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_an_installed_package_finds_its_recipes(tmp_path):
    """Red if configs/ is not built into the package, or not looked for there."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={site}"],
        cwd=ROOT,
        check=True,
    )
    recipes = {path.name for path in (site / "ser_jax" / "configs").iterdir()}
    assert recipes == {path.name for path in (ROOT / "configs").glob("*.py")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ser_jax.main", "--show_config"),
            *("--config=configs/digits_ser.py", "--config.seed=3"),
        ],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "regularizer.name = 'ser'" in done.stdout and "seed = 3" in done.stdout


def test_constraints_pin_every_requirement_within_its_range():
    quoted = re.findall(
        r'^ +"([\w-]+(?:\[\w+\])?>=[\d.]+)",', (ROOT / "setup.py").read_text(), re.M
    )
    wanted = [Requirement(text) for text in quoted]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    assert len(wanted) > 25
    for requirement in wanted:
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
