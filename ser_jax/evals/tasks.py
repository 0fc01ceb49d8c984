"""What can be asked of a trained encoder: tasks by name, each gives plain data."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ser_jax.evals.equivariance_depth import equivariance_by_depth
from ser_jax.evals.knn import knn_predict
from ser_jax.evals.linear_probe import linear_probe
from ser_jax.evals.linear_protocols import LINEAR_PROTOCOLS
from ser_jax.evals.logreg import logistic_regression
from ser_jax.evals.representation import effective_dimension, rankme
from ser_jax.objectives.base import mean_std

_KNN_NEIGHBORS = (10, 20, 100, 200)


@dataclasses.dataclass(frozen=True)
class Split:
    """Cached features of a split.

    Attributes:
        features: "cls1", the class token, `[n, d]`, and "cls1_avg", the same beside the
            mean patch token, `[n, 2 * d]`; float32.
        labels: Classes, `[n]`, int.
    """

    features: Mapping[str, np.ndarray]
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What tasks work on; features and pictures are read when first asked for.

    Attributes:
        split: "train" or "eval" -> its features; cached.
        images: Pictures of the evaluation split, normalised, `[b, h, w, 3]`; cached.
        encoder: The encoder.
        variables: Its variables.
        seed: The run's seed.
    """

    split: Callable[[str], Split]
    images: Callable[[], np.ndarray]
    encoder: Any
    variables: Mapping[str, Any]
    seed: int

    @property
    def train(self) -> Split:
        """Features of the training split."""
        return self.split("train")

    @property
    def held_out(self) -> Split:
        """Features of the evaluation split."""
        return self.split("eval")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(max(s.labels.max() for s in (self.train, self.held_out))) + 1


def knn(run: Evaluated) -> dict[str, Any]:
    """Top-1 of DINO's weighted k-NN for every k that the train split allows."""
    train, held_out = run.train, run.held_out
    results = {}
    for k in (k for k in _KNN_NEIGHBORS if k <= len(train.labels)):
        predicted = knn_predict(
            held_out.features["cls1"],
            train.features["cls1"],
            train.labels,
            num_neighbors=k,
        )
        results[f"top1_k{k}"] = float(np.mean(predicted == held_out.labels))
    if not results:
        raise ValueError(
            f"k-NN needs at least {min(_KNN_NEIGHBORS)} training images, got "
            f"{len(train.labels)}."
        )
    return results


def linear(run: Evaluated) -> dict[str, Any]:
    """Top-1 and top-5 of the linear head that is best on held-out training images.

    MoCo v3's protocol on cached features, with five learning rates, batches of 256 and
    the class token with and without the mean patch token.
    """
    train, held_out = run.train, run.held_out
    protocol = dataclasses.replace(
        LINEAR_PROTOCOLS["moco_v3"],
        features=tuple(train.features),
        base_learning_rates=(0.1, 0.3, 1.0, 3.0, 10.0),
        batch_size=min(256, len(train.labels) // 2),
    )
    result = linear_probe(
        train.features,
        train.labels,
        held_out.features,
        held_out.labels,
        protocol=protocol,
        seed=run.seed,
        num_classes=run.num_classes,
    )
    return {"top1": result.top1, "top5": result.top5} | dataclasses.asdict(result.best)


def logreg(run: Evaluated) -> dict[str, Any]:
    """Top-1 and top-5 of logistic regression on the class token, L2 from a sweep."""
    train, held_out = run.train, run.held_out
    result = logistic_regression(
        train.features["cls1"],
        train.labels,
        held_out.features["cls1"],
        held_out.labels,
        seed=run.seed,
        num_classes=run.num_classes,
    )
    return {"top1": result.top1, "top5": result.top5} | dataclasses.asdict(result.best)


def health(run: Evaluated) -> dict[str, Any]:
    """Whether the class tokens of the evaluation split have collapsed."""
    features = run.held_out.features["cls1"]
    return {
        "rankme": rankme(features),
        "effective_dimension": effective_dimension(features),
        "cls_std": float(mean_std(jnp.asarray(features))),
        "healthy_std": features.shape[1] ** -0.5,
    }


def equivariance(run: Evaluated) -> dict[str, Any]:
    """Whether each layer's tokens move with the picture: `equivariance_by_depth`."""
    return equivariance_by_depth(
        run.encoder, run.variables, run.images(), seed=run.seed
    )


TASKS: dict[str, Callable[[Evaluated], dict[str, Any]]] = {
    "knn": knn,
    "linear": linear,
    "logreg": logreg,
    "health": health,
    "equivariance": equivariance,
}
