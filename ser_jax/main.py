"""Command line: `python -m ser_jax.main --config=FILE --workdir=DIR`."""

import logging
import pathlib
import sys
from typing import NoReturn

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from ser_jax import train

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Experiment: a file in configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for checkpoints and results; resumes from what is there."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Several processes, found in the environment (TPU pod, SLURM).",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, for several processes by hand."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator.")
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error was raised.")

_EXAMPLE = "python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits"


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags name."""
    if len(argv) > 1:
        _fail(f"unexpected argument {argv[1]!r}; flags are written --name=value.")
    workdir = _WORKDIR.value
    if workdir is None:
        _fail(f"--workdir is missing. For example: {_EXAMPLE}")
    filename = config_flags.get_config_filename(flags.FLAGS["config"])
    if not filename:
        _fail(f"--config is missing. For example: {_EXAMPLE}")
    path = filename.partition(":")[0]
    if not pathlib.Path(path).is_file():
        others = sorted(str(other) for other in pathlib.Path(path).parent.glob("*.py"))
        there = f" Beside it there are: {', '.join(others)}." if others else ""
        _fail(f"config {path} does not exist.{there}")
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells a page a checkpoint
    logging.getLogger("ser_jax").setLevel(logging.INFO)
    if _DISTRIBUTED.value or _COORDINATOR.value:
        jax.distributed.initialize(
            _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
        )
    try:
        train.train(_CONFIG.value, workdir)
    except (ValueError, OSError, FloatingPointError) as error:
        if _TRACEBACK.value:
            raise
        _fail(f"{error}\n(--traceback shows where this was raised.)")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags; a config that cannot be read ends the program with one message.

    Args:
        argv: Command line.

    Returns:
        What is left of it after the flags.
    """
    try:
        return flags.FLAGS(argv)
    except (flags.Error, OSError, AttributeError, KeyError, TypeError) as error:
        text = str(error.args[0] if error.args else error)
        if isinstance(error, AttributeError | KeyError):  # ConfigDict quotes its advice
            text = text.replace("\\n", ". ").replace("\\", "").replace("'", "")
            text = f"the config has no such key: {text}"
        _fail(text)


def _fail(message: str) -> NoReturn:
    sys.exit(f"ser_jax: error: {message}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
