"""Being asked to stop."""

import signal
from typing import Any, Self

import jax
from jax.experimental import multihost_utils


class StopSignal:
    """Whether SIGTERM came; with several processes, agreed on by all of them.

    Listens inside its `with` block.
    """

    def __enter__(self) -> Self:
        """Starts listening."""
        self._received = False
        self._previous: Any = None
        if jax.process_count() == 1:  # else JAX catches it and picks a step for all
            self._previous = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signal back to whoever had it."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _receive(self, *_: Any) -> None:
        self._received = True

    def __call__(self, step: int) -> bool:
        """Whether to save this step and stop.

        Args:
            step: The step just dispatched; every process asks for every step.

        Returns:
            True from the moment on that all processes can stop at the same step.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received
