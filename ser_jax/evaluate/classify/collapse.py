"""Whether embeddings have collapsed: how many directions they use."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_images
from ser_jax.methods.objectives.base import mean_std


def rankme(features: np.ndarray, *, epsilon: float = 1e-7) -> float:
    """Smooth rank: exp of the entropy of the normalised singular values.

    Singular values, as in the paper, not eigenvalues of the covariance, their squares,
    which give a smaller number.

    Args:
        features: Embeddings, `[n, d]`, float; not centred. The paper takes 25 600.
        epsilon: Added to each normalised singular value; the paper's, for float32.

    Returns:
        Between 1 and min(n, d); NaN if all features are zero.

    Reference:
        RankMe (arXiv 2210.02885), Sec. 3.1, Eq. 2 and 3.
    """
    singular = np.linalg.svd(np.asarray(features, np.float64), compute_uv=False)
    total = singular.sum()
    if total == 0:
        return float("nan")
    share = singular / total + epsilon
    return float(np.exp(-np.sum(share * np.log(share))))


def effective_dimension(features: np.ndarray) -> float:
    """Participation ratio of the unit embeddings' covariance.

    (sum of eigenvalues)^2 / sum of their squares: k for k directions of equal variance.

    Args:
        features: Embeddings, `[n, d]`, float; scaled to unit length inside.

    Returns:
        Between 1 and min(n - 1, d); NaN if the embeddings all point one way.
    """
    unit = _unit(features)
    centred = unit - unit.mean(axis=0)
    covariance = centred.T @ centred / len(unit)  # [d, d]
    trace = np.trace(covariance)
    if trace <= np.finfo(np.float64).eps:  # rounding of equal unit vectors
        return float("nan")
    return float(trace**2 / np.sum(covariance**2))


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows of unit length, float64; rows of zeros stay."""
    features = np.asarray(features, np.float64)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, 1e-12)


def _measure(subject: Subject, options: Any) -> dict[str, Any]:
    """Of the class tokens of the evaluation split, or where there is none, of train."""
    del options
    split = "train" if subject.data.images is subject.data.train else "eval"
    features = subject.features(split).by_name["cls1"]
    return {
        "rankme": rankme(features),
        "effective_dimension": effective_dimension(features),
        "cls_std": float(mean_std(jnp.asarray(features))),
        "healthy_std": features.shape[1] ** -0.5,
    }


TASK = Task(
    name="health",
    section="Collapse",
    caption="Class tokens of the evaluation split: cls_std near 0 is collapse, "
    "healthy_std is that of evenly spread directions.",
    measure=_measure,
    obstacle=no_images,
    better={"rankme": "higher", "effective_dimension": "higher"},
    headline=("RankMe", "rankme"),
)
