"""How far a run is and how fast it goes; how long it waits for data."""

import collections
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import TextIO

import numpy as np

from ser_jax.data.cores import advice
from ser_jax.data.progress import ProgressLine
from ser_jax.methods.metric import Metric, Panel

IMAGES_PER_S = Metric(
    "images_per_s", Panel("images per second", starts_at_zero=True), "images"
)
_STEP_MS = Panel("milliseconds a step", starts_at_zero=True)
STEP_MS_P50 = Metric("step_ms_p50", _STEP_MS, "median")
STEP_MS_P95 = Metric("step_ms_p95", _STEP_MS, "95th percentile")
MFU = Metric("mfu", Panel("model FLOPs utilization", starts_at_zero=True), "MFU")
DATA_WAIT_FRAC = Metric(
    "data_wait_frac",
    Panel("fraction of time spent waiting for data", starts_at_zero=True),
    "waiting",
)
UNREADABLE = Metric(
    "unreadable_records",
    Panel("records that could not be read", starts_at_zero=True),
    "left out",
)
SPEEDS = (IMAGES_PER_S, STEP_MS_P50, STEP_MS_P95, MFU)

_WINDOW_STEPS = 100
_TIMED_STEPS = 1000
_MUCH_WAITING, _TOLD_EVERY_S = 0.1, 600.0

_logger = logging.getLogger(__name__)


class Progress:
    """Speed and remaining time of steps that take a batch each.

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
        ideal_s: float | None = None,
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
            ideal_s: Seconds that all devices at their peak need for an image; None
                where that is not known.
            clock: Seconds from any origin.
        """
        self._step, self._batch_size = start_step, batch_size
        self._ideal_s = ideal_s
        self._last_s: float | None = None
        self._times_s: collections.deque[float] = collections.deque(maxlen=_TIMED_STEPS)
        self._line = ProgressLine(
            total_steps,
            every_s=log_every_s,
            window=_WINDOW_STEPS,
            stream=stream,
            is_shown=is_primary,
            clock=clock,
        )

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Takes note of a finished step, and writes a line if one is due.

        Args:
            step: Number of optimizer steps so far.
            metrics: The newest metrics; the line shows `loss`.
        """
        self._step = step
        now_s = self._line.active_s
        if self._last_s is not None:
            self._times_s.append(now_s - self._last_s)
        self._last_s = now_s
        self._line.update(step, lambda: self._text(metrics or {}))

    @property
    def images_per_s(self) -> float | None:
        """Images per second of training time; None before the second update."""
        rate = self._line.rate
        return None if rate is None else rate * self._batch_size

    def speeds(self) -> dict[str, float]:
        """What is known of `SPEEDS`, pauses left out: nothing before the second update.

        Returns:
            `images_per_s`; `step_ms_p50` and `step_ms_p95`: milliseconds from one
            update to the next, of the last 1000; `mfu`: the share of the devices' peak
            FLOP/s that the model's FLOPs take, where `ideal_s` is known.
        """
        images_per_s = self.images_per_s
        if images_per_s is None:
            return {}
        p50, p95 = 1000 * np.percentile(self._times_s, (50, 95))
        found = {
            IMAGES_PER_S.name: images_per_s,
            STEP_MS_P50.name: float(p50),
            STEP_MS_P95.name: float(p95),
        }
        if self._ideal_s is not None:
            found[MFU.name] = images_per_s * self._ideal_s
        return found

    @property
    def eta_s(self) -> float | None:
        """Seconds of training left at this speed; None before the second update."""
        return self._line.eta_s

    def pause(self) -> contextlib.AbstractContextManager[None]:
        """A block whose time is no training time: a probe, a checkpoint."""
        return self._line.pause()

    def close(self) -> None:
        """Ends the line, if the run ends before its last step."""
        self._line.close()

    def _text(self, metrics: Mapping[str, float]) -> str:
        percent = 100 * self._step / self._line.total
        parts = [f"step {self._step}/{self._line.total} ({percent:.1f} %)"]
        if "loss" in metrics:
            parts.append(f"loss {float(metrics['loss']):.4f}")
        if self.images_per_s is not None:
            parts.append(f"{self.images_per_s:,.0f} images/s")
        return ", ".join(parts)


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


class WaitWarning:
    """Tells, now and then, that the steps wait for the loader, and what to change."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Has told nothing.

        Args:
            clock: Seconds from any origin.
        """
        self._clock = clock
        self._quiet_until: float | None = None

    def note(self, fraction: float, num_threads: int, num_workers: int) -> None:
        """Takes note of a share of time, and warns if it is more than a tenth.

        Args:
            fraction: Spent waiting for data. The first is that of a loader that starts,
                and no reason to warn.
            num_threads: The loader's, in each worker.
            num_workers: The loader's.
        """
        now = self._clock()
        if self._quiet_until is None:
            self._quiet_until = now
        elif fraction > _MUCH_WAITING and now >= self._quiet_until:
            self._quiet_until = now + _TOLD_EVERY_S
            _logger.warning(
                "The steps wait for data %.0f %% of the time: the loader is too slow "
                "for them. %s Its own speed: python -m ser_jax.benchmark.",
                *(100 * fraction, advice(num_threads, num_workers)),
            )
