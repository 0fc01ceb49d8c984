"""Maps of an encoder, of a stride or a few, as the levels of a pyramid."""

import math
from collections.abc import Iterable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ser_jax.models.blocks import gelu, layer_norm

_FINEST_PX, _NUM_LEVELS = 8, 4
_LARGE_PX = 640  # from here on there is one level more
_POOLED_PX = 32  # levels up to this stride are made of all cells of a map


def pyramid_strides(
    map_strides: Iterable[int], size: int, finest: int = _FINEST_PX
) -> tuple[int, ...]:
    """Strides of a pyramid on an encoder's maps.

    Args:
        map_strides: Strides of the maps, each twice the one before.
        size: Pixels a side of the pictures.
        finest: Stride wanted of the finest level.

    Returns:
        Four strides, five from 640 px on, less those above the size, each twice the one
        before, from what is nearest to `finest` on: 8, 16, 32, 64 with a patch of 8, 16
        or 32 px, 7, 14, 28, 56 with one of 14. A single map finer than that begins.
    """
    coarsest = max(map_strides)
    first = round(math.log2(finest / coarsest))
    while first < 0 and coarsest % 2**-first:
        first += 1
    first = min(first, 0)
    num_levels = _NUM_LEVELS + (size >= _LARGE_PX)
    strides = (coarsest // 2**-first * 2**k for k in range(num_levels))
    return tuple(stride for stride in strides if stride <= size)


class SimplePyramid(nn.Module):
    """Maps of several strides and one width, from one map or from a few.

    A level whose stride a map has comes of it. Finer ones are grown from the finest
    such map, coarser ones pooled from the coarsest. If there are several maps, what the
    coarse ones say is added to the finer.

    Attributes:
        strides: Of the levels, rising, each twice the one before.
        channels: Width of the levels.
        dtype: Compute dtype; norms are float32.

    Raises:
        ValueError: If no map has the stride of a level.

    Reference:
        ViTDet (arXiv 2203.16527), Sec. 3; several maps: FPN (arXiv 1612.03144).
    """

    strides: tuple[int, ...]
    channels: int
    dtype: DTypeLike = jnp.bfloat16

    @nn.compact
    def __call__(self, maps: Mapping[int, jax.Array]) -> list[jax.Array]:
        """Makes the levels.

        Args:
            maps: Stride -> map, `[b, h, w, d]`.

        Returns:
            `[b, h, w, channels]` of each level, in the compute dtype.
        """
        own = [stride for stride in self.strides if stride in maps]
        if not own:
            raise ValueError(
                f"the pyramid's strides, {self.strides}, have none of the maps', "
                f"{tuple(maps)}; choose them by pyramid_strides."
            )
        grown = {stride: maps[stride].astype(self.dtype) for stride in own}
        for stride in reversed(self.strides[: self.strides.index(own[0])]):
            grown[stride] = self._twice_as_fine(grown[2 * stride], f"up_{stride}")
        for stride in self.strides[self.strides.index(own[-1]) + 1 :]:
            if stride <= _POOLED_PX:
                window = (stride // own[-1],) * 2
                grown[stride] = nn.max_pool(grown[own[-1]], window, window, "SAME")
        levels = {
            stride: self._normed(
                self._dense(self.channels, f"lateral_{stride}")(x), f"norm1_{stride}"
            )
            for stride, x in grown.items()
        }
        for stride in reversed(own[:-1]):
            coarse = levels[2 * stride]
            levels[stride] += coarse.repeat(2, axis=1).repeat(2, axis=2)
        for stride, x in levels.items():
            conv = nn.Conv(
                self.channels,
                (3, 3),
                use_bias=False,  # a norm follows
                dtype=self.dtype,
                name=f"smooth_{stride}",
            )
            levels[stride] = self._normed(conv(x), f"norm2_{stride}")
        for stride in self.strides:
            if stride not in levels:
                levels[stride] = levels[stride // 2][:, ::2, ::2]
        return [levels[stride] for stride in self.strides]

    def _twice_as_fine(self, x: jax.Array, name: str) -> jax.Array:
        """A transposed convolution, 2 x 2 by 2, to half the width; norm and GELU."""
        b, h, w, d = x.shape
        x = self._dense(4 * (d // 2), name)(x).reshape(b, h, w, 2, 2, d // 2)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, d // 2)
        return gelu(self._normed(x, f"norm_{name}"))

    def _dense(self, features: int, name: str) -> nn.Dense:
        return nn.Dense(features, use_bias=False, dtype=self.dtype, name=name)

    def _normed(self, x: jax.Array, name: str) -> jax.Array:
        return layer_norm(name)(x).astype(self.dtype)
