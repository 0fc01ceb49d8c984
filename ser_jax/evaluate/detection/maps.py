"""The feature maps of a frozen encoder, for pictures of any size."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.evaluate.features.layers import layer_encoder
from ser_jax.models.outputs import FINAL_NORM, norm_grid

LAST_BLOCKS = "last4"
_NUM_BLOCKS = 4

Maps = dict[int, jax.Array]


def feature_maps(
    encoder: FrozenEncoder, size: int, layer: int | str | None = None
) -> Callable[[Any, jax.Array], Maps]:
    """What reads an encoder's maps off pictures.

    Args:
        encoder: The encoder.
        size: Pixels a side of the pictures, a multiple of the encoder's patch: position
            tables are resampled.
        layer: None for a ViT's last map after the final norm, or all stages of a
            ResNet, each through a norm as in `layer_encoder`; a layer, for the map
            after it through the same; "last4" for the last four blocks of a ViT side by
            side, the first on the left, all through the final norm.

    Returns:
        `(the encoder's variables, normalised pictures [b, size, size, 3]) -> {stride:
        map [b, size / stride, size / stride, d]}`, in the encoder's compute dtype. No
        gradient passes.

    Raises:
        ValueError: If the size is no such multiple, or there is no such layer.
    """
    module = encoder.module
    if size < 1 or size % module.patch_size:
        near = max(1, round(size / module.patch_size)) * module.patch_size
        raise ValueError(
            f"pictures of {size} px a side do not divide into cells of "
            f"{module.patch_size} px, the encoder's; {near} px do."
        )
    layers = _layers(module.depth, layer, is_vit=module.cls_insert is not None)

    def read(variables: Any, images: jax.Array) -> Maps:
        if layer == LAST_BLOCKS:
            params = dict(variables["params"])
            params |= {norm_grid(block): params[FINAL_NORM] for block in layers}
            variables = dict(variables) | {"params": params}
        encode, variables = layer_encoder(module, variables, layers)
        maps: Maps = {}
        for grid in encode(variables, images).grids.values():
            stride = module.patch_size // grid.scale
            side = size // stride
            x = grid.tokens.reshape(len(images), side, side, -1).astype(grid.dtype)
            maps[stride] = (
                jnp.concatenate([maps[stride], x], -1) if stride in maps else x
            )
        return jax.lax.stop_gradient(maps)

    return read


def _layers(depth: int, layer: int | str | None, *, is_vit: bool) -> tuple[int, ...]:
    """The layers that are read."""
    if layer is None:
        return (depth,) if is_vit else tuple(range(1, depth + 1))
    if layer == LAST_BLOCKS and is_vit:
        return tuple(range(max(1, depth - _NUM_BLOCKS + 1), depth + 1))
    if isinstance(layer, int) and 1 <= layer <= depth:
        return (layer,)
    last = f', "{LAST_BLOCKS}"' if is_vit else ""
    raise ValueError(
        f"layer {layer!r} is none of this encoder's: give one of 1 to {depth}"
        f"{last}, or the usual (None; --detection_layer=last)."
    )
