"""Gradient clipping, one parameter at a time."""

import jax.numpy as jnp
import optax

from ser_jax.train.optim.parameters import each_parameter


def clip_each_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales down every parameter's gradient whose norm exceeds `max_norm`.

    Args:
        max_norm: Largest L2 norm of one parameter's gradient, > 0.

    Returns:
        `g -> g * min(1, max_norm / (|g| + 1e-6))`, without state. The rest of the
        gradient does not matter, unlike in clipping by the global norm.

    Raises:
        ValueError: If `max_norm` is not positive.

    Reference:
        DINO (arXiv 2104.14294), released `clip_gradients`.
    """
    if max_norm <= 0:
        raise ValueError(f"the largest gradient norm must be positive, got {max_norm}.")

    def clip(grad, _):
        return grad * jnp.minimum(1.0, max_norm / (jnp.linalg.norm(grad) + 1e-6))

    return each_parameter(optax.stateless(clip))
