"""Command line: `python -m ser_jax.main --config=configs/digits_ser.py --workdir=DIR`."""

import sys

import jax
from absl import app, flags, logging
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
    "Several processes, found from the environment (TPU pod, SLURM).",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, for several processes by hand."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator.")


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags name."""
    if len(argv) > 1:
        _fail(f"unexpected argument {argv[1]!r}; flags are written --name=value.")
    for name in ("config", "workdir"):
        if flags.FLAGS[name].value is None:
            _fail(f"--{name} is missing. {sys.modules[__name__].__doc__}")
    if _DISTRIBUTED.value or _COORDINATOR.value:
        jax.distributed.initialize(
            _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
        )
    try:
        train.train(_CONFIG.value, _WORKDIR.value)
    except (ValueError, OSError, FloatingPointError) as error:
        logging.debug("Traceback:", exc_info=True)
        _fail(f"{error}\n(--verbosity=1 shows where this was raised.)")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags; a config that cannot be read ends the program with one message."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, OSError, AttributeError, KeyError, TypeError) as error:
        return _fail(" ".join(str(part) for part in error.args) or repr(error))


def _fail(message: str):
    sys.exit(f"ser_jax: error: {message}")


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    app.run(main, flags_parser=parse_flags)
