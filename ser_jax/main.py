"""Trains one run, probes it on the way, draws its curves.

    python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits_ser

The same command goes on from the newest checkpoint in the workdir.
"""

from absl import app, flags
from ml_collections import ConfigDict

from ser_jax.config import flags as command_line
from ser_jax.evaluate.probe import make_probe
from ser_jax.report.curves import plot_curves
from ser_jax.storage.files import PathLike, as_path
from ser_jax.storage.summary import final_table
from ser_jax.train.loop import train

_EXAMPLE = "python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits"


def run(config: ConfigDict, workdir: PathLike) -> None:
    """Trains, watched by the k-NN probe; draws the curves and prints the table.

    Args:
        config: The experiment.
        workdir: Folder for all of it.

    Raises:
        ValueError: As `train` does, and its other errors.
    """
    summary = train(config, workdir, probe=make_probe)
    if not summary:  # stopped early, or another process has it
        return
    summary.pop("config", None)  # of a run that had ended before
    curves = plot_curves(as_path(workdir))
    print(f"\n{final_table(summary)}\n")
    print(f"Curves: {curves}\nMetrics, checkpoints, summary: {curves.parent}")


def _define_flags() -> None:
    flags.adopt_module_key_flags(command_line)  # so that --help shows them
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder for checkpoints and results; resumes from what is there.",
    )


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags name."""
    del argv
    command_line.check_config_file(_EXAMPLE)
    if flags.FLAGS.workdir is None:
        command_line.fail(f"--workdir is missing. For example: {_EXAMPLE}")
    command_line.log_own_messages()
    command_line.join_processes()
    command_line.run_or_fail(run, command_line.CONFIG.value, flags.FLAGS.workdir)


if __name__ == "__main__":
    _define_flags()
    app.run(main, flags_parser=command_line.parse_flags)
