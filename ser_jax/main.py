"""Trains one run, probes it on the way, draws its curves.

    python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits_ser

The same command goes on from the newest checkpoint in the workdir. Ctrl-C (SIGINT),
SIGTERM, SIGHUP and SIGUSR1 save and stop; a second one stops at once. So do Google's
notices that the machine is about to go. The exit status is 0 of a finished run, 130
after SIGINT, 75 ("run me again") after the others, 1 at an error. `--dry_run` trains
nothing: it says what would be trained, and whether it fits the devices that are here
(1: it does not).
"""

import sys

from absl import app, flags
from ml_collections import ConfigDict

from ser_jax.config import flags as command_line
from ser_jax.evaluate.probe import make_probe
from ser_jax.report.curves import plot_curves
from ser_jax.storage.files import PathLike, as_path
from ser_jax.storage.summary import final_table
from ser_jax.train.dry_run import dry_run
from ser_jax.train.loop import train
from ser_jax.train.preemption import exit_status
from ser_jax.train.profile import steps_of

_EXAMPLE = "python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits"


def run(config: ConfigDict, workdir: PathLike, profile: range = range(0)) -> int:
    """Trains, watched by the k-NN probe; draws the curves and prints the table.

    Args:
        config: The experiment.
        workdir: Folder for all of it.
        profile: Steps to trace.

    Returns:
        Exit status of the program: 0 of a finished run, else as `exit_status` has it.

    Raises:
        ValueError: As `train` does, and its other errors.
    """
    summary = train(config, workdir, probe=make_probe, profile=profile)
    if "stopped_by" in summary:
        return exit_status(summary["stopped_by"])
    if not summary:  # another process has it
        return 0
    summary.pop("config", None)  # of a run that had ended before
    curves = plot_curves(as_path(workdir))
    print(f"\n{final_table(summary)}\n")
    print(f"Curves: {curves}\nMetrics, checkpoints, summary: {curves.parent}")
    return 0


def _define_flags() -> None:
    flags.adopt_module_key_flags(command_line)  # so that --help shows them
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder for checkpoints and results; resumes from what is there.",
    )
    flags.DEFINE_string(
        "profile", None, "START:STOP: trace these steps, to the workdir's profile/."
    )
    flags.DEFINE_bool(
        "dry_run", False, "Say what would be trained and whether it fits, and end."
    )


def _profile() -> range:
    text = flags.FLAGS.profile
    if text is None:
        return range(0)
    try:
        return steps_of(text)
    except ValueError as error:
        command_line.fail(f"{error}")


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags name."""
    del argv
    command_line.check_config_file(_EXAMPLE)
    config, workdir = command_line.CONFIG.value, flags.FLAGS.workdir
    if workdir is None and not flags.FLAGS.dry_run:
        command_line.fail(f"--workdir is missing. For example: {_EXAMPLE}")
    profile = _profile()
    command_line.log_own_messages()
    command_line.start_jax()
    if flags.FLAGS.dry_run:
        about, fits = command_line.run_or_fail(dry_run, config, workdir or "none")
        print(about)
        sys.exit(0 if fits else 1)
    sys.exit(command_line.run_or_fail(run, config, workdir, profile))


if __name__ == "__main__":
    _define_flags()
    app.run(main, flags_parser=command_line.parse_flags)
