"""L2-regularised logistic regression on frozen features."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree

from ser_jax.evaluate.classify.heads import Head, head_loss, stack_accuracy
from ser_jax.evaluate.classify.held_out import (
    check_labelled,
    check_same_widths,
    split_held_out,
)
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_labels

# 45 values from 1e-6 to 1e5.
L2_SWEEP = tuple(float(value) for value in np.logspace(-6, 5, 45))

_CHUNK_SIZE = 2**14  # examples whose logits are there at a time


@dataclasses.dataclass(frozen=True)
class FittedL2:
    """One fit of the sweep.

    Attributes:
        l2: Strength of the regulariser.
        held_out_accuracy: Top-1 on the held-out part of train, in [0, 1].
        converged: Whether the fit ended before `max_iterations`.
    """

    l2: float
    held_out_accuracy: float
    converged: bool


@dataclasses.dataclass(frozen=True)
class LogRegResult:
    """What the sweep found; `dataclasses.asdict` makes it plain data.

    Attributes:
        best: The fit with the highest held-out accuracy; of equals the strongest l2.
        top1: Accuracy of its l2, fitted to all of train, on the evaluated split.
        top5: Share of examples whose label is among the five highest logits.
        grid: Every fit, from the strongest l2 to the weakest.
    """

    best: FittedL2
    top1: float
    top5: float
    grid: tuple[FittedL2, ...]


def logistic_regression(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    eval_features: np.ndarray,
    eval_labels: np.ndarray,
    *,
    seed: int,
    num_classes: int,
    l2_values: Sequence[float] = L2_SWEEP,
    held_out_frac: float = 0.1,
    max_iterations: int = 1000,
) -> LogRegResult:
    """Accuracy of logistic regression with the L2 that is best on held-out examples.

    Args:
        train_features: `[n, d]`, any float dtype; all on the device at once.
        train_labels: Classes, `[n]`, int in [0, num_classes).
        eval_features: `[m, d]`.
        eval_labels: Classes, `[m]`, int in [0, num_classes).
        seed: Of the held-out split.
        num_classes: Number of classes.
        l2_values: Strengths to try, > 0; see `fit_logistic_regression`.
        held_out_frac: Share of train that chooses the strength, in (0, 1).
        max_iterations: At most this many L-BFGS iterations a fit.

    Returns:
        The chosen strength, its accuracies once refitted to all of train, the sweep.

    Raises:
        ValueError: If shapes, labels or strengths are wrong, or examples too few.

    Reference:
        Kornblith et al. (arXiv 1805.08974); AugSelf (arXiv 2111.09613), transfer by
        linear evaluation: 45 strengths, L-BFGS, refit to train and validation. Their
        strengths may be on another scale (a sum over examples); ours is the mean's.
    """
    for split, features, labels in (
        ("train", train_features, train_labels),
        ("eval", eval_features, eval_labels),
    ):
        named = {"features": features}
        check_labelled(named, labels, num_classes=num_classes, split=split)
    check_same_widths({"features": train_features}, {"features": eval_features})
    if not l2_values or min(l2_values) <= 0:
        raise ValueError(
            f"l2_values must be one or more numbers > 0, got {l2_values}; without a "
            "regulariser separable classes have no solution."
        )
    fitted, held_out = split_held_out(
        len(train_labels),
        held_out_frac=held_out_frac,
        num_classes=num_classes,
        seed=seed,
    )
    zeros = Head(
        jnp.zeros((train_features.shape[1], num_classes)), jnp.zeros(num_classes)
    )
    # From strong to weak, each from the last solution: the path changes slowly.
    grid, heads = [], [zeros]
    part = jnp.asarray(train_features[fitted]), jnp.asarray(train_labels[fitted])
    for l2 in sorted(l2_values, reverse=True):
        head, converged = fit_logistic_regression(
            *part, start=heads[-1], l2=l2, max_iterations=max_iterations
        )
        top1, _ = _accuracy(head, train_features[held_out], train_labels[held_out])
        grid.append(FittedL2(l2, top1, converged))
        heads.append(head)
    winner = int(np.argmax([fit.held_out_accuracy for fit in grid]))
    head, _ = fit_logistic_regression(
        jnp.asarray(train_features),
        jnp.asarray(train_labels),
        start=heads[winner + 1],
        l2=grid[winner].l2,
        max_iterations=max_iterations,
    )
    top1, top5 = _accuracy(head, eval_features, eval_labels)
    return LogRegResult(grid[winner], top1, top5, tuple(grid))


def fit_logistic_regression(
    features: jax.Array,
    labels: jax.Array,
    *,
    start: Head,
    l2: float,
    max_iterations: int,
) -> tuple[Head, bool]:
    """The head that minimises mean cross-entropy + l2 / 2 * sum of kernel^2.

    The bias goes free. scikit-learn's `C` is 1 / (l2 * n).

    Args:
        features: `[n, d]`, any float dtype.
        labels: Classes, `[n]`, int.
        start: Where to start; the problem is convex, so only time depends on it.
        l2: Strength of the regulariser, > 0.
        max_iterations: At most this many L-BFGS iterations.

    Returns:
        The head, and whether the fit ended before `max_iterations`.
    """
    flat, unravel = ravel_pytree(start)

    def value_and_gradient(x):
        value, gradient = _objective(unravel(jnp.float32(x)), features, labels, l2)
        flat_gradient, _ = ravel_pytree(gradient)
        return float(value), np.float64(flat_gradient)

    found = scipy.optimize.minimize(
        value_and_gradient,
        np.float64(flat),
        jac=True,
        method="L-BFGS-B",
        # Smaller steps than these are lost in float32.
        options={"maxiter": max_iterations, "gtol": 1e-6, "ftol": 1e-7},
    )
    return unravel(jnp.float32(found.x)), found.nit < max_iterations


@jax.jit
@jax.value_and_grad
def _objective(head, features, labels, l2):
    n = len(labels)
    size = min(n, _CHUNK_SIZE)
    whole = n // size * size

    @jax.checkpoint  # logits of one chunk at a time, backward too
    def add(total, chunk):
        return total + len(chunk[1]) * head_loss(head, *chunk), None

    chunks = features[:whole].reshape(-1, size, features.shape[1])
    total, _ = jax.lax.scan(add, 0.0, (chunks, labels[:whole].reshape(-1, size)))
    if n > whole:
        total, _ = add(total, (features[whole:], labels[whole:]))
    return total / n + 0.5 * l2 * jnp.sum(head.kernel**2)


def _accuracy(
    head: Head, features: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    stack = jax.tree.map(lambda x: x[None], head)
    top1, top5 = stack_accuracy(stack, features, labels)
    return float(top1[0]), float(top5[0])


def _measure(subject: Subject, options: Any) -> dict[str, Any]:
    """Top-1 and top-5 on the class token, and which fit of the sweep it is."""
    del options
    train, held_out = subject.labelled("train"), subject.labelled("eval")
    result = logistic_regression(
        train.by_name["cls1"],
        train.labels,
        held_out.by_name["cls1"],
        held_out.labels,
        seed=subject.seed,
        num_classes=subject.data.num_classes,
    )
    return {"top1": result.top1, "top5": result.top5} | dataclasses.asdict(result.best)


TASK = Task(
    name="logreg",
    section="Accuracy",
    caption="Logistic regression on the class token.",
    measure=_measure,
    obstacle=no_labels,
    better={"top1": "higher", "top5": "higher"},
    headline=("logistic regression top-1", "top1"),
)
