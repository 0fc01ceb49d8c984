"""A checkpoint that is damaged or of no use is refused in one line, never replaced."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
from etils import epath
from helpers import ROOT

from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.evaluate.open import open_run, other_steps_named
from ser_jax.storage.reader import SavedState
from ser_jax.storage.record import DamagedCheckpointError

ARCHIVE = ROOT / "tests" / "fixtures" / "run_0.1.0.tar.xz"
DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "gone": lambda data: None,
    "zeroed": lambda data: bytes(len(data)),
}


@pytest.fixture
def workdir(tmp_path):
    """A run with the steps 3 and 6, both sound."""
    shutil.unpack_archive(ARCHIVE, tmp_path)
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(checkpoints / "6", checkpoints / "3")
    return tmp_path / "run"


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_noticed_before_a_value_is_read(workdir, damage):
    """Of every file that says something; red if one is read without a look at it."""
    path = epath.Path(workdir / "checkpoints" / "6")
    SavedState.at(path)
    for file in sorted(p for p in pathlib.Path(path).rglob("*") if p.is_file()):
        content = file.read_bytes()
        changed = DAMAGES[damage](content)
        if changed == content or file.parent == path and file.name != "files.json":
            continue  # Orbax's marks of a whole checkpoint: no value is read from them
        file.unlink() if changed is None else file.write_bytes(changed)
        with pytest.raises(DamagedCheckpointError) as caught:
            SavedState.at(path)
        assert f"{path} is damaged: file" in str(caught.value)
        assert file.name in str(caught.value) and "\n" not in str(caught.value)
        file.write_bytes(content)
    SavedState.at(path)


def test_another_step_is_offered_and_not_taken(workdir):
    (workdir / "checkpoints" / "6" / "meta" / "metadata").unlink()
    with pytest.raises(
        ValueError, match="step 6 is not .*metadata.*--step=3"
    ) as caught:
        open_run(workdir)
    assert "\n" not in str(caught.value)
    shutil.rmtree(workdir / "checkpoints" / "3" / "state")
    with pytest.raises(ValueError, match="Sound: no other step"):
        open_run(workdir)


def test_a_step_whose_weights_are_not_finite_is_named(workdir):
    fine = FrozenEncoder(None, {"params": np.ones(3)}, (0,) * 3, (1,) * 3, 1)
    with pytest.raises(FloatingPointError, match="step 6 .* 1 arrays .*--step=3"):
        with other_steps_named(epath.Path(workdir / "checkpoints" / "6")):
            dataclasses.replace(fine, variables={"params": np.array([1, np.nan])})


def test_weights_from_elsewhere_are_no_exception():
    for bad in (np.inf, np.nan):
        with pytest.raises(FloatingPointError, match="1 of 1 arrays are not finite"):
            FrozenEncoder(None, {"w": np.array([1, bad])}, (0,) * 3, (1,) * 3, 1)


@pytest.mark.parametrize("given", ["run/checkpoints/6", "run/checkpoints", "", "none"])
def test_a_folder_that_is_no_run_says_where_one_is(workdir, given):
    path = workdir.parent / given
    with pytest.raises(FileNotFoundError, match="give the workdir") as caught:
        open_run(path)
    assert (f"such as {workdir}" in str(caught.value)) == (given != "none")
