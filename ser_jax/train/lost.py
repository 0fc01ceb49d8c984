"""Seconds of a run that trained nothing, by what they went to."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import jax

from ser_jax.methods.metric import Metric, Panel

_PANEL = Panel("seconds lost", starts_at_zero=True, is_noisy=False)
START = Metric("lost_s_start", _PANEL, "starting")
COMPILE = Metric("lost_s_compile", _PANEL, "compiling")
WAIT = Metric("lost_s_wait", _PANEL, "waiting for data")
SAVE = Metric("lost_s_save", _PANEL, "saving")
PROBE = Metric("lost_s_probe", _PANEL, "probing")
LOST = (START, COMPILE, WAIT, SAVE, PROBE)


class Lost:
    """Adds up what is lost, on the first process, over all parts of a run.

    What a part lost after its last checkpoint is not known to the next.

    Attributes:
        seconds: Name of a metric of `LOST` -> seconds so far.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is lost yet.

        Args:
            clock: Seconds from any origin.
        """
        self.seconds = {metric.name: 0.0 for metric in LOST}
        self._clock = clock

    def add(self, seconds: Mapping[str, float]) -> None:
        """Adds what was lost elsewhere.

        Args:
            seconds: As the attribute.
        """
        for name, more in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + more

    @contextlib.contextmanager
    def to(self, what: Metric) -> Iterator[None]:
        """A block that trains nothing.

        Args:
            what: One of `LOST`.
        """
        started = self._clock()
        try:
            with jax.profiler.TraceAnnotation(what.label):  # seen in a trace
                yield
        finally:
            self.add({what.name: self._clock() - started})

    def __str__(self) -> str:
        """All of them in one line."""
        parts = (f"{m.label} {self.seconds[m.name]:.1f}" for m in LOST)
        return f"Seconds lost: {', '.join(parts)}."
