"""The task that draws."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.features.layers import layer_encoder
from ser_jax.evaluate.pictures.attention import cls_attention
from ser_jax.evaluate.pictures.patches import attention_picture, patch_pca_picture
from ser_jax.evaluate.pictures.token_maps import (
    SHOWN_TRANSFORMS,
    token_maps,
    token_maps_picture,
)
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, one_grid
from ser_jax.models.outputs import Encoder

_NUM_SHOWN = 6
_NUM_MOVED = 2


def _measure(subject: Subject, options: Any) -> dict[str, Any]:
    """Attention, tokens in colours, tokens of moved pictures; PNG files by name.

    "patch_pca" and "equivariance" -> file name, and "attention" of a ViT whose class
    token passes two blocks or more.
    """
    del options
    encoder, folder = subject.encoder, subject.results_folder
    module, layer = encoder.module, _layer(encoder.module)
    shown = subject.pictures[:_NUM_SHOWN]
    images = jnp.asarray(subject.images[:_NUM_SHOWN])
    if jax.process_index():  # the first one draws
        return {}
    encode, variables = layer_encoder(module, encoder.local_variables, (layer,))
    jitted = jax.jit(encode, static_argnames="num_slots")
    files = {}

    tokens = np.asarray(jitted(variables, images).tokens)  # [b, n, d]
    side = subject.image_size // module.patch_size
    grids = tokens.reshape(len(tokens), side, side, -1)
    files["patch_pca"] = patch_pca_picture(folder / "patch_pca.png", shown, grids)

    maps = token_maps(
        lambda x, shape, num_slots: jitted(variables, x, shape, num_slots=num_slots),
        subject.images[:_NUM_MOVED],
        SHOWN_TRANSFORMS,
        module.patch_size,
        layer,
    )
    files["equivariance"] = token_maps_picture(
        folder / "token_maps.png",
        maps,
        mean=encoder.mean,
        std=encoder.std,
    )
    if module.cls_insert is not None and module.cls_insert < module.depth - 1:
        attention = jax.jit(functools.partial(cls_attention, module))
        weights = np.asarray(attention(encoder.local_variables, images))
        files["attention"] = attention_picture(folder / "attention.png", shown, weights)
    return {name: path.name for name, path in files.items()}


def _layer(module: Encoder) -> int:
    """The layer drawn: the first that was regularized, else the middle."""
    return min(module.grid_layers, default=(module.depth + 1) // 2)


TASK = Task(
    name="pictures",
    section=None,
    caption="What attention and tokens look like.",
    measure=_measure,
    obstacle=one_grid,
)
