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


def nt_xent(
    z_a: jax.Array, z_b: jax.Array, *, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """Contrastive loss of every embedding of both views against all the others.

    An anchor's positive is the other view of its image; its negatives are both views of
    all other images. Gradient flows through all of them.

    Args:
        z_a: Embeddings of one view, `[b, d]`, any float dtype, b >= 2; normalised
            inside, in float32.
        z_b: Embeddings of the other view of the same images, `[b, d]`.
        temperature: Softmax temperature, > 0.

    Returns:
        Cross-entropy per anchor, `[2, b]`, float32, first the anchors of `z_a`; and
        whether the positive is the closest, `[2, b]`, float32 in {0, 1}. SimCLR's
        constant is `loss.mean(axis=1).sum()`; where the mean over all 2b anchors is
        meant, `loss.mean()`.

    Raises:
        ValueError: If the shapes are not both `[b, d]` with b >= 2.

    Reference:
        SimCLR (arXiv 2002.05709), Eq. 1.
    """
    if z_a.ndim != 2 or z_a.shape != z_b.shape or z_a.shape[0] < 2:
        raise ValueError(
            "z_a and z_b must both be [b, d] with at least 2 images, the others being "
            f"the negatives; got {z_a.shape} and {z_b.shape}."
        )
    b = z_a.shape[0]
    anchors = l2_normalize(jnp.concatenate([z_a, z_b]))  # [2b, d]
    logits = anchors @ anchors.T / temperature  # [2b, 2b]
    logits = jnp.where(jnp.eye(2 * b, dtype=bool), -1e9, logits)  # not itself
    labels = (jnp.arange(2 * b) + b) % (2 * b)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = (jnp.argmax(logits, axis=1) == labels).astype(jnp.float32)
    return loss.reshape(2, b), correct.reshape(2, b)
