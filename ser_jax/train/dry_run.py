"""What a run would be and need on the devices that are here; nothing is trained."""

import logging
import math

import jax
from ml_collections import ConfigDict

from ser_jax.data.sources import open_source
from ser_jax.storage.files import PathLike
from ser_jax.train.accounting import step_and_shapes
from ser_jax.train.compiled import compile_train_step
from ser_jax.train.devices import device_memory, for_devices
from ser_jax.train.experiment import build
from ser_jax.train.flops import count_flops
from ser_jax.train.overview import overview
from ser_jax.train.sharding import check_batch_size, make_mesh
from ser_jax.train.weights import start_weights

_logger = logging.getLogger(__name__)


def dry_run(config: ConfigDict, workdir: PathLike) -> tuple[str, bool]:
    """Opens the data and compiles the step, as training would.

    Args:
        config: The experiment.
        workdir: Where it would be written; it is not touched.

    Returns:
        What would be trained, on what, with how many FLOPs and how much memory; and
        whether the step fits the devices, as far as they tell.

    Raises:
        ValueError: If the config is refused.
        OSError: If the data cannot be read.
    """
    weights = start_weights(config.to_dict(), workdir)
    dataset = config.dataset
    source = open_source(dataset.name, dataset.train_split, dataset.data_dir)
    experiment = build(config, len(source))
    mesh = make_mesh()
    check_batch_size(experiment.batch_size, mesh, experiment.accumulate_steps)
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    init = weights.about if weights else None
    about = overview(experiment, source, mesh, state.variables, workdir, init)
    encoder = for_devices(experiment, mesh).learner.encoder
    chosen = [
        f"{name}={getattr(encoder, name)}"
        for name in ("attention", "remat", "scan")
        if hasattr(encoder, name)
    ]
    flops = count_flops(*step_and_shapes(experiment))
    rows = {"FLOPs": f"{flops:.4g} a step", "chosen": ", ".join(chosen) or "nothing"}
    _logger.info("Compiling the step.")
    plan = compile_train_step(experiment, state, mesh).memory_analysis()
    fits = True
    if plan is not None:
        needed = plan.temp_size_in_bytes + plan.argument_size_in_bytes
        memory = device_memory(mesh.devices.flat[0])
        fits = needed <= memory
        rows["memory"] = f"{needed / 1e9:.2f} GB a device, by the compiler's plan"
        if memory < math.inf:
            rows["memory"] += f", of {memory / 1e9:.2f}"
        if not fits:
            rows["memory"] += ": IT DOES NOT FIT (docs/performance.md)"
    lines = [f"  {name:<11} {value}" for name, value in rows.items()]
    return "\n".join([about.replace("Training", "Would train", 1), *lines]), fits
