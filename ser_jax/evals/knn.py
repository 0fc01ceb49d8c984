"""Weighted k-nearest-neighbour classification of frozen features."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.losses.normalize import l2_normalize


@functools.partial(jax.jit, static_argnames=("num_neighbors", "num_classes"))
def _predict(queries, bank, labels, temperature, *, num_neighbors, num_classes):
    similarity = queries @ bank.T  # [q, m]
    top, index = jax.lax.top_k(similarity, num_neighbors)
    votes = jax.nn.one_hot(labels[index], num_classes)  # [q, k, classes]
    votes = votes * jnp.exp(top / temperature)[..., None]
    return jnp.argmax(votes.sum(axis=1), axis=-1)


def knn_predict(
    queries: np.ndarray,
    bank: np.ndarray,
    labels: np.ndarray,
    *,
    num_neighbors: int = 20,
    temperature: float = 0.07,
    chunk_size: int = 512,
) -> np.ndarray:
    """Class of each query by a vote of its nearest neighbours.

    Args:
        queries: Features to classify, `[q, d]`, float.
        bank: Features with known classes, `[m, d]`, float.
        labels: Their classes, `[m]`, int >= 0.
        num_neighbors: Neighbours that vote, at most m.
        temperature: A neighbour's vote weighs exp(cosine / temperature).
        chunk_size: Queries compared with the bank at a time.

    Returns:
        Classes, `[q]`, int.

    Raises:
        ValueError: If the bank has fewer than `num_neighbors` features.

    Reference:
        Wu et al. (arXiv 1805.01978), Sec. 3.4; DINO (arXiv 2104.14294), `eval_knn.py`.
    """
    if not 1 <= num_neighbors <= len(bank):
        raise ValueError(
            f"num_neighbors must be in 1..{len(bank)} (size of the feature bank), got "
            f"{num_neighbors}; lower it or use more training images."
        )
    padded = np.pad(queries, [(0, -len(queries) % chunk_size), (0, 0)])
    queries_unit, bank_unit = (l2_normalize(jnp.asarray(x)) for x in (padded, bank))
    classes = jnp.asarray(labels)
    chunks = [
        _predict(
            queries_unit[start : start + chunk_size],
            bank_unit,
            classes,
            temperature,
            num_neighbors=num_neighbors,
            num_classes=int(labels.max()) + 1,
        )
        for start in range(0, len(padded), chunk_size)
    ]
    return np.concatenate(chunks)[: len(queries)]
