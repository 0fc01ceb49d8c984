"""The task that draws, and the one that counts."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.cost.flops import flops_by_part
from ser_jax.evaluate.features.layers import layer_encoder
from ser_jax.evaluate.pictures.attention import cls_attention
from ser_jax.evaluate.pictures.patches import attention_picture, patch_pca_picture
from ser_jax.evaluate.pictures.token_maps import (
    SHOWN_TRANSFORMS,
    token_maps,
    token_maps_picture,
)
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.task import Options
from ser_jax.models.vit import ViT

_NUM_SHOWN = 6
_NUM_MOVED = 2


def pictures(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Attention, tokens in colours, tokens of moved pictures; PNG files by name.

    Args:
        run: The run.
        options: `folder`.

    Returns:
        "patch_pca" and "equivariance" -> file name, and "attention" of a ViT whose
        class token passes two blocks or more.
    """
    encoder, folder = run.encoder, options.folder
    shown, images = run.pictures[:_NUM_SHOWN], jnp.asarray(run.images[:_NUM_SHOWN])
    if jax.process_index():  # the first one draws
        return {}
    encode, variables = layer_encoder(encoder, run.local_variables, (_layer(run),))
    jitted = jax.jit(encode, static_argnames="num_slots")
    files = {}

    tokens = np.asarray(jitted(variables, images).tokens)  # [b, n, d]
    side = run.image_size // encoder.patch_size
    grids = tokens.reshape(len(tokens), side, side, -1)
    files["patch_pca"] = patch_pca_picture(folder / "patch_pca.png", shown, grids)

    maps = token_maps(
        lambda x, shape, num_slots: jitted(variables, x, shape, num_slots=num_slots),
        run.images[:_NUM_MOVED],
        SHOWN_TRANSFORMS,
        encoder.patch_size,
        _layer(run),
    )
    files["equivariance"] = token_maps_picture(
        folder / "token_maps.png",
        maps,
        mean=run.experiment.mean,
        std=run.experiment.std,
    )
    if isinstance(encoder, ViT) and encoder.cls_insert < encoder.depth - 1:
        attention = jax.jit(functools.partial(cls_attention, encoder))
        weights = np.asarray(attention(run.local_variables, images))
        files["attention"] = attention_picture(folder / "attention.png", shown, weights)
    return {name: path.name for name, path in files.items()}


def flops(run: TrainedRun, options: Options) -> dict[str, Any]:
    """FLOPs of one training step, part by part, beside XLA's: `flops_by_part`."""
    del options
    return flops_by_part(run.experiment)


def _layer(run: TrainedRun) -> int:
    """The layer drawn: the first that was regularized, else the middle."""
    return min(run.encoder.grid_layers, default=(run.encoder.depth + 1) // 2)
