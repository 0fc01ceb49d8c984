"""Linear classification heads on features, one or a stack of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

_CHUNK_SIZE = 1024  # examples at a time: bounds the logits of a large stack


class Head(NamedTuple):
    """Weights of a linear classifier; a stack of them has one more leading axis.

    Attributes:
        kernel: `[d, classes]`, float32.
        bias: `[classes]`, float32.
    """

    kernel: jax.Array
    bias: jax.Array


def head_logits(head: Head, features: jax.Array) -> jax.Array:
    """Logits of one head.

    Args:
        head: Its weights.
        features: `[b, d]`, any float dtype.

    Returns:
        `[b, classes]`, float32.
    """
    return features.astype(jnp.float32) @ head.kernel + head.bias[None]


def head_loss(head: Head, features: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of one head.

    Args:
        head: Its weights.
        features: `[b, d]`, any float dtype.
        labels: Classes, `[b]`, int.

    Returns:
        Loss, `[]`, float32.
    """
    logits = head_logits(head, features)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def logit_accuracy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of logits.

    Args:
        logits: `[n, classes]`.
        labels: Classes, `[n]`, int.

    Returns:
        Two shares of examples in [0, 1]: label first, and among the first five. Ties
        count against the label, and so does NaN.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)  # [n, 1]
    rank = np.sum(~(logits < own), axis=1)  # [n], 1 is the best; NaN is not below
    right = np.isfinite(own[:, 0])
    top1, top5 = (float(np.mean(right & (rank <= k))) for k in (1, 5))
    return top1, top5


def stack_accuracy(
    heads: Head, features: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Top-1 and top-5 accuracy of every head of a stack.

    Args:
        heads: Stack of h heads: kernels `[h, d, classes]`, biases `[h, classes]`.
        features: `[n, d]`, any float dtype.
        labels: Classes, `[n]`, int.

    Returns:
        Two shares of examples in [0, 1], `[h]`, float: label first, and among the first
        five. Ties count against a head, and so does NaN: a diverged head scores 0.
    """
    starts = range(0, len(features), _CHUNK_SIZE)
    chunks = [slice(start, start + _CHUNK_SIZE) for start in starts]
    hits = [_hits(heads, features[chunk], labels[chunk]) for chunk in chunks]
    top1, top5 = np.sum(jax.device_get(hits), axis=0) / len(features)
    return top1, top5


@jax.jit
def _hits(heads: Head, features: jax.Array, labels: jax.Array) -> jax.Array:
    """How often each head has the label among its first one and five: `[2, h]`."""
    logits = jax.vmap(head_logits, in_axes=(0, None))(heads, features)  # [h, b, k]
    own = jnp.take_along_axis(logits, labels[None, :, None], axis=-1)  # [h, b, 1]
    # "Not below" rather than "above": NaN is neither, and must not put a label first.
    rank = jnp.sum(~(logits < own), axis=-1)  # [h, b], 1 is the best
    right = jnp.isfinite(own[..., 0])
    return jnp.stack([jnp.sum(right & (rank <= k), axis=-1) for k in (1, 5)])
