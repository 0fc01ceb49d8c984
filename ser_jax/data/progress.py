"""One progress display for all programs: how far, how fast, how much longer.

It stands with the data, for that is where progress comes from: an image, a batch, a
step is done when it has been read. Preparing a data set shows it first, and may import
nothing that stands later.
"""

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from tqdm import tqdm

_REDRAW_S = 0.1
_BAR = "{bar:20} {desc}"


class ProgressLine:
    """A line of text with the time left: on a terminal behind a bar that tqdm redraws.

    Elsewhere, as in a log file, it is a new line now and then. The rate counts from the
    first update, which may have waited for a compilation, and leaves out what happens
    inside `pause`.

    Attributes:
        total: What there is to do, in any unit; may change on the way.
    """

    def __init__(
        self,
        total: float,
        *,
        every_s: float | None = 30.0,
        window: int | None = None,
        stream: TextIO | None = None,
        is_shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Shows nothing yet.

        Args:
            total: What there is to do.
            every_s: Seconds between lines where there is no terminal; None: no lines.
            window: Updates that the rate is taken of; None: all of them.
            stream: Where the line goes; None is standard error.
            is_shown: Whether anything is written at all.
            clock: Seconds from any origin.
        """
        self.total = total
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._every_s = _REDRAW_S if self._is_terminal else every_s
        if not is_shown:
            self._every_s = None
        self._window, self._clock = window, clock
        self._done, self._paused_s, self._last_line_s = 0.0, 0.0, -float("inf")
        self._marks: collections.deque[tuple[float, float]] = collections.deque()
        self._bar: tqdm | None = None

    def update(self, done: float, text: Callable[[], str]) -> None:
        """Takes note of how much is done, and writes a line if one is due.

        Args:
            done: So far, out of `total`.
            text: Makes the line; the time left is added.
        """
        now_s = self._clock()
        is_last = done >= self.total > self._done
        self._done = done
        if self._window is None and len(self._marks) == 2:
            self._marks.pop()  # of all updates, the first and the last say enough
        self._marks.append((done, now_s - self._paused_s))
        if self._window is not None and len(self._marks) > self._window:
            self._marks.popleft()
        if self._every_s is None:
            return
        if now_s - self._last_line_s >= self._every_s or is_last:
            self._last_line_s = now_s
            left = self.eta_s
            ending = "" if left is None else f", {format_duration(left)} left"
            self._write(text() + ending)
            if is_last:
                self.close()

    @property
    def active_s(self) -> float:
        """Seconds of the clock, pauses left out."""
        return self._clock() - self._paused_s

    @property
    def rate(self) -> float | None:
        """What is done a second, pauses left out; None before the second update."""
        if len(self._marks) < 2:
            return None
        (first, first_s), (last, last_s) = self._marks[0], self._marks[-1]
        return (last - first) / max(last_s - first_s, 1e-9)

    @property
    def eta_s(self) -> float | None:
        """Seconds left at this rate; None while there is none."""
        return (self.total - self._done) / self.rate if self.rate else None

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """A block whose time does not count: a probe, a checkpoint."""
        start_s = self._clock()
        try:
            yield
        finally:
            self._paused_s += self._clock() - start_s

    def say(self, message: str) -> None:
        """Writes a line of its own, above the bar if there is one."""
        tqdm.write(message, file=self._stream)

    def close(self) -> None:
        """Leaves the bar as it is; whatever comes next begins on a new line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self, line: str) -> None:
        if not self._is_terminal:
            print(line, file=self._stream, flush=True)
            return
        if self._bar is None:
            self._bar = tqdm(
                file=self._stream, bar_format=_BAR, dynamic_ncols=True, delay=1e-9
            )
        self._bar.total, self._bar.n = self.total, self._done
        self._bar.set_description_str(line)


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
