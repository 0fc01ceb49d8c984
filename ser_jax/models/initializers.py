"""Initial values of the ViT's kernels."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def xavier_uniform_qkv(rng: jax.Array, shape: tuple[int, ...], dtype: DTypeLike):
    """Xavier-uniform kernel `[d, 3 * d]` with q, k and v each as a matrix of its own.

    Args:
        rng: Key.
        shape: `(d, 3 * d)`.
        dtype: Dtype of the result.

    Returns:
        Kernel, `[d, 3 * d]`.

    Reference:
        MoCo v3 (arXiv 2104.02057), released initialisation.
    """
    limit = math.sqrt(6 / (shape[0] + shape[1] // 3))
    return jax.random.uniform(rng, shape, dtype, -limit, limit)


def patch_uniform(patch_size: int, width: int) -> nn.initializers.Initializer:
    """MoCo v3's uniform initialisation of the (frozen) patch embedding.

    Args:
        patch_size: Pixels a side of a patch.
        width: Token width d.

    Returns:
        Initializer of the kernel `[patch_size ** 2 * 3, d]`.

    Reference:
        MoCo v3 (arXiv 2104.02057), released initialisation.
    """
    limit = math.sqrt(6 / (3 * patch_size**2 + width))
    return lambda rng, shape, dtype=jnp.float32: jax.random.uniform(
        rng, shape, dtype, -limit, limit
    )
