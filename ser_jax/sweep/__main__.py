"""Command line: `python -m ser_jax.sweep --config=FILE --grid=... --workdir=DIR`.

Runs a grid of settings times seeds, one run after the other, each a process of its own
in `DIR/CELL/seedN`, evaluated if asked for; then a table and a plot of each metric with
its 95 % interval over the seeds. The same command goes on where a stopped sweep left
off: what stops a run (see `ser_jax.main`) stops the sweep, its run saved, with the same
exit status.
"""

import shlex
import sys

import jax
from absl import app, flags
from ml_collections import config_flags

from ser_jax.config import flags as command_line
from ser_jax.sweep.runner import SweepStopped, sweep
from ser_jax.train.preemption import exit_status

for _name in ("config", "show_config"):
    flags.declare_key_flag(_name)  # so that --help shows it
_GRID = flags.DEFINE_string(
    "grid",
    "",
    "KEY=VALUE,VALUE,...;KEY=...: settings, or 'preset'; '' for seeds alone.",
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "A run of every cell for each.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep.")
_METRIC = flags.DEFINE_list("metric", ["knn_accuracy"], "What the tables are of.")
_EVALUATE = flags.DEFINE_string(
    "evaluate",
    "",
    "What ser_jax.evaluate is told of every run: '--tasks=knn,linear'; '': it is not.",
)
_RECORDS = flags.DEFINE_string(
    "records",
    None,
    "File of what has been done, a line a run, which is not done again; records.jsonl "
    "in the workdir if not given.",
)

_EXAMPLE = (
    "python -m ser_jax.sweep --config=configs/digits.py:moco_v3/ser "
    "--grid='regularizer.weight=0.0,0.5,1.0' --seeds=0,1,2 --workdir=/tmp/sweep"
)


def main(argv: list[str]) -> None:
    """Runs the sweep that the flags describe, and prints its table."""
    del argv
    command_line.check_config_file(_EXAMPLE)
    workdir = _WORKDIR.value
    if workdir is None:
        command_line.fail(f"--workdir is missing. For example: {_EXAMPLE}")
    if not all(seed.isdigit() for seed in _SEEDS.value):
        command_line.fail(f"--seeds: expected 0,1,2 or the like, got {_SEEDS.value}.")
    command_line.log_own_messages()
    # The accelerator is for the runs: this process only builds configs.
    jax.config.update("jax_platforms", "cpu")
    flag = flags.FLAGS["config"]
    overrides = config_flags.get_override_values(flag)

    def sweep_until_stopped() -> int:
        try:
            sweep(
                config_flags.get_config_filename(flag),
                _GRID.value,
                [int(seed) for seed in _SEEDS.value],
                workdir,
                metrics=_METRIC.value,
                evaluate=shlex.split(_EVALUATE.value),
                records_file=_RECORDS.value,
                overrides=[f"--config.{k}={v}" for k, v in overrides.items()],
                command=shlex.join(["python", "-m", "ser_jax.sweep", *sys.argv[1:]]),
            )
        except SweepStopped as stopped:
            print(f"ser_jax: {stopped}", file=sys.stderr)
            return exit_status(stopped.stopped_by)
        return 0

    sys.exit(command_line.run_or_fail(sweep_until_stopped))


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
