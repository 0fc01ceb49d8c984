"""Equivariance of a trained encoder, layer by layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ser_jax.evaluate.features.layers import every_layer
from ser_jax.evaluate.layers.scores import Scores, equivariance_scores
from ser_jax.evaluate.task import Task, one_grid
from ser_jax.models.outputs import Encoder


def equivariance_by_depth(
    encoder: Encoder, variables: Mapping[str, Any], images: np.ndarray, *, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of every layer's token grid under every transform.

    Args:
        encoder: The encoder; any `grid_layers`.
        variables: Its variables.
        images: Normalised images, `[b, h, w, 3]`, float32.
        seed: Of the random pairs that the baseline takes.

    Returns:
        "layer_<k>" -> transform ("rotation/90", "scale/0.8", ...) -> what `Scores`
        says: `token_cosine`, of unrelated tokens `token_cosine_random`, of the map as
        it was `token_cosine_unmoved`, `corrected` (0 chance, 1 equivariant), `error`
        (0 equivariant, 1 as far apart as unrelated maps), `top1` and `top1_chance` of
        matching patches; and the invariance of mean and class token, `pooled_cosine`
        and `cls_cosine`, each with its `_random`.
    """
    encode = every_layer(encoder, variables)
    scores = equivariance_scores(
        encode,
        images,
        patch_size=encode.patch_size,
        layers=encode.layers,
        seed=seed,
    )
    return {
        f"layer_{layer}": {name: _plain(score) for name, score in by_name.items()}
        for layer, by_name in scores.items()
    }


def _plain(score: Scores) -> dict[str, float]:
    return {
        "token_cosine": score.tokens.value,
        "token_cosine_random": score.tokens.random,
        "token_cosine_unmoved": score.unmoved,
        "corrected": score.tokens.corrected,
        "error": score.error,
        "top1": score.top1,
        "top1_chance": score.top1_chance,
        "pooled_cosine": score.pooled.value,
        "pooled_cosine_random": score.pooled.random,
        "cls_cosine": score.cls.value,
        "cls_cosine_random": score.cls.random,
    }


TASK = Task(
    name="equivariance",
    section="Equivariance",
    caption="Tokens of the moved image against tokens moved along.",
    measure=lambda subject, _: equivariance_by_depth(
        subject.encoder.module,
        subject.encoder.local_variables,
        subject.images,
        seed=subject.seed,
    ),
    obstacle=one_grid,
    better={"top1": "higher", "corrected": "higher", "error": "lower"},
    in_detail=("layer_*",),
)
