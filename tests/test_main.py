"""The command line: one clear message for each mistake, nothing left behind."""

import ast
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import pytest
from helpers.programs import call, parse_flags, run_program
from helpers.support import tiny_config, write_config

from ser_jax.config import flags as command_line
from ser_jax.config.presets import PRESETS
from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.storage import tables

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def run(*args):
    done = run_program("ser_jax.main", *args, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1] if done.stderr else ""


DIGITS = "--config=configs/digits_ser.py"


@pytest.mark.slow
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
            [DIGITS, "--workdir=/tmp/x", "--profile=9:3"],
            "expected --profile=START:STOP",
        ),
        (
            ["--config=configs/moco_v3.py:equimodd", "--workdir=/tmp/x"],
            "error: no preset is called 'equimodd'. Did you mean 'equimod'",
        ),
        ([f"{DIGITS}:ser", "--workdir=/tmp/x"], "takes no preset; for 'ser' use"),
    ],
)
def test_mistakes_on_the_command_line(flags, message):
    assert re.search(message, run(*flags))


@pytest.mark.slow
def test_help_shows_the_form_of_a_config_and_the_presets():
    done = run_program("ser_jax.main", "--help", cwd=ROOT)
    for word in ("--config:", "--workdir:", "--[no]show_config:"):
        assert word in done.stdout
    assert "configs/<base>.py:<preset>" in done.stdout
    words = set(re.findall(r"\w+", done.stdout))
    assert set(PRESETS) | set(OBJECTIVES) <= words
    assert len(done.stdout.splitlines()) < 60


@pytest.mark.parametrize("program", ["main", "sweep", "benchmark"])
def test_show_config_prints_what_would_be_trained_and_ends(program):
    """Red if an override is missed, or anything but the settings is printed."""
    flags = "--config=configs/moco_v3.py:ser", "--config.batch_size=1024"
    done = run_program(f"ser_jax.{program}", "--show_config", *flags, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    expected = runpy.run_path(str(ROOT / "configs" / "moco_v3.py"))["get_config"]("ser")
    expected.batch_size = 1024
    shown = dict(line.split(" = ") for line in done.stdout.splitlines())
    shown = {key: ast.literal_eval(value) for key, value in shown.items()}
    assert shown == tables.flatten(expected.to_dict(), ".")


def test_a_recipe_is_found_where_the_package_is_installed(tmp_path, monkeypatch):
    """Red if the installed one is not found, or is preferred to one that is here."""
    installed = tmp_path / "ser_jax" / "configs"
    installed.mkdir(parents=True)
    (installed / "digits.py").touch()
    monkeypatch.setattr(command_line, "RECIPES", installed)
    monkeypatch.chdir(tmp_path)
    recipe = f"--config={installed}/digits.py:dino/ser"
    given = ["x", "--config=configs/digits.py:dino/ser", "--config=configs/other.py"]
    assert command_line.with_recipes(given) == ["x", recipe, given[2]]
    assert command_line.with_recipes(["--config", "configs/digits.py"]) == [
        *("--config", f"{installed}/digits.py")
    ]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.py").touch()
    assert command_line.with_recipes(given) == given


@pytest.mark.slow
def test_log_lines_have_one_form_and_come_once():
    """Red if others' information is shown, or one warning twice."""
    program = """
import logging
from absl import app
from absl import logging as absl_logging
from ser_jax.config import flags
def main(_):
    flags.log_own_messages()
    jax = logging.getLogger("jax._src.xla_bridge")
    jax.info("Unable to initialize backend 'tpu'")
    jax.warning("jax warns")
    absl_logging.info("saved a page")
    absl_logging.error("orbax fails")
    logging.getLogger("ser_jax.train.loop").info("we say %d", 1)
app.run(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    said = ["WARNING: jax warns", "ERROR: orbax fails", "we say 1"]
    assert re.fullmatch("".join(f"{time}{text}\n" for text in said), done.stderr)


@pytest.mark.slow
def test_refusals_of_the_run_reach_the_user_without_a_traceback(tmp_path):
    """Red if an error's message is lost or comes with a traceback."""
    config = tiny_config(**{"dataset.data_dir": str(tmp_path)})
    config.batch_size = 12
    path = write_config(config, tmp_path / "config.py")
    flags = f"--config={path}", f"--workdir={tmp_path / 'run'}"
    done = run_program("ser_jax.main", *flags, cwd=ROOT)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    message = "batch_size 12 (global) is not divisible by 8 devices; use 16 or 8"
    assert message in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def readme_commands():
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def commands_of_docs():
    """In fences or indented; those of one program, without shell loops around them."""
    files = [*(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    text = "\n".join(path.read_text() for path in files).replace("\\\n", " ")
    return sorted(set(re.findall(r"^(?:    )?(python -m ser_jax.*)$", text, re.M)))


@pytest.mark.parametrize("command", commands_of_docs())
def test_command_of_docs_parses(command):
    test_readme_command_parses(command)


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
    done = call(parse_flags, module, words, cwd=ROOT)
    assert done.returncode == 0, done.stderr
