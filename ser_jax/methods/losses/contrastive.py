"""Contrastive losses between image embeddings."""

import jax
import jax.numpy as jnp
import optax

from ser_jax.models.normalize import l2_normalize


def info_nce(
    queries: jax.Array, keys: jax.Array, *, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """MoCo v3's contrastive loss of each query against the keys of the whole batch.

    Args:
        queries: `[b, d]`, any float dtype; normalised inside, in float32.
        keys: `[b, d]`; row i is the positive of query i, the others are negatives.
            Constants: their gradient is stopped here.
        temperature: Softmax temperature, > 0.

    Returns:
        Loss per query, `[b]`, float32: 2 * temperature * cross-entropy; and whether the
        positive is the closest key, `[b]`, float32 in {0, 1}.

    Raises:
        ValueError: If the shapes are not both `[b, d]`.

    Reference:
        MoCo v3 (arXiv 2104.02057), Algorithm 1.
    """
    if queries.ndim != 2 or queries.shape != keys.shape:
        raise ValueError(
            f"queries and keys must both be [b, d]; got {queries.shape}, {keys.shape}."
        )
    # The keys come from a target network that takes no gradient; said again here.
    keys = jax.lax.stop_gradient(l2_normalize(keys))
    logits = l2_normalize(queries) @ keys.T / temperature  # [b, b]
    labels = jnp.arange(queries.shape[0])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = (jnp.argmax(logits, axis=1) == labels).astype(jnp.float32)
    return 2 * temperature * loss, correct


def symmetric_info_nce(
    first: jax.Array, second: jax.Array, *, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """`info_nce` both ways: each of a pair against the other, held constant.

    Args:
        first: `[b, d]`, any float dtype.
        second: `[b, d]`, any float dtype; row i belongs to row i of `first`.
        temperature: Softmax temperature, > 0.

    Returns:
        Sum of the two losses per row, `[b]`, float32, and the mean over both ways of
        whether the counterpart is the closest, `[b]`, float32.

    Raises:
        ValueError: If the shapes are not both `[b, d]`.
    """
    there, there_correct = info_nce(first, second, temperature=temperature)
    back, back_correct = info_nce(second, first, temperature=temperature)
    return there + back, (there_correct + back_correct) / 2
