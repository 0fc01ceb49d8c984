"""When to save by the clock, at a step that all processes agree on."""

import time
from collections.abc import Callable

import numpy as np
from jax.experimental import multihost_utils


class SaveClock:
    """Whether so many minutes have passed since the last checkpoint.

    The first process's clock counts. To hear of it the others wait until the step under
    way is done, so they ask at a few steps alone: each answer says after how many steps
    to ask again, half of those that fit into what is left of the time, and at most as
    many as have been since the checkpoint, while their pace is hardly known.
    """

    def __init__(
        self,
        every_minutes: float,
        step: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Counts from now.

        Args:
            every_minutes: Minutes between checkpoints; 0: it never is time.
            step: Steps done so far.
            clock: Seconds from any origin.
        """
        self._every_s, self._clock = 60 * every_minutes, clock
        self.saved(step)

    def saved(self, step: int) -> None:
        """Counts from now on: a checkpoint was saved, for whatever reason.

        Args:
            step: Its step.
        """
        self._saved, self._saved_s = step, self._clock()
        self._ask_at = step + 1

    def is_due(self, step: int) -> bool:
        """Whether to save this step, the same on all processes.

        Args:
            step: The step just dispatched; every process asks for every step.

        Returns:
            True once the time has passed.
        """
        if not self._every_s or step < self._ask_at:
            return False
        done, passed_s = step - self._saved, self._clock() - self._saved_s
        left = done * (self._every_s / max(passed_s, 1e-9) - 1)  # steps
        wait = int(min(done, max(left / 2, 1))) if left > 0 else 0
        wait = int(multihost_utils.broadcast_one_to_all(np.int32(wait)))
        self._ask_at = step + wait
        return wait == 0
