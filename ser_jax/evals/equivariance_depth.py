"""Equivariance of a trained encoder, layer by layer."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evals.equivariance_scores import Scores, equivariance_scores


def equivariance_by_depth(
    encoder: nn.Module, variables: Mapping[str, Any], images: np.ndarray, *, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of every layer's token grid, means over the transforms of a kind.

    A grid that was not regularized has no norm of its own: it is read through a
    LayerNorm without scale and shift.

    Args:
        encoder: The encoder; any `grid_layers`.
        variables: Its variables.
        images: Normalised pictures, `[b, h, w, 3]`, float32.
        seed: Of the random pairs that the baseline takes.

    Returns:
        "layer_<k>" -> kind ("rotation", "flip", "scale", ...) -> `token_cosine`
        (corrected for random pairs: 0 chance, 1 equivariant), `error` (0 equivariant,
        1 as far apart as unrelated maps), `top1` of matching patches.
    """
    layers = tuple(range(1, encoder.depth + 1))
    every = encoder.clone(grid_layers=layers)
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    wanted = jax.eval_shape(every.init, jax.random.key(0), image)["params"]
    params = dict(variables["params"])
    for name in wanted.keys() - params.keys():
        params[name] = {
            key: (jnp.ones if key == "scale" else jnp.zeros)(leaf.shape, leaf.dtype)
            for key, leaf in wanted[name].items()
        }
    run = jax.jit(
        lambda variables, images, grid_shape, num_slots: every.apply(
            variables, images, grid_shape, num_slots=num_slots
        ),
        static_argnums=3,
    )
    scores = equivariance_scores(
        functools.partial(run, dict(variables) | {"params": params}),
        images,
        patch_size=encoder.patch_size,
        layers=layers,
        seed=seed,
    )
    return {f"layer_{layer}": _by_kind(of) for layer, of in scores.items()}


def _by_kind(scores: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    kinds: dict[str, list[Scores]] = {}
    for name, score in scores.items():
        kinds.setdefault(name.partition("/")[0], []).append(score)
    return {
        kind: {
            "token_cosine": float(np.mean([s.tokens.corrected for s in members])),
            "error": float(np.mean([s.error for s in members])),
            "top1": float(np.mean([s.top1 for s in members])),
        }
        for kind, members in kinds.items()
    }
