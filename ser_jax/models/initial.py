"""How linear layers start where their authors kept PyTorch's default."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

uniform_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform within 1 / sqrt(fan_in): a standard deviation of 1 / sqrt(3 fan_in)."""


def uniform_bias(fan_in: int) -> nn.initializers.Initializer:
    """Initializer of a bias, uniform within 1 / sqrt(fan_in) like its kernel.

    Args:
        fan_in: Width of the layer's input.

    Returns:
        The initializer.
    """
    limit = 1 / math.sqrt(fan_in)

    def init(rng: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32):
        return jax.random.uniform(rng, shape, dtype, -limit, limit)

    return init


def uniform_dense(
    fan_in: int, features: int, *, use_bias: bool = True, name: str
) -> nn.Dense:
    """A linear layer whose kernel and bias start uniform within 1 / sqrt(fan_in).

    Flax's own default has a kernel 1.73 times as wide and a bias of 0.

    Args:
        fan_in: Width of the input.
        features: Width of the output.
        use_bias: Whether it has a bias.
        name: Module name.

    Returns:
        The module, to be called on `[..., fan_in]`.

    Reference:
        PyTorch's `nn.Linear` and `nn.Conv2d`: Kaiming-uniform with a = sqrt(5).
    """
    return nn.Dense(
        features,
        use_bias=use_bias,
        kernel_init=uniform_kernel,
        bias_init=uniform_bias(fan_in),
        name=name,
    )
