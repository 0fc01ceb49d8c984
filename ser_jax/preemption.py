"""Being asked to stop."""

import signal
from typing import Any

import jax
from jax.experimental import multihost_utils


class StopSignal:
    """Whether SIGTERM came; with several processes, agreed on by all of them."""

    def __init__(self) -> None:
        """Starts listening."""
        self._received = False
        if jax.process_count() == 1:  # else JAX catches it and picks a step for all
            signal.signal(signal.SIGTERM, self._receive)

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
