"""Linear evaluation: a grid of heads on frozen features, trained in one step."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.classify.heads import Head, head_loss, stack_accuracy
from ser_jax.evaluate.classify.held_out import (
    check_labelled,
    check_same_widths,
    split_held_out,
)
from ser_jax.evaluate.classify.protocols import LinearProtocol
from ser_jax.train.optim.schedules import warmup_cosine

_MOMENTUM = 0.9
_INIT_STD = 0.01


@dataclasses.dataclass(frozen=True)
class ProbedHead:
    """One head of the grid.

    Attributes:
        feature: Name of the feature it reads.
        base_learning_rate: For a batch of 256.
        weight_decay: L2 coefficient.
        held_out_accuracy: Top-1 on the held-out part of train, in [0, 1]; 0 if it
            diverged.
    """

    feature: str
    base_learning_rate: float
    weight_decay: float
    held_out_accuracy: float


@dataclasses.dataclass(frozen=True)
class LinearProbeResult:
    """What a linear evaluation found.

    Attributes:
        best: The head with the highest held-out accuracy, the first of equals.
        top1: Its accuracy on the evaluated split, in [0, 1].
        top5: Share of examples whose label is among its five highest logits.
        grid: Every head.
        head: The best one's weights.
    """

    best: ProbedHead
    top1: float
    top5: float
    grid: tuple[ProbedHead, ...]
    head: Head


def linear_probe(
    train_features: Mapping[str, np.ndarray],
    train_labels: np.ndarray,
    eval_features: Mapping[str, np.ndarray],
    eval_labels: np.ndarray,
    *,
    protocol: LinearProtocol,
    seed: int,
    num_classes: int,
) -> LinearProbeResult:
    """Accuracy of the best linear head, chosen without looking at the evaluated split.

    Args:
        train_features: Features by name, each `[n, d_name]`, any float dtype; at least
            those that the protocol names. They may be memory-mapped.
        train_labels: Classes, `[n]`, int in [0, num_classes).
        eval_features: The same features of the evaluated split, `[m, d_name]`.
        eval_labels: Classes, `[m]`, int in [0, num_classes).
        protocol: How heads are trained and which.
        seed: Of the held-out split, the initial weights and the order of examples.
        num_classes: Number of classes.

    Returns:
        The best head, its accuracies and the whole grid.

    Raises:
        ValueError: If shapes, names or labels are wrong, or examples too few.
        FloatingPointError: If every head diverged.

    Reference:
        MoCo v3 (arXiv 2104.02057), DINO (arXiv 2104.14294), SER (arXiv 2603.06693),
        released linear evaluations. They crop afresh at every epoch; features are
        cached here, so call the number that of cached features. They step the cosine
        per epoch, here per step. SER picks the epoch too, here the last counts. MoCo v3
        and DINO choose on the evaluated split.
    """
    train = _choose(train_features, protocol)
    evaluated = _choose(eval_features, protocol)
    check_labelled(train, train_labels, num_classes=num_classes, split="train")
    check_labelled(evaluated, eval_labels, num_classes=num_classes, split="eval")
    check_same_widths(train, evaluated)
    fitted, held_out = split_held_out(
        len(train_labels),
        held_out_frac=protocol.held_out_frac,
        num_classes=num_classes,
        seed=seed,
    )
    stacks = train_heads(
        train,
        train_labels,
        fitted,
        protocol=protocol,
        seed=seed,
        num_classes=num_classes,
    )

    grid, heads = [], []
    for name, stack in stacks.items():
        accuracy, _ = stack_accuracy(
            stack, train[name][held_out], train_labels[held_out]
        )
        for index, settings in enumerate(protocol.settings()):
            grid.append(ProbedHead(name, *settings, float(accuracy[index])))
            heads.append(jax.tree.map(lambda x, i=index: x[i : i + 1], stack))
    winner = int(np.argmax([head.held_out_accuracy for head in grid]))
    best = grid[winner]
    if not all(np.isfinite(leaf).all() for leaf in heads[winner]):
        raise FloatingPointError(
            "every linear head diverged; check that the features are finite, or lower "
            f"base_learning_rates (now {protocol.base_learning_rates})."
        )
    top1, top5 = stack_accuracy(heads[winner], evaluated[best.feature], eval_labels)
    head = jax.tree.map(lambda x: x[0], heads[winner])
    return LinearProbeResult(best, float(top1[0]), float(top5[0]), tuple(grid), head)


def train_heads(
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    protocol: LinearProtocol,
    seed: int,
    num_classes: int,
) -> dict[str, Head]:
    """A stack of trained heads for every feature.

    Heads of one feature start from the same weights. They share the batches and nothing
    else: a head does not depend on which others are trained beside it.

    Args:
        features: Features by name, each `[n, d_name]`, any float dtype.
        labels: Classes, `[n]`, int.
        rows: Examples to train on, `[r]`, int; a last partial batch is left out.
        protocol: How heads are trained and which.
        seed: Of the initial weights and the order of examples.
        num_classes: Number of classes.

    Returns:
        By feature, h heads in the order of `protocol.settings()`: kernels
        `[h, d_name, num_classes]`, biases `[h, num_classes]`.

    Raises:
        ValueError: If there are fewer examples than a batch has.
    """
    batch_size = protocol.batch_size
    if len(rows) < batch_size:
        raise ValueError(
            f"{len(rows)} training examples do not fill a batch of {batch_size}; use "
            "dataclasses.replace(protocol, batch_size=...) with a smaller one."
        )
    settings = protocol.settings()
    rates, decays = np.array(settings, np.float32).T  # [h] each
    rates = rates * np.float32(protocol.learning_rate(1.0))
    heads = {
        name: _init_stack(seed, len(settings), array.shape[1], num_classes)
        for name, array in features.items()
    }
    velocity = jax.tree.map(jnp.zeros_like, heads)
    steps_per_epoch = len(rows) // batch_size
    total_steps = protocol.num_epochs * steps_per_epoch
    cosine = warmup_cosine(1.0, warmup_steps=0, total_steps=total_steps)
    factors = np.asarray(cosine(np.arange(total_steps)))
    order = np.random.default_rng(seed)
    for step in range(total_steps):
        place = step % steps_per_epoch * batch_size
        if place == 0:
            shuffled = order.permutation(rows)
        batch = shuffled[place : place + batch_size]
        heads, velocity = _train_step(
            heads,
            velocity,
            {name: array[batch] for name, array in features.items()},
            labels[batch],
            rates * factors[step],
            decays,
        )
    return heads


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _train_step(heads, velocity, features, labels, learning_rates, weight_decays):
    """One step of SGD with momentum of every head on every feature."""

    def update(head, velocity, features, learning_rate, weight_decay):
        gradient = jax.grad(head_loss)(head, features, labels)
        velocity = jax.tree.map(
            lambda v, g, w: _MOMENTUM * v + g + weight_decay * w,
            velocity,
            gradient,
            head,
        )
        head = jax.tree.map(lambda w, v: w - learning_rate * v, head, velocity)
        return head, velocity

    update_stack = jax.vmap(update, in_axes=(0, 0, None, 0, 0))
    updated = {
        name: update_stack(
            heads[name], velocity[name], features[name], learning_rates, weight_decays
        )
        for name in heads
    }
    return tuple({name: pair[i] for name, pair in updated.items()} for i in range(2))


def _init_stack(seed: int, num_heads: int, width: int, num_classes: int) -> Head:
    kernel = _INIT_STD * jax.random.normal(jax.random.key(seed), (width, num_classes))
    one = Head(kernel, jnp.zeros(num_classes))
    return jax.tree.map(lambda x: jnp.repeat(x[None], num_heads, axis=0), one)


def _choose(
    features: Mapping[str, np.ndarray], protocol: LinearProtocol
) -> dict[str, np.ndarray]:
    missing = [name for name in protocol.features if name not in features]
    if missing:
        raise ValueError(
            f"the protocol reads features {missing}, but only {sorted(features)} are "
            "given; extract them or set others: dataclasses.replace(protocol, "
            "features=(...,))."
        )
    return {name: features[name] for name in protocol.features}
