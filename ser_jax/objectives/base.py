"""What an objective is: the invariance half of the loss."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax

from ser_jax.views import ViewSpec

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class EmaTarget:
    """A target network: an exponential moving average of the online one.

    Attributes:
        momentum: Momentum at step 0; rises to 1 along a cosine.
        advance: When it moves: "before_forward" (MoCo v3: the new target already gives
            this step's keys) or "after_update" (DINO, BYOL).
        heads: Which of the objective's heads it has beside the encoder.
        views: Names of the views it encodes.
    """

    momentum: float
    advance: str
    heads: tuple[str, ...]
    views: tuple[str, ...]


class Objective(Protocol):
    """An invariance objective; implementations are frozen dataclasses of settings.

    A new one is: a file with the dataclass, a line in `OBJECTIVES`, a config, a test.
    """

    @property
    def views(self) -> tuple[ViewSpec, ...]:
        """Views the student sees."""
        ...

    @property
    def target(self) -> EmaTarget | None:
        """Target network, or None."""
        ...

    def make_heads(self) -> nn.Module:
        """Linen module with methods `student` and, with a target network, `target`.

        Each maps `(cls [b, d], train)` of one view to whatever `loss` wants. A module
        named in `EmaTarget.heads` is one of its direct submodules.
        """
        ...

    def init_state(self) -> Any:
        """Arrays that the loss carries from step to step (DINO's center), or `{}`."""
        ...

    def loss(
        self,
        student: Mapping[str, Any],
        target: Mapping[str, Any],
        state: Any,
        step: jax.Array,
    ) -> tuple[jax.Array, Metrics, Any]:
        """Invariance loss of the whole global batch.

        Args:
            student: View name -> output of `heads.student`.
            target: View name -> output of `heads.target`; constants.
            state: The objective's own state.
            step: Optimizer step, `[]`, int32.

        Returns:
            Loss `[]`, float32; metrics (scalars); the new state.
        """
        ...
