"""The detector: a head that is the same on all levels of a pyramid."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ser_jax.evaluate.detection.pyramid import SimplePyramid

_GROUP_SIZE = 8  # channels of a GroupNorm's group: 32 groups of 256 channels
_PRIOR = 0.01  # probability of a class at the start
_MOST = 6.0  # of the logarithm of a distance in strides


@flax.struct.dataclass
class Outputs:
    """What a detector gives at each location, levels joined, finest first, float32.

    Attributes:
        logits: Of each class, `[b, n, c]`.
        distances: Left, top, right, bottom to the sides of a box, `[b, n, 4]`, pixels.
        centerness: Logit, `[b, n]`.
    """

    logits: jax.Array
    distances: jax.Array
    centerness: jax.Array


class Tower(nn.Module):
    """3 x 3 convolutions, each with GroupNorm and ReLU.

    Attributes:
        channels: Width, a multiple of 8.
        num_convs: Their number.
        dtype: Compute dtype; norms are float32.
    """

    channels: int
    num_convs: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, d]` -> `[b, h, w, channels]`, in the compute dtype."""
        for i in range(1, self.num_convs + 1):
            x = nn.Conv(
                self.channels,
                (3, 3),
                use_bias=False,  # a norm follows
                dtype=self.dtype,
                kernel_init=_small,
                name=f"conv{i}",
            )(x)
            norm = nn.GroupNorm(
                None, _GROUP_SIZE, 1e-5, dtype=jnp.float32, name=f"norm{i}"
            )
            x = nn.relu(norm(x).astype(self.dtype))
        return x


class FCOSHead(nn.Module):
    """Two towers, for classes and for boxes, shared by all levels.

    Attributes:
        num_classes: Number of classes, c.
        strides: Of the levels.
        channels: Width of the towers, a multiple of 8.
        num_convs: Convolutions of each.
        dtype: Compute dtype of the towers; what is predicted is float32.

    Reference:
        FCOS (arXiv 1904.01355), Sec. 3; centerness beside the boxes and distances in
        strides: arXiv 2006.09214.
    """

    num_classes: int
    strides: tuple[int, ...]
    channels: int = 256
    num_convs: int = 4
    dtype: DTypeLike = jnp.bfloat16

    @nn.compact
    def __call__(self, levels: list[jax.Array]) -> Outputs:
        """Predicts at every cell of every level: maps `[b, h, w, d]` -> outputs."""
        tower = self.channels, self.num_convs, self.dtype
        class_tower = Tower(*tower, name="class_tower")
        box_tower = Tower(*tower, name="box_tower")
        prior = nn.initializers.constant(-math.log((1 - _PRIOR) / _PRIOR))
        to_logits = _predict(self.num_classes, "logits", prior)
        to_box = _predict(5, "box", nn.initializers.zeros)
        scales = self.param("scales", nn.initializers.ones, (len(self.strides),))

        joined = []
        for i, (stride, x) in enumerate(zip(self.strides, levels, strict=True)):
            logits, box = to_logits(class_tower(x)), to_box(box_tower(x))
            exponent = jnp.clip(scales[i] * box[..., :4], -_MOST, _MOST)
            level = logits, jnp.exp(exponent) * stride, box[..., 4:]
            joined.append([y.reshape(len(y), -1, y.shape[-1]) for y in level])
        logits, distances, central = (
            jnp.concatenate(parts, axis=1) for parts in zip(*joined, strict=True)
        )
        return Outputs(logits, distances, central[..., 0])


class Detector(nn.Module):
    """Pyramid and head, on the maps of an encoder.

    A stack of them is trained at once: `apply_stack`, or `jax.vmap` over a leading axis
    of parameters. Nothing in it depends on other rows of the batch.

    Attributes:
        num_classes: Number of classes, c.
        strides: Of the levels: `pyramid_strides`.
        channels: Width of pyramid and towers, a multiple of 8.
        num_convs: Convolutions of each tower.
        dtype: Compute dtype; norms and what is predicted are float32.

    Raises:
        ValueError: If the width is not a multiple of 8.
    """

    num_classes: int
    strides: tuple[int, ...]
    channels: int = 256
    num_convs: int = 4
    dtype: DTypeLike = jnp.bfloat16

    def __post_init__(self):
        """Checks the attributes."""
        if self.channels % _GROUP_SIZE:
            raise ValueError(
                f"channels must be a multiple of {_GROUP_SIZE}, the width of a "
                f"GroupNorm's group; got {self.channels}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, maps: Mapping[int, jax.Array]) -> Outputs:
        """Detects.

        Args:
            maps: Stride -> map, `[b, h, w, d]`, any float dtype.

        Returns:
            Predictions at the locations of `make_locations` for these strides.
        """
        pyramid = SimplePyramid(self.strides, self.channels, self.dtype, name="pyramid")
        head = FCOSHead(
            self.num_classes,
            self.strides,
            self.channels,
            self.num_convs,
            self.dtype,
            name="head",
        )
        return head(pyramid(maps))


def apply_stack(
    detector: Detector, variables: Any, maps: Mapping[int, jax.Array]
) -> Outputs:
    """Detects with each of a stack of detectors, on the same maps.

    What `jax.vmap` gives, as a loop: it makes grouped convolutions of them, which take
    ten to twenty times as long on CPUs.

    Args:
        detector: The detector.
        variables: Of s detectors, stacked along a leading axis.
        maps: Stride -> map, `[b, h, w, d]`.

    Returns:
        Outputs with a leading axis: `[s, b, ...]`.
    """
    leaves, tree = jax.tree.flatten(variables)
    rows = zip(*leaves, strict=True)
    outputs = [detector.apply(jax.tree.unflatten(tree, row), maps) for row in rows]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *outputs)


_small = nn.initializers.normal(0.01)


def _predict(
    features: int, name: str, bias_init: nn.initializers.Initializer
) -> nn.Conv:
    """In float32: a logarithm of distances in bfloat16 would be off by a hundredth."""
    return nn.Conv(
        features,
        (3, 3),
        dtype=jnp.float32,
        kernel_init=_small,
        bias_init=bias_init,
        name=name,
    )
