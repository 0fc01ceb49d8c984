"""Layers of a ResNet, on pictures that need not fill the map.

Maps `[b, h, w, c]` travel with `inside`, where the pictures are, and stay zero
elsewhere: what surrounds a picture is then the zero padding that it would get alone.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

EXPANSION = {"basic": 1, "bottleneck": 4}  # output channels over inner ones


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm and, if asked, ReLU, within pictures.

    Attributes:
        features: Output channels.
        kernel_size: Pixels a side of the kernel, odd.
        stride: Stride; picture sides are multiples of it.
        relu: Whether a ReLU follows.
        zero_scale: Whether BatchNorm's scale starts at 0 instead of 1.
        dtype: Compute dtype; BatchNorm's statistics are float32.
        padding: Zeros on each side; None: what keeps the map's size at stride 1.
    """

    features: int
    kernel_size: int
    stride: int = 1
    relu: bool = True
    zero_scale: bool = False
    dtype: DTypeLike = jnp.float32
    padding: int | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, inside: jax.Array | None, *, train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """Applies the layer.

        Args:
            x: `[b, h, w, c]`, zero outside the pictures.
            inside: Where pictures are, `[b, h, w, 1]`, bool; None if everywhere.
            train: Whether BatchNorm uses the batch's statistics.

        Returns:
            `[b, h / stride, w / stride, features]`, zero outside the pictures, and
            where these are.
        """
        padding = self.kernel_size // 2 if self.padding is None else self.padding
        x = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            padding=padding,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            name="conv",
        )(x)
        inside = _subsample(inside, self.stride)
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
            scale_init=zeros if self.zero_scale else ones,
            name="bn",
        )(x, mask=inside)
        return _zero_outside(nn.relu(x) if self.relu else x, inside), inside


class ResidualBlock(nn.Module):
    """Basic or bottleneck block.

    Attributes:
        kind: "basic" (two 3 x 3) or "bottleneck" (1 x 1, 3 x 3, 1 x 1).
        num_filters: Channels inside the block; a bottleneck puts out four times these.
        stride: Stride, at the (first) 3 x 3.
        zero_init_residual: Whether the branch starts at 0.
        dtype: Compute dtype.

    Reference:
        He et al. (arXiv 1512.03385), Fig. 5; stride of the bottleneck at the 3 x 3, as
        torchvision (ResNet v1.5).
    """

    kind: str
    num_filters: int
    stride: int
    zero_init_residual: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: jax.Array, inside: jax.Array | None, *, train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """Applies the block; arguments and results as `ConvNorm`'s."""
        width = self.num_filters * EXPANSION[self.kind]
        layers = {  # features, kernel size, stride
            "basic": [(width, 3, self.stride), (width, 3, 1)],
            "bottleneck": [
                (self.num_filters, 1, 1),
                (self.num_filters, 3, self.stride),
                (width, 1, 1),
            ],
        }[self.kind]
        branch, branch_inside = x, inside
        for i, (features, kernel_size, stride) in enumerate(layers, start=1):
            last = i == len(layers)
            branch, branch_inside = ConvNorm(
                features,
                kernel_size,
                stride,
                relu=not last,
                zero_scale=last and self.zero_init_residual,
                dtype=self.dtype,
                name=f"layer{i}",
            )(branch, branch_inside, train=train)
        if x.shape != branch.shape:
            x, _ = ConvNorm(
                width, 1, self.stride, relu=False, dtype=self.dtype, name="shortcut"
            )(x, inside, train=train)
        return nn.relu(x + branch), branch_inside


class Stem(nn.Module):
    """First layers: 7 x 7 with stride 2, then 3 x 3 max-pooling with stride 2.

    Attributes:
        features: Output channels.
        small_images: A single 3 x 3 without stride instead.
        dtype: Compute dtype.
        padding: Of the convolution, see `ConvNorm`.

    Reference:
        He et al. (arXiv 1512.03385), Tab. 1; for small images SimCLR (arXiv
        2002.05709), App. B.9.
    """

    features: int
    small_images: bool
    dtype: DTypeLike
    padding: int | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, inside: jax.Array | None, *, train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """Applies the stem; arguments and results as `ConvNorm`'s."""
        kernel_size, stride = (3, 1) if self.small_images else (7, 2)
        x, inside = ConvNorm(
            self.features,
            kernel_size,
            stride,
            dtype=self.dtype,
            padding=self.padding,
            name="layer1",
        )(x, inside, train=train)
        if self.small_images:
            return x, inside
        # After the ReLU, zeros outside are as good as the pool's own -inf padding.
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        inside = _subsample(inside, 2)
        return _zero_outside(x, inside), inside


def _subsample(inside: jax.Array | None, stride: int) -> jax.Array | None:
    return None if inside is None else inside[:, ::stride, ::stride]


def _zero_outside(x: jax.Array, inside: jax.Array | None) -> jax.Array:
    return x if inside is None else jnp.where(inside, x, 0)
