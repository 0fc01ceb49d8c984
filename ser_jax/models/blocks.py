"""Transformer block, pre-norm, and how its kernels start."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from ser_jax.models.attention import attend, fused
from ser_jax.models.initial import uniform_bias, uniform_kernel
from ser_jax.models.packing import Images, Packed

# What a backward pass may keep of a block, by name.
QKV, MIXED, HIDDEN = "qkv", "attention", "hidden"

NORM_EPS = 1e-6  # of the ViTs that are trained here; others' may have another

Initializer = Callable[..., jax.Array]


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them.

    Attributes:
        hidden: Width of the hidden layer.
        dtype: Compute dtype.
        kernel_init: Initializer of the kernels.
    """

    hidden: int
    dtype: DTypeLike
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[t, d]` from tokens `[t, d]`."""

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(
                features, dtype=self.dtype, kernel_init=self.kernel_init, name=name
            )

        hidden = checkpoint_name(dense(self.hidden, "fc1")(x), HIDDEN)
        return dense(x.shape[-1], "fc2")(gelu(hidden))


class Attention(nn.Module):
    """Multi-head self-attention with one packed q, k, v projection.

    Attributes:
        num_heads: Number of heads.
        dtype: Compute dtype; the softmax runs in float32.
        qkv_init: Initializer of the packed kernel `[d, 3 * d]` (q, then k, then v).
        kernel_init: Initializer of the output kernel.
        implementation: See `attend`.
    """

    num_heads: int
    dtype: DTypeLike
    qkv_init: Initializer
    kernel_init: Initializer
    implementation: str = "xla"

    @nn.compact
    def __call__(self, x: jax.Array, images: Images | Packed) -> jax.Array:
        """Returns the shape of `x`; arguments as of `Block`."""
        d = x.shape[-1]
        packed = nn.Dense(
            3 * d, dtype=self.dtype, kernel_init=self.qkv_init, name="qkv"
        )(x)
        packed = checkpoint_name(packed, QKV)
        if isinstance(images, Packed):
            x = fused(self.num_heads, images.places, packed, images.attended)
        else:
            rows = packed.reshape(*images.size, 3 * d)
            x = attend(rows, self.num_heads, images.lengths, self.implementation)
            x = x.reshape(-1, d)
        x = checkpoint_name(x, MIXED)
        return nn.Dense(d, name="proj", dtype=self.dtype, kernel_init=self.kernel_init)(
            x
        )


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, by erf: `jax.nn.gelu` computes both branches of erfc.

    Args:
        x: Any float dtype; computed in float32.

    Returns:
        The same shape and dtype.
    """
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    Attributes:
        num_heads: Number of attention heads.
        mlp_ratio: Hidden width of the MLP over the width.
        dtype: Compute dtype; the norms run in float32.
        qkv_init: Initializer of the packed q, k, v kernel.
        kernel_init: Initializer of the other kernels.
        attention: See `attend`.
        norm_eps: See `layer_norm`.
    """

    num_heads: int
    mlp_ratio: float
    dtype: DTypeLike
    qkv_init: Initializer
    kernel_init: Initializer
    attention: str = "xla"
    norm_eps: float = NORM_EPS

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        images: Images | Packed,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """One block.

        Args:
            x: Tokens, `[t, d]`: compilers do more with their products than with those
                of `[b, n, d]`.
            images: Whose they are.
            keep: Factor on each token's two residual branches, `[t, 2]`, float32
                (stochastic depth: 0 or 1 / keep probability); None for 1.

        Returns:
            Tokens, the shape of `x`.
        """
        attention = Attention(
            self.num_heads,
            self.dtype,
            self.qkv_init,
            self.kernel_init,
            self.attention,
            name="attn",
        )
        mlp = Mlp(
            int(self.mlp_ratio * x.shape[-1]), self.dtype, self.kernel_init, name="mlp"
        )
        normed = layer_norm("norm1", self.norm_eps)(x)
        branch = attention(normed.astype(self.dtype), images)
        x = x + _scaled(branch, keep, 0)
        branch = mlp(layer_norm("norm2", self.norm_eps)(x).astype(self.dtype))
        return x + _scaled(branch, keep, 1)


def layer_norm(name: str, eps: float = NORM_EPS) -> nn.LayerNorm:
    """LayerNorm computed in float32.

    Args:
        name: Module name.
        eps: What is added to the variance.

    Returns:
        The module, to be called on `[..., d]`.
    """
    return nn.LayerNorm(epsilon=eps, dtype=jnp.float32, name=name)


@functools.cache  # blocks are told apart by them
def block_initializers(scheme: str) -> tuple[Initializer, Initializer]:
    """How a block's kernels start.

    Args:
        scheme: See `ViT.init_scheme`.

    Returns:
        Initializers of the packed q, k, v kernel and of the others.

    Reference:
        MoCo v3 (arXiv 2104.02057) and DINO (arXiv 2104.14294), released code.
    """
    if scheme == "dino":
        return nn.initializers.normal(0.02), nn.initializers.normal(0.02)
    return _xavier_uniform_qkv, nn.initializers.xavier_uniform()


def patch_initializers(
    scheme: str, patch_size: int, width: int
) -> tuple[Initializer, Initializer]:
    """How the patch embedding's kernel `[patch_size ** 2 * 3, d]` and bias start.

    Args:
        scheme: See `ViT.init_scheme`.
        patch_size: Pixels a side of a patch.
        width: Token width d.

    Returns:
        MoCo v3's uniform kernel (its embedding is frozen) and no bias; in other schemes
        PyTorch's default for a convolution, both uniform within 1 / sqrt(fan_in).

    Reference:
        MoCo v3 (arXiv 2104.02057), released code.
    """
    fan_in = 3 * patch_size**2
    if scheme != "moco_v3":
        return uniform_kernel, uniform_bias(fan_in)
    limit = math.sqrt(6 / (fan_in + width))

    def kernel_init(rng, shape, dtype=jnp.float32):
        return jax.random.uniform(rng, shape, dtype, -limit, limit)

    return kernel_init, nn.initializers.zeros


def _xavier_uniform_qkv(rng: jax.Array, shape: tuple[int, ...], dtype: DTypeLike):
    """Xavier-uniform kernel `[d, 3 * d]`, q, k and v each as a matrix of its own."""
    limit = math.sqrt(6 / (shape[0] + shape[1] // 3))
    return jax.random.uniform(rng, shape, dtype, -limit, limit)


def _scaled(branch: jax.Array, keep: jax.Array | None, index: int) -> jax.Array:
    if keep is None:
        return branch
    return branch * keep[..., index, None].astype(branch.dtype)
