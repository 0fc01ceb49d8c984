"""The command line: one clear message for each mistake, nothing left behind."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from helpers.support import start_main, tiny_config

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def run(*args):
    done = subprocess.run(
        [sys.executable, "-m", "ser_jax.main", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1] if done.stderr else ""


DIGITS = "--config=configs/digits_ser.py"


@pytest.mark.parametrize(
    "flags, message",
    [
        ([DIGITS], "--workdir is missing. For example: python -m"),
        (["--workdir=/tmp/x"], "--config is missing. For example: python -m"),
        (
            ["--config=configs/digit_ser.py", "--workdir=/tmp/x"],
            r"configs/digit_ser.py does not exist.*configs/digits_ser.py",
        ),
        (
            [DIGITS, "--workdir=/tmp/x", "--config.regularizer.wieght=2"],
            r"no such key.*Did you mean .weight. instead of .wieght",
        ),
        ([DIGITS, "--workdir=/tmp/x", "--config.batch_size=many"], "batch_size=many"),
        ([DIGITS, "--workdir=/tmp/x", "train"], "unexpected argument 'train'"),
        ([DIGITS, "--wrkdir=/tmp/x"], "wrkdir"),
        (
            ["--config=configs/moco_v3.py:equimodd", "--workdir=/tmp/x"],
            "error: no preset is called 'equimodd'. Did you mean 'equimod'",
        ),
        ([f"{DIGITS}:ser", "--workdir=/tmp/x"], "takes no preset; for 'ser' use"),
    ],
)
def test_mistakes_on_the_command_line(flags, message):
    assert re.search(message, run(*flags))


def test_refusals_of_the_run_reach_the_user_without_a_traceback(tmp_path):
    """Red if an error's message is lost or comes with a traceback."""
    config = tiny_config(**{"dataset.data_dir": str(tmp_path)})
    config.batch_size = 12
    process = start_main(config, tmp_path / "run", max_steps=1)
    _, stderr = process.communicate()
    assert process.returncode == 1 and "Traceback" not in stderr
    assert "batch_size 12 (global) is not divisible by 8 devices; use 16 or 8" in stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def readme_commands():
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("command", readme_commands())
def test_readme_command_parses(command):
    """Modules exist, flags are defined, named config files and scripts are there."""
    for part in command.split(" && "):
        words = shlex.split(part)
        if words[0] == "python":
            assert words[1] == "-m"
            check_flags(words[2], words[3:])
        elif words[0] in ("bash", "sbatch"):
            script = (ROOT / words[1]).read_text()
            subprocess.run(["bash", "-n", "-c", script], check=True)
        else:
            assert words[0] in ("pip", "pytest"), part
        for path in re.findall(r"configs/\w+\.py", part):
            assert (ROOT / path).is_file()


def check_flags(module, words):
    program = (
        "import sys; from absl import flags; import importlib, importlib.util;"
        f"name = {module!r};"
        "spec = importlib.util.find_spec(name);"
        "name += '.__main__' * bool(spec.submodule_search_locations);"
        "module = importlib.import_module(name);"
        "getattr(module, '_define_flags', lambda: None)();"
        f"sys.argv = ['x'] + {words!r};"  # where config flags look for their own
        "rest = flags.FLAGS(sys.argv)[1:];"
        # Runs are the only arguments that are no flags.
        f"assert {module.startswith('ser_jax.report')} or not rest, rest"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_ci_runs_the_readme_commands():
    script = (ROOT / ".ci" / "run").read_text()
    assert "-m ser_jax.main --config=configs/digits_ser.py --workdir=" in script
    assert 'pip install -q -e ".[test]" && pytest' in script
    assert "-m ser_jax.evaluate --checkpoint=" in script
    assert "-m ser_jax.report " in script
