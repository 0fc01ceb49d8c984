"""What a run is, in a few lines before it starts."""

from collections.abc import Mapping
from typing import Any

import jax
from clu import parameter_overview
from jax.sharding import Mesh

from ser_jax.data.sources import Source
from ser_jax.methods.variables import Variables
from ser_jax.storage.files import PathLike
from ser_jax.train.accounting import count_parameters, shared_crop_images
from ser_jax.train.experiment import Experiment


def overview(
    experiment: Experiment,
    source: Source,
    mesh: Mesh,
    variables: Variables,
    workdir: PathLike,
    init: Mapping[str, Any] | None = None,
) -> str:
    """What is trained on what, how large it is, for how long, and where it goes.

    Args:
        experiment: What is trained.
        source: Training data.
        mesh: The mesh.
        variables: The experiment's, or their shapes.
        workdir: The run's folder.
        init: What the encoder starts from, see `StartWeights.about`; None: drawn.

    Returns:
        One line each.
    """
    config, resolved = experiment.config, experiment.resolved
    objective, regularizer = config["objective"]["name"], config["regularizer"]["name"]
    what = objective if regularizer == "none" else f"{objective} with {regularizer}"
    variant = config["model"]["variant"]
    parts = ", ".join(
        f"{number / 1e6:.2f} M {part}"
        for part, number in count_parameters(experiment, variables).items()
        if number
    )
    schedule = (
        f"{resolved.total_steps / resolved.steps_per_epoch:g} epochs, "
        f"{resolved.total_steps:,} steps of {experiment.batch_size:,} images, learning "
        f"rate up to {resolved.peak_lr:.3g} in {resolved.warmup_steps:,} steps"
    )
    rows = {
        "encoder": f"ViT {variant}" if "/" in variant else variant,
        "parameters": parts,
        "images": f"{len(source):,} of {config['dataset']['name']}, "
        f"{experiment.image_size} px",
        "devices": f"{mesh.size} x {jax.devices()[0].device_kind}",
        "schedule": schedule,
        "workdir": f"{workdir}",
    }
    if init:
        rows["init"] = f"{init['file']} ({init['layout']}, {init['encoder']})"
    if num_shared := shared_crop_images(experiment):
        rows["b2"] = f"{num_shared:,} of {experiment.batch_size:,} images"
        if num_shared < mesh.size:
            rows["b2"] += ", less than one a device (docs/performance.md)"
    if resolved.stop_step < resolved.total_steps:
        rows["max_steps"] = f"stops at step {resolved.stop_step:,}"
    lines = [f"  {name:<11} {value}" for name, value in rows.items()]
    return "\n".join([f"Training {what}", *lines])


def parameter_table(variables: Variables) -> str:
    """Name, shape, type and size of every array that is trained.

    Args:
        variables: The experiment's, or their shapes.

    Returns:
        A table, with the total below it.
    """
    return parameter_overview.get_parameter_overview(
        variables.params, include_stats=False
    )
