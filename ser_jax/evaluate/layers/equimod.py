"""What EquiMod's predictor makes of an augmentation's parameters after training."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.methods.learner import Batch, Learner
from ser_jax.methods.objectives.base import GLOBAL_VIEWS
from ser_jax.methods.regularizers.equimod import EquiMod, equivariance_measures
from ser_jax.methods.variables import Variables


def equimod_scores(
    learner: Learner, variables: Variables, batches: Iterable[Batch], rng: jax.Array
) -> dict[str, float]:
    """EquiMod's measures of equivariance on held-out pictures.

    Encoder and heads run in evaluation mode: on the running statistics, without
    stochastic depth.

    Args:
        learner: A learner whose regularizer is EquiMod.
        variables: What it has learned; the online encoder's part is read.
        batches: Pictures as the loader makes them, "crops" and "crop_params", in
            batches of one size.
        rng: Key of the augmentations.

    Returns:
        `gain`: mean cos(view, prediction) - cos(view, plain picture), > 0 if the
        prediction is closer. `ratio`: mean (1 - cos(view, plain)) / (1 - cos(view,
        prediction)).

    Raises:
        ValueError: If the regularizer is not EquiMod.

    Reference:
        EquiMod (arXiv 2211.01244), absolute and relative equivariance measures.
    """
    regularizer = learner.regularizer
    if not isinstance(regularizer, EquiMod):
        raise ValueError(
            "only a run with regularizer.name = 'equimod' has a predictor to measure; "
            f"this one's is {type(regularizer).__name__}."
        )
    plain = regularizer.views(learner.objective.views)
    names = (*GLOBAL_VIEWS, *(spec.name for spec in plain))
    heads = regularizer.make_heads()

    @jax.jit
    def measures(variables: Variables, batch: Batch, rng: jax.Array):
        views = learner.make_views(rng, batch, jnp.zeros((), jnp.int32))
        encoder = variables.encoder(target=False)
        features = {
            name: learner.encoder.apply(encoder, views[name].images) for name in names
        }
        outputs: Any = heads.apply(
            {
                "params": variables.params["regularizer"],
                "batch_stats": variables.batch_stats["student"]["regularizer"],
            },
            features,
            {},
            views,
            False,
        )
        return equivariance_measures(outputs)

    found = [
        jax.device_get(measures(variables, batch, jax.random.fold_in(rng, number)))
        for number, batch in enumerate(batches)
    ]
    return {
        name: float(np.mean([of[f"equimod_{name}"] for of in found]))
        for name in ("gain", "ratio")
    }
