"""Tasks on every layer: do its tokens move with the picture, do they know how."""

import itertools
from typing import Any

import jax

from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.evaluate.layers.equimod import equimod_scores
from ser_jax.evaluate.layers.equivariance import equivariance_by_depth
from ser_jax.evaluate.layers.lie_derivative import lie_derivatives
from ser_jax.evaluate.layers.rotation_probe import rotation_probe_by_depth
from ser_jax.evaluate.layers.seis import seis_by_depth
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.task import Options
from ser_jax.methods.variables import Variables

_EQUIMOD_BATCH = 64


def equivariance(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Scores under every transform: `equivariance_by_depth`."""
    del options
    return equivariance_by_depth(
        run.encoder, run.local_variables, run.images, seed=run.seed
    )


def seis(run: TrainedRun, options: Options) -> dict[str, Any]:
    """What is preserved, without being told how: `seis_by_depth`."""
    del options
    return seis_by_depth(run.encoder, run.local_variables, run.images, seed=run.seed)


def lie_derivative(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Change under moves that are infinitely small: `lie_derivatives`."""
    del options
    return lie_derivatives(run.encoder, run.local_variables, run.images)


def rotation_probe(run: TrainedRun, options: Options) -> dict[str, Any]:
    """How well features tell quarter turns apart: `rotation_probe_by_depth`."""
    del options
    return rotation_probe_by_depth(
        run.encoder, run.local_variables, run.images, seed=run.seed
    )


def equimod(run: TrainedRun, options: Options) -> dict[str, Any]:
    """EquiMod's gain and ratio on augmented pictures of the evaluation split."""
    del options
    experiment, source = run.experiment, run.data.pictures
    num_pictures = min(run.num_pictures, len(source))
    num_batches = -(-num_pictures // _EQUIMOD_BATCH)
    shapes = jax.eval_shape(experiment.init_state, experiment.init_rng).variables

    def part(field: str, *keys: str) -> Any:
        tree = getattr(shapes, field)
        for key in keys:
            tree = tree[key]
        return run.load("/".join((field, *keys)), tree)

    variables = Variables(
        params={name: part("params", name) for name in ("encoder", "regularizer")},
        target_params={},
        batch_stats={
            "student": {
                name: part("batch_stats", "student", name)
                for name in ("encoder", "regularizer")
            }
        },
        method_state={},
    )
    loader = train_loader(
        source,
        RandomCrops(experiment.crops, experiment.pair_seed),
        batch_size=num_pictures // num_batches,
        seed=run.seed,
        num_threads=experiment.config.loader.num_threads,
        prefetch_batches=1,
    )
    batches = (
        {key: batch[key] for key in ("crops", "crop_params")}
        for batch in itertools.islice(loader, num_batches)
    )
    try:
        return equimod_scores(
            experiment.learner, variables, batches, experiment.step_rng
        )
    finally:
        loader.close()
