"""Numbers that are none: whether a state is worth keeping, and what is done if not."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.data.crops import Batch
from ser_jax.methods.metric import Metric, Metrics, Panel
from ser_jax.train.step import GRAD_NORM, TrainState, TrainStep

SKIPPED = Metric(
    "skipped_steps", Panel("updates left out", is_noisy=False), "not finite"
)
_WAYS_ON = {
    "skip": "without the updates that are not finite",
    "rollback": "from the last good checkpoint, another order of the data",
}
_POLICIES = ("stop", *_WAYS_ON)


@dataclasses.dataclass(frozen=True)
class Divergence:
    """What is done when loss, gradient or weights are not finite.

    Attributes:
        policy: "stop"; "skip": the update is left out and counted; "rollback": on from
            the last good checkpoint with another order of the data.
        max_skipped: So many updates left out in a row end the run.
        max_rollbacks: Of a run; what comes after them ends it.
    """

    policy: str = "stop"
    max_skipped: int = 100
    max_rollbacks: int = 3

    def __post_init__(self) -> None:
        """Checks the settings."""
        if self.policy not in _POLICIES:
            raise ValueError(
                f"divergence.policy must be one of {', '.join(_POLICIES)}, got "
                f"{self.policy!r}."
            )
        for name in ("max_skipped", "max_rollbacks"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"divergence.{name} must be at least 1, got {getattr(self, name)}."
                )

    def advice(self) -> str:
        """What is left to try where this policy has ended a run."""
        ways = [f"{p} ({what})" for p, what in _WAYS_ON.items() if p != self.policy]
        return (
            f"Go on with --config.divergence.policy={' or ='.join(ways)}, or start "
            "anew in another --workdir with a lower optimizer.base_lr or a longer "
            "optimizer.warmup_epochs."
        )


def skipping(train_step: TrainStep) -> TrainStep:
    """A step that changes nothing but the counts if any number in it is not finite.

    Args:
        train_step: The step.

    Returns:
        The same with the metric `skipped_steps`: 1 where it was left out, else 0.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        after, metrics = train_step(state, batch)
        numbers = [metrics["loss"], metrics[GRAD_NORM.name]]
        numbers += [leaf for _, leaf in _floats(after)]
        is_finite = _are_finite(numbers).all()

        def chosen(new: jax.Array, old: jax.Array) -> jax.Array:
            is_count = not jnp.issubdtype(new.dtype, jnp.floating)
            return new if is_count else jnp.where(is_finite, new, old)

        skipped = 1.0 - is_finite.astype(jnp.float32)
        return jax.tree.map(chosen, after, state), metrics | {SKIPPED.name: skipped}

    return step


def check_finite(state: Any, step: int) -> None:
    """Raises if a number in a state is infinite or not a number.

    A step's loss and gradient are of the weights before it: they cannot tell.

    Args:
        state: Arrays.
        step: The step they are of, for the message.

    Raises:
        FloatingPointError: Naming some of the arrays.
    """
    if bad := not_finite(state):
        raise FloatingPointError(f"training has diverged: after step {step} {bad}.")


def not_finite(tree: Any) -> str | None:
    """Which arrays hold a number that is infinite or none; None if none of them does.

    Args:
        tree: Arrays.

    Returns:
        "2 of 40 arrays are not finite, A, B among them".
    """
    named = _floats(tree)
    finite = np.asarray(_are_finite([leaf for _, leaf in named]))
    if finite.all():
        return None
    bad = [jax.tree_util.keystr(named[i][0]) for i in np.flatnonzero(~finite)]
    return (
        f"{len(bad)} of {len(named)} arrays are not finite, {', '.join(bad[:3])} "
        "among them"
    )


def _floats(tree: Any) -> list[tuple[Any, jax.Array]]:
    return [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]


@jax.jit
def _are_finite(arrays: list[jax.Array]) -> jax.Array:
    return jnp.array([jnp.isfinite(x).all() for x in arrays], bool)
