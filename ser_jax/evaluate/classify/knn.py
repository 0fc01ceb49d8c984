"""Weighted k-nearest-neighbour classification of frozen features."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.features.readings import GridOptions
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_labels
from ser_jax.models.normalize import l2_normalize

_NEIGHBORS = (10, 20, 100, 200)
_CHUNK_SIZE = 512  # queries at a time, or fewer:
_MOST_SIMILARITIES = 2**27  # half a GiB of them


def knn_predict(
    queries: np.ndarray,
    bank: np.ndarray,
    labels: np.ndarray,
    *,
    neighbors: Sequence[int],
    temperature: float = 0.07,
) -> dict[int, np.ndarray]:
    """Class of each query by a vote of its nearest neighbours.

    Args:
        queries: Features to classify, `[q, d]`, float.
        bank: Features with known classes, `[m, d]`, float; all on the device at once.
        labels: Their classes, `[m]`, int >= 0.
        neighbors: Numbers of neighbours that vote, each at most m; all from one search.
        temperature: A neighbour's vote weighs exp(cosine / temperature).

    Returns:
        Number of neighbours -> classes, `[q]`, int.

    Raises:
        ValueError: If the bank has fewer features than neighbours are to vote.

    Reference:
        Wu et al. (arXiv 1805.01978), Sec. 3.4; DINO (arXiv 2104.14294), `eval_knn.py`.
    """
    for k in neighbors:
        if not 1 <= k <= len(bank):
            raise ValueError(
                f"neighbors must be in 1..{len(bank)} (size of the feature bank), got "
                f"{k}; lower it or use more training images."
            )
    chunk_size = max(1, min(_CHUNK_SIZE, len(queries), _MOST_SIMILARITIES // len(bank)))
    padded = np.pad(queries, [(0, -len(queries) % chunk_size), (0, 0)])
    bank_unit, classes = l2_normalize(jnp.asarray(bank)), jnp.asarray(labels)
    predict = functools.partial(
        _predict, neighbors=tuple(neighbors), num_classes=int(labels.max()) + 1
    )
    chunks = [
        predict(padded[start : start + chunk_size], bank_unit, classes, temperature)
        for start in range(0, len(padded), chunk_size)
    ]
    votes = np.concatenate(jax.device_get(chunks), axis=1)[:, : len(queries)]
    return dict(zip(neighbors, votes, strict=True))


@functools.partial(jax.jit, static_argnames=("neighbors", "num_classes"))
def _predict(queries, bank, labels, temperature, *, neighbors, num_classes):
    """Classes for each number of neighbours, `[len(neighbors), q]`."""
    # fp32: neighbours differ by little
    similarity = jnp.matmul(l2_normalize(queries), bank.T, precision="highest")
    top, index = jax.lax.top_k(similarity, max(neighbors))  # [q, k]
    votes = jax.nn.one_hot(labels[index], num_classes)  # [q, k, classes]
    votes = votes * jnp.exp(top / temperature)[..., None]
    return jnp.stack([jnp.argmax(votes[:, :k].sum(axis=1), axis=-1) for k in neighbors])


def _measure(subject: Subject, options: GridOptions) -> dict[str, Any]:
    """Top-1 for every k that the train split allows, "grid<layer>_" before a grid's.

    Of a split smaller than the least k all images vote.
    """
    results = {}
    for prefix, name, reading in options.readings():
        train, held_out = (subject.labelled(x, reading) for x in ("train", "eval"))
        num_train = len(train.labels)
        predicted = knn_predict(
            held_out.by_name[name],
            train.by_name[name],
            train.labels,
            neighbors=[k for k in _NEIGHBORS if k <= num_train] or [num_train],
        )
        for k, classes in predicted.items():
            top1 = float(np.mean(classes == held_out.labels))
            results[f"{prefix}top1_k{k}"] = top1
    return results


TASK = Task(
    name="knn",
    section="Accuracy",
    caption="k-NN on the class token, by number of neighbours.",
    measure=_measure,
    obstacle=no_labels,
    options=GridOptions,
    better={"*top1_k*": "higher"},
    headline=("k-NN top-1, k = 20", "top1_k20"),
)
