"""Command line: `python -m ser_jax.main --config=FILE --workdir=DIR`."""

from absl import app, flags

from ser_jax.config import flags as command_line
from ser_jax.train import loop as train

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for checkpoints and results; resumes from what is there."
)
_EXAMPLE = "python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits"


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags name."""
    del argv
    command_line.check_config_file(_EXAMPLE)
    if _WORKDIR.value is None:
        command_line.fail(f"--workdir is missing. For example: {_EXAMPLE}")
    command_line.log_own_messages()
    command_line.join_processes()
    command_line.run_or_fail(train.train, command_line.CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
