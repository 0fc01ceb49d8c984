"""Command line: `python -m ser_jax.sweep --config=FILE --grid=... --workdir=DIR`.

Runs a grid of settings times seeds, one run after the other, each a process of its own
in `DIR/CELL/seedN`; then one table and one plot of a metric with its 95 % interval over
the seeds. The same command goes on where a stopped sweep left off.
"""

import datetime
import functools
import shlex
import sys
from collections.abc import Sequence

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from ser_jax.config import flags as command_line
from ser_jax.storage.files import as_path
from ser_jax.storage.summary import read_summary
from ser_jax.sweep.grid import expand, parse_grid
from ser_jax.sweep.report import collect, write_report
from ser_jax.sweep.runner import Interrupt, run_all

_GRID = flags.DEFINE_string(
    "grid",
    "",
    "KEY=VALUE,VALUE,...;KEY=...: settings, or 'preset'; '' for seeds alone.",
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "A run of every cell for each.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep.")
_METRIC = flags.DEFINE_string("metric", "knn_accuracy", "What the table is of.")

_EXAMPLE = (
    "python -m ser_jax.sweep --config=configs/digits.py:moco_v3/ser "
    "--grid='regularizer.weight=0.0,0.5,1.0' --seeds=0,1,2 --workdir=/tmp/sweep"
)


def sweep(
    config_file: str,
    grid: str,
    seeds: Sequence[int],
    workdir: str,
    *,
    metric: str = "knn_accuracy",
    overrides: Sequence[str] = (),
    command: str = "",
) -> str:
    """Runs what has not been run yet; writes and prints the report.

    Args:
        config_file: As for `--config`.
        grid: See `parse_grid`.
        seeds: A run of every cell for each.
        workdir: Folder of the sweep.
        metric: What the report is of, see `collect`.
        overrides: Arguments for every run: "--config.total_epochs=5".
        command: For the report.

    Returns:
        The text of `sweep.md`.

    Raises:
        ValueError: Before anything is run, if the grid, a cell's config or what is in
            the workdir is refused.
        InterruptedError: After the report, if a signal ended the sweep.
        ChildProcessError: After the report, if a run failed.
    """
    folder = as_path(workdir)
    if len(set(seeds)) < max(1, len(seeds)):
        raise ValueError(f"--seeds: expected different numbers, got {list(seeds)}.")
    runs = expand(config_file, parse_grid(grid), seeds, folder, overrides)
    for run in runs:
        if metric == "knn_accuracy" and not run.config["knn"]["every_epochs"]:
            raise ValueError(
                f"cell {run.cell} has no k-NN probe: set knn.every_epochs above 0, or "
                "name another metric by --metric, like loss_inv."
            )
    todo = [run for run in runs if not run.is_finished()]
    print(f"{len(runs)} runs, {len(runs) - len(todo)} of them finished.", flush=True)
    with Interrupt() as interrupt:
        failures = run_all(todo, interrupt)
    ended = [run for run in runs if run.is_finished()]
    devices = {read_summary(run.workdir)["device"] for run in ended}
    about = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "device": ", ".join(sorted(devices)) or "-",
    }
    report = write_report(folder, collect(runs, metric), metric, about, len(seeds))
    print(f"\n{report}\n\nWritten to {folder}.")
    if interrupt.received:
        raise InterruptedError(
            f"stopped by {interrupt.received.name}, {len(ended)} of {len(runs)} runs "
            "finished. The same command goes on from here."
        )
    if failures:
        raise ChildProcessError(
            f"{len(failures)} of {len(runs)} runs failed; the same command tries them "
            "again:\n  " + "\n  ".join(failures)
        )
    return report


def main(argv: list[str]) -> None:
    """Runs the sweep that the flags describe, and prints its table."""
    del argv
    command_line.check_config_file(_EXAMPLE)
    if _WORKDIR.value is None:
        command_line.fail(f"--workdir is missing. For example: {_EXAMPLE}")
    if not all(seed.isdigit() for seed in _SEEDS.value):
        command_line.fail(f"--seeds: expected 0,1,2 or the like, got {_SEEDS.value}.")
    logging.set_verbosity(logging.WARNING)
    # The accelerator is for the runs: this process only builds configs.
    jax.config.update("jax_platforms", "cpu")
    flag = flags.FLAGS["config"]
    overrides = config_flags.get_override_values(flag)

    command_line.run_or_fail(
        functools.partial(
            sweep,
            config_flags.get_config_filename(flag),
            _GRID.value,
            [int(seed) for seed in _SEEDS.value],
            _WORKDIR.value,
            metric=_METRIC.value,
            overrides=[f"--config.{k}={v}" for k, v in overrides.items()],
            command=shlex.join(["python", "-m", "ser_jax.sweep", *sys.argv[1:]]),
        )
    )


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
