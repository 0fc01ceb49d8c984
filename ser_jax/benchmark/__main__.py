"""Command line: `python -m ser_jax.benchmark --config=configs/digits_ser.py`.

What a config's training step costs, and beside it, if it has a regularizer, the same
config without: FLOPs, time, memory; and what loader and augmentation cost alone.
`--flops_only` counts and runs nothing, `--ready_views` times the step without
augmentation; `--ntxent_memory` asks for the memory of the token-level loss instead,
`--linear_heads` for the time of linear evaluation with 30 heads and with one.

`--topology=v5e:2x4` asks the TPU compiler instead: does the config fit a slice that is
not here, and what will it cost there? The exit status is 1 if it does not fit.
"""

import datetime
import functools
import sys

import jax
from absl import app, flags

from ser_jax.benchmark.figures import measure, measure_ntxent_memory
from ser_jax.benchmark.linear_heads import head_costs
from ser_jax.benchmark.tables import (
    Figures,
    head_table,
    memory_table,
    step_table,
    topology_table,
)
from ser_jax.benchmark.topology import measure_topology
from ser_jax.config import flags as command_line
from ser_jax.storage.files import as_path, write_json, write_text
from ser_jax.train.experiment import build

for _name in ("config", "show_config"):
    flags.declare_key_flag(_name)  # so that --help shows it
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")
_FLOPS_ONLY = flags.DEFINE_bool("flops_only", False, "Count; compile and run nothing.")
_READY_VIEWS = flags.DEFINE_bool(
    "ready_views", False, "Time the step from views that are there: no augmentation."
)
_NTXENT_MEMORY = flags.DEFINE_bool(
    "ntxent_memory", False, "The token-level loss's memory; needs no --config."
)
_LINEAR_HEADS = flags.DEFINE_integer(
    "linear_heads", None, "Classes of linear heads to time instead.", lower_bound=2
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Global batch, if not the config's.", lower_bound=1
)
_NUM_STEPS = flags.DEFINE_integer(
    "num_steps", 20, "Steps timed of each.", lower_bound=1
)
_LOADER_SECONDS = flags.DEFINE_float(
    "loader_seconds", 3.0, "Seconds per loader timing."
)

_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "TPU slice to compile for, like v5e:2x4; nothing is run."
)
_HLO = flags.DEFINE_string(
    "hlo", None, "With --topology: folder for the text of both programs."
)

_EXAMPLE = "python -m ser_jax.benchmark --config=configs/digits_ser.py"


def main(argv: list[str]) -> None:
    """Measures what the flags ask for, prints the table, writes the file."""
    del argv
    command_line.log_own_messages()
    if _TOPOLOGY.value:  # of the devices here none is wanted but the host
        jax.config.update("jax_platforms", "cpu")
    command_line.start_jax()
    figures: Figures = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "date": datetime.date.today().isoformat(),
        "jax_version": jax.__version__,
        "command": " ".join(["python -m ser_jax.benchmark", *sys.argv[1:]]),
    }
    if _NTXENT_MEMORY.value:
        figures |= measure_ntxent_memory()
        table = memory_table(figures)
    else:
        command_line.check_config_file(_EXAMPLE)
        config = command_line.CONFIG.value
        config.batch_size = _BATCH_SIZE.value or config.batch_size
        # Only schedules depend on the size of the data set: any will do.
        experiment = command_line.run_or_fail(build, config, 1000 * config.batch_size)
        if _LINEAR_HEADS.value:
            figures |= head_costs(experiment, num_classes=_LINEAR_HEADS.value)
            table = head_table(figures)
        elif _TOPOLOGY.value:
            figures |= command_line.run_or_fail(
                measure_topology, experiment, _TOPOLOGY.value, _keep
            )
            table = topology_table(figures)
        else:
            measured = functools.partial(
                measure,
                experiment,
                flops_only=_FLOPS_ONLY.value,
                ready_views=_READY_VIEWS.value,
                num_steps=_NUM_STEPS.value,
                loader_seconds=_LOADER_SECONDS.value,
            )
            figures |= command_line.run_or_fail(measured)
            table = step_table(figures)
    if _JSON.value:
        command_line.run_or_fail(write_json, _JSON.value, figures)
    print("{device}, {date}, jax {jax_version}\n{command}\n".format(**figures))
    print(table)
    if not figures.get("fits", True):
        sys.exit(1)


def _keep(name: str, text: str) -> None:
    """Writes the text of a program, if it is wanted."""
    if _HLO.value:
        folder = as_path(_HLO.value)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{name}.txt", text)


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
