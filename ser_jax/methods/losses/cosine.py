"""Regression of unit vectors: BYOL's loss."""

import jax
import jax.numpy as jnp

from ser_jax.models.normalize import l2_normalize


def cosine_regression(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared distance between unit vectors, 2 - 2 cos.

    Args:
        predictions: `[b, d]`, any float dtype; normalised inside, in float32.
        targets: `[b, d]`, likewise. Constants: their gradient is stopped here.

    Returns:
        Loss per image, `[b]`, float32, in [0, 4].

    Raises:
        ValueError: If the shapes are not both `[b, d]`.

    Reference:
        BYOL (arXiv 2006.07733), Eq. 2.
    """
    if predictions.ndim != 2 or predictions.shape != targets.shape:
        raise ValueError(
            "predictions and targets must both be [b, d]; got "
            f"{predictions.shape} and {targets.shape}."
        )
    # The targets come from a network that takes no gradient; said again here.
    targets = jax.lax.stop_gradient(l2_normalize(targets))
    return jnp.sum(jnp.square(l2_normalize(predictions) - targets), axis=-1)
