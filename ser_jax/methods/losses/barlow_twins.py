"""Barlow Twins: decorrelate the dimensions of the embedding."""

import jax
import jax.numpy as jnp

from ser_jax.models.placement import by_rows, everywhere


def cross_correlation(z_a: jax.Array, z_b: jax.Array, eps: float = 1e-5) -> jax.Array:
    """Correlation over the batch of each dimension of one view with each of the other.

    Args:
        z_a: Embeddings of one view, `[b, d]`, any float dtype, b >= 2.
        z_b: Embeddings of the other view of the same images, `[b, d]`.
        eps: Added to the variances.

    Returns:
        `[d, d]`, float32, about -1 to 1; rows are dimensions of `z_a`.

    Raises:
        ValueError: If the shapes are not both `[b, d]` with b >= 2.

    Reference:
        Barlow Twins (arXiv 2103.03230), Eq. 2, with the released code's BatchNorm
        (biased variance, no scale and shift) before it.
    """
    if z_a.ndim != 2 or z_a.shape != z_b.shape or z_a.shape[0] < 2:
        raise ValueError(
            "z_a and z_b must both be [b, d] with at least 2 images to correlate over; "
            f"got {z_a.shape} and {z_b.shape}."
        )

    def standardize(z: jax.Array) -> jax.Array:
        z = z.astype(jnp.float32)  # fp32: batch statistics
        mean = z.mean(axis=0, keepdims=True)
        return (z - mean) * jax.lax.rsqrt(z.var(axis=0, keepdims=True) + eps)

    # Each device computes rows of the matrix, from all images: the matrix is much more
    # than the embeddings, and would else be summed over the devices.
    a, b = everywhere(standardize(z_a)), everywhere(standardize(z_b))
    # fp32: small off-diagonal entries are what the loss is about
    product = by_rows(jnp.einsum("bi,bj->ij", a, b, precision="highest"))
    return product / z_a.shape[0]


def redundancy_reduction(
    correlation: jax.Array, *, off_diagonal_weight: float
) -> jax.Array:
    """Squared distance of a cross-correlation matrix from the identity.

    Args:
        correlation: `[d, d]`, float32.
        off_diagonal_weight: Factor on the off-diagonal part, >= 0.

    Returns:
        sum_i (C_ii - 1)^2 + off_diagonal_weight * sum_{i != j} C_ij^2, `[]`, float32.

    Reference:
        Barlow Twins (arXiv 2103.03230), Eq. 1.
    """
    diagonal = jnp.eye(correlation.shape[0], dtype=bool)
    terms = jnp.where(
        diagonal, (correlation - 1) ** 2, off_diagonal_weight * correlation**2
    )
    return jnp.sum(terms)
