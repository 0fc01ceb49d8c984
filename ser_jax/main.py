"""Command line: `python -m ser_jax.main --config=FILE --workdir=DIR`."""

import logging

import jax
from absl import app, flags
from absl import logging as absl_logging

from ser_jax import command_line, train

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

_EXAMPLE = "python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits"


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags name."""
    del argv
    command_line.check_config_file(_EXAMPLE)
    if _WORKDIR.value is None:
        command_line.fail(f"--workdir is missing. For example: {_EXAMPLE}")
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells a page a checkpoint
    logging.getLogger("ser_jax").setLevel(logging.INFO)
    by_hand = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if 0 < by_hand.count(None) < 3:
        command_line.fail("--coordinator, --num_processes, --process_id go together.")
    if _DISTRIBUTED.value or None not in by_hand:
        jax.distributed.initialize(*by_hand)
    command_line.run_or_fail(train.train, command_line.CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
