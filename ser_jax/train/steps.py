"""Steps until the end of a run, a signal or an error: nothing trained is lost."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ser_jax.data.sources import UnreadableRecordError
from ser_jax.data.unreadable import Unreadable
from ser_jax.data.watched import Watched
from ser_jax.methods.metric import Metrics
from ser_jax.storage.checkpoint import NoSpaceError
from ser_jax.train.experiment import Experiment
from ser_jax.train.finite import SKIPPED
from ser_jax.train.health import Write
from ser_jax.train.lost import PROBE, WAIT, Lost
from ser_jax.train.memory import peaks
from ser_jax.train.preemption import StopSignal
from ser_jax.train.profile import Profile
from ser_jax.train.progress import (
    DATA_WAIT_FRAC,
    UNREADABLE,
    Progress,
    Stopwatch,
    WaitWarning,
)
from ser_jax.train.save_clock import SaveClock
from ser_jax.train.sharding import shard_batch
from ser_jax.train.step import GRAD_NORM, TrainState, TrainStep

Probe = Callable[[Any], dict[str, float]]  # Encoder's variables to scores by name.
Save = Callable[[int, TrainState, dict[str, float]], None]

_logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Steps:
    """A run's steps from its state on.

    Attributes:
        experiment: What is trained.
        mesh: The mesh.
        state: The state; donated to each step.
        train_step: The compiled step.
        equiv_grad_norm: What is measured beside it at logged steps, compiled; None
            without a regularizer.
        probe: Measures the encoder now and then; None: nothing does.
        write: Writes a row of metrics.
        progress: The progress line.
        save: Saves a state whose loss is known.
        should_stop: The signals.
        unreadable: The records that the batches had to do without.
        num_skipped: Updates left out until now.
        lost: What waiting and probing are added to; saving, by `save`.
        profile: Traces some of the steps.
    """

    experiment: Experiment
    mesh: Mesh
    state: TrainState
    train_step: TrainStep
    equiv_grad_norm: Callable[[TrainState, Any], Metrics] | None
    probe: Probe | None
    write: Write
    progress: Progress
    save: Save
    should_stop: StopSignal
    unreadable: Unreadable
    num_skipped: int = 0
    lost: Lost = dataclasses.field(default_factory=Lost)
    profile: Profile = dataclasses.field(default_factory=Profile)

    def __post_init__(self) -> None:
        """Begins at the state's step."""
        self._start = self._step = int(self.state.step)
        self._stop = self.experiment.resolved.stop_step
        # Of the newest step: what it measured is fetched once the next is under way.
        self._pending: tuple[int, Metrics, bool] | None = None
        self._skipped_in_a_row = 0
        self._problem: UnreadableRecordError | None = None
        self._waiting, self._warning = Stopwatch(), WaitWarning()
        self._save_clock = SaveClock(self.experiment.save_every_minutes, self._step)
        # Several processes stop at a step they agree on: each must come to it.
        self._is_alone = jax.process_count() == 1

    def run(self, loader: Watched) -> int:
        """Steps until the end, or until a signal came.

        Args:
            loader: Batches from the state's step on.

        Returns:
            The last step, which is saved.

        Raises:
            FloatingPointError: If loss, gradient norm or a weight is not finite, and
                such updates are not left out or too many in a row.
            FloatingPointError: If loss, gradient norm or a weight is not finite.
            UnreadableRecordError: If too many records cannot be read. The last step is
                saved: that before the batch, or, of several processes, the step they
                then agreed on.
            Exception: What else ended it; if one process trains, its step is saved.
        """
        try:
            while self._step < self._stop:
                if self.profile.begins(self._step + 1):
                    self._between_steps(self.profile.start)
                with self._waiting, self.lost.to(WAIT):
                    crops = loader.take(self._is_wanted)
                if crops is None:
                    self._keep({})
                    break
                self._note_unreadable(crops)
                self._advance(crops)
                if self._is_over():
                    break
            if self._problem is not None:
                raise self._problem
        except (FloatingPointError, NoSpaceError):
            raise
        except Exception:
            if self._is_alone and self._step > self._start:
                with contextlib.suppress(Exception):  # the first error is to be told
                    _logger.warning("Saving step %d.", self._step)
                    self._keep({})
            raise
        return self._step

    def _note_unreadable(self, batch: Any) -> None:
        try:
            self.unreadable.note(batch)
        except UnreadableRecordError as error:
            if self._is_alone:
                raise
            # Others stand in for the records until all processes stop at one step.
            if self._problem is None:
                self._problem = error
                self.should_stop.ask_all()

    def _is_wanted(self) -> bool:
        return not (self._is_alone and self.should_stop.received)

    def _advance(self, crops: Any) -> None:
        keys = ("crops", "crop_params")
        batch = shard_batch({key: crops[key] for key in keys}, self.mesh)
        step = self._step + 1
        log = step in (1, self._stop) or step % self.experiment.log_every_steps == 0
        metrics: Metrics = {}
        if log and self.equiv_grad_norm:
            metrics = self.equiv_grad_norm(self.state, batch)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            self.state, measured = self.train_step(self.state, batch)
        self._step = step
        # Fetching step n - 1 only now, with n under way, keeps the device busy.
        self._record()
        self._pending = (step, measured | metrics, log)
        if self.profile.ends(step):
            self._between_steps(self.profile.stop)

    def _between_steps(self, do: Callable[[], None]) -> None:
        self._record()  # of the newest step: it is done
        with self.progress.pause():
            do()

    def _is_over(self) -> bool:
        """Probes and saves what is due; whether a signal ends the run here."""
        step, every = self._step, self.experiment.resolved.knn_every_steps
        stop, last = self.should_stop(step), step == self._stop
        # Every probed state is saved: else the best of them could not be kept.
        probe_due = self.probe and (last or (every and step % every == 0))
        save_due = step % self.experiment.save_every_steps == 0
        if stop or probe_due or last or save_due or self._save_clock.is_due(step):
            self._record()  # a step's row comes before its scores
            with self.progress.pause():
                scores: dict[str, float] = {}
                if self.probe and probe_due:
                    scores = self.measure(self.probe)
                self._keep(scores)
        return stop

    def measure(self, probe: Probe) -> dict[str, float]:
        """What the probe says of the state; written as a row."""
        with self.lost.to(PROBE):
            scores = probe(self.experiment.evaluated(self.state.variables))
        self.write(self._step, scores)
        return scores

    def _keep(self, scores: dict[str, float]) -> None:
        self._record()  # nothing is saved before its loss is known
        self.save(self._step, self.state, scores)
        self._save_clock.saved(self._step)

    def _record(self) -> None:
        """Fetches, checks and logs the pending step's metrics, if one is pending."""
        if self._pending is None:
            return
        step, metrics, log = self._pending
        self._pending = None
        always = metrics.keys() & {"loss", GRAD_NORM.name, SKIPPED.name}
        wanted = metrics if log else {k: metrics[k] for k in always}
        values = {name: float(x) for name, x in jax.device_get(wanted).items()}
        self._check(step, values)
        self.progress.update(step, values)
        if log:
            waited = self._waiting.fraction()
            self._warning.note(
                waited, self.experiment.num_threads, self.experiment.num_workers
            )
            values[DATA_WAIT_FRAC.name] = waited
            values |= self.progress.speeds() | self.lost.seconds
            values |= peaks(self.mesh.local_devices)
            if self.unreadable.indices:
                values[UNREADABLE.name] = len(self.unreadable.indices)
            self.write(step, values)

    def _check(self, step: int, values: dict[str, float]) -> None:
        """Counts an update that was left out; raises where that is no longer enough."""
        loss, norm = values["loss"], values[GRAD_NORM.name]
        seen = f"loss {loss}, gradient norm {norm} at step {step}"
        if SKIPPED.name not in values:
            if not np.isfinite([loss, norm]).all():
                raise FloatingPointError(f"training has diverged: {seen}.")
            return
        is_skipped = bool(values[SKIPPED.name])
        self.num_skipped += is_skipped
        values[SKIPPED.name] = self.num_skipped
        self._skipped_in_a_row = is_skipped * (self._skipped_in_a_row + 1)
        if is_skipped:
            _logger.warning("The update of step %d is left out: %s.", step, seen)
        if self._skipped_in_a_row >= self.experiment.divergence.max_skipped:
            raise FloatingPointError(
                f"training has diverged: {self._skipped_in_a_row} updates in a row "
                f"were not finite and left out, the last with {seen}."
            )
