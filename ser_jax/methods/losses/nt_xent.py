"""NT-Xent: SimCLR's contrastive loss between two views of a batch."""

import jax
import jax.numpy as jnp
import optax

from ser_jax.models.normalize import l2_normalize


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
