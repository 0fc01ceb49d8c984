"""Unit vectors."""

import jax
import jax.numpy as jnp


def l2_normalize(x: jax.Array, eps: float = 1e-12) -> jax.Array:
    """Vectors of unit length along the last axis.

    Args:
        x: `[..., d]`, any float dtype.
        eps: Smallest norm divided by; the gradient at zero is finite.

    Returns:
        `[..., d]`, float32.
    """
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(
        jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), eps**2)
    )
