"""Tasks on every layer: do its tokens move with the picture, do they know how."""

from typing import Any

import jax

from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.equivariance.equimod import EquiMod
from ser_jax.evals.equimod_scores import equimod_scores
from ser_jax.evals.equivariance_depth import equivariance_by_depth
from ser_jax.evals.lie_derivative import lie_derivatives
from ser_jax.evals.rotation_probe import rotation_probe_by_depth
from ser_jax.evals.seis import seis_by_depth
from ser_jax.tasks.task import Options
from ser_jax.trained_run import TrainedRun
from ser_jax.variables import Variables


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
    experiment, source = run.experiment, run.sources["eval"]
    loader = train_loader(
        source,
        RandomCrops(experiment.crops, experiment.pair_seed),
        batch_size=min(run.num_pictures, len(source)),
        seed=run.seed,
        num_threads=experiment.config.loader.num_threads,
        prefetch_batches=1,
    )
    try:
        crops = next(loader)
    finally:
        loader.close()
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
    batch = {key: crops[key] for key in ("crops", "crop_params")}
    return equimod_scores(experiment.learner, variables, batch, experiment.step_rng)


def equimod_obstacle(run: TrainedRun, options: Options) -> str | None:
    """Why there is nothing to measure: the run is not EquiMod's."""
    del options
    if isinstance(run.experiment.learner.regularizer, EquiMod):
        return None
    return "only runs with EquiMod have a predictor to measure."
