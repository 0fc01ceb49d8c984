"""How far a run is, how fast it goes, and when it will be done."""

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

_WINDOW_STEPS = 100
_REDRAW_S = 0.1


class Progress:
    """Speed and remaining time; on a terminal also a line that rewrites itself.

    The speed is that of the last 100 updates. It counts from the end of the first one,
    which also waits for the first batch, and leaves out what happens inside `pause`.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int,
        batch_size: int,
        stream: TextIO | None = None,
        *,
        log_every_s: float | None = None,
        is_primary: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Starts at `start_step`.

        Args:
            total_steps: Last step of the run.
            start_step: Step it starts or resumes from.
            batch_size: Images per step, over all devices.
            stream: Where the line goes; None is standard error.
            log_every_s: If the stream is no terminal, seconds between the lines it
                gets; None: it gets none.
            is_primary: Whether this process writes lines at all.
            clock: Seconds from any origin.
        """
        self._total_steps = total_steps
        self._step = start_step
        self._batch_size = batch_size
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._line_every_s = _REDRAW_S if self._is_terminal else log_every_s
        if not is_primary:
            self._line_every_s = None
        self._clock = clock
        self._paused_s = 0.0
        self._last_line_s = -float("inf")
        self._is_line_open = False
        self._updates: collections.deque[tuple[int, float]] = collections.deque(
            maxlen=_WINDOW_STEPS
        )

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Takes note of a finished step, and writes a line if one is due.

        Args:
            step: Number of optimizer steps so far.
            metrics: The newest metrics; the line shows `loss`.
        """
        now_s = self._clock()
        self._step = step
        self._updates.append((step, now_s - self._paused_s))
        is_last = step >= self._total_steps
        if self._line_every_s is None:
            return
        if now_s - self._last_line_s >= self._line_every_s or is_last:
            self._last_line_s = now_s
            self._write(self._line(metrics or {}))
            if is_last:
                self._end_line()

    @property
    def images_per_s(self) -> float | None:
        """Images per second of training time; None before the second update."""
        if len(self._updates) < 2:
            return None
        (first_step, first_s), (last_step, last_s) = self._updates[0], self._updates[-1]
        seconds = max(last_s - first_s, 1e-9)
        return (last_step - first_step) * self._batch_size / seconds

    @property
    def eta_s(self) -> float | None:
        """Seconds of training left at this speed; None before the second update."""
        speed = self.images_per_s
        if not speed:
            return None
        return (self._total_steps - self._step) * self._batch_size / speed

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """A block whose time is no training time: a probe, a checkpoint."""
        self._end_line()
        start_s = self._clock()
        try:
            yield
        finally:
            self._paused_s += self._clock() - start_s

    def _line(self, metrics: Mapping[str, float]) -> str:
        percent = 100 * self._step / self._total_steps
        parts = [f"step {self._step}/{self._total_steps} ({percent:.1f} %)"]
        if "loss" in metrics:
            parts.append(f"loss {float(metrics['loss']):.4f}")
        if self.images_per_s is not None and self.eta_s is not None:
            parts.append(f"{self.images_per_s:,.0f} images/s")
            parts.append(f"{format_duration(self.eta_s)} left")
        return ", ".join(parts)

    def _write(self, line: str) -> None:
        # Carriage return, line, erase what an older, longer line left.
        self._stream.write(f"\r{line}\x1b[K" if self._is_terminal else f"{line}\n")
        self._stream.flush()
        self._is_line_open = self._is_terminal

    def _end_line(self) -> None:
        """Lets whatever is written next begin on a line of its own."""
        if self._is_line_open:
            self._stream.write("\n")
            self._is_line_open = False


def format_duration(seconds: float) -> str:
    """A duration in its two largest units: "41s", "3m 05s", "7h 20m", "2d 03h".

    Args:
        seconds: Duration, s, >= 0.

    Returns:
        The text.
    """
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02d}h"
    if hours:
        return f"{h}h {m:02d}m"
    return f"{m}m {s:02d}s" if minutes else f"{s}s"


class Stopwatch:
    """Share of time spent inside its `with` blocks since it was last asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts now.

        Args:
            clock: Seconds from any origin.
        """
        self._clock = clock
        self._inside, self._since = 0.0, clock()

    def __enter__(self) -> None:
        """Enters the part that is measured."""
        self._entered = self._clock()

    def __exit__(self, *_: object) -> None:
        """Leaves it."""
        self._inside += self._clock() - self._entered

    def fraction(self) -> float:
        """Seconds inside over seconds since the last call, in [0, 1]; starts anew."""
        now = self._clock()
        fraction = self._inside / max(now - self._since, 1e-9)
        self._inside, self._since = 0.0, now
        return fraction
