"""Being asked to stop: by a person, a scheduler, a terminal or machine that goes."""

import contextlib
import os
import signal
import threading
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

from ser_jax.train.notices import listening

_RUN_ME_AGAIN = 75  # EX_TEMPFAIL, what schedulers requeue a job at
_INTERRUPTED = 130  # what a shell gives a program that Ctrl-C ended
STOPPED = (_RUN_ME_AGAIN, _INTERRUPTED)
SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
]


def exit_status(stopped_by: str) -> int:
    """What a program that was asked to stop ends with, its state saved.

    Args:
        stopped_by: Name of the signal or notice.

    Returns:
        130 after SIGINT; else 75, "run me again".
    """
    return _INTERRUPTED if stopped_by == "SIGINT" else _RUN_ME_AGAIN


class Stopped(Exception):
    """A signal or notice ended work whose state is saved.

    Attributes:
        name: Of the signal or notice.
    """

    def __init__(self, name: str, step: int):
        """Says so.

        Args:
            name: Of the signal or notice.
            step: The last one that is saved.
        """
        super().__init__(f"{name}: saved step {step} and stopped.")
        self.name = name


class StopSignal:
    """Whether SIGINT, SIGTERM, SIGHUP, SIGUSR1 or a notice came; all agree on a step.

    Listens inside its `with` block: for signals in the main thread (elsewhere Python
    lets nobody listen), not to what is ignored, as `nohup` has it; for notices that the
    machine goes (`notices.py`) in any. A second signal ends the program at once; one
    that follows a notice, as a shutdown's does, is the first.

    Attributes:
        received: Whether this process has one.
        name: Of what came first; "SIGTERM" where only another process knows.
    """

    name = "SIGTERM"

    def __enter__(self) -> Self:
        """Starts listening."""
        self.received = self._has_signal = False
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # With several processes, JAX catches it and picks a step for all.
                for_all = number == signal.SIGTERM and jax.process_count() > 1
                if not for_all and signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._receive)
        self._notices = contextlib.ExitStack()
        self._notices.enter_context(listening(self._note))
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signals back to whoever had them."""
        self._notices.close()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: Any) -> None:
        if self._has_signal:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._has_signal = True
        self._note(signal.Signals(number).name)

    def _note(self, name: str) -> None:
        if not self.received:
            self.name, self.received = name, True
            self.ask_all()

    def ask_all(self) -> None:
        """Asks the other processes, if there are any, to agree on a step to stop at."""
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # which all processes hear of

    def __call__(self, step: int) -> bool:
        """Whether to save this step and stop.

        Args:
            step: The step just dispatched; every process asks for every step.

        Returns:
            True from the moment on that all processes can stop at the same step.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.received
