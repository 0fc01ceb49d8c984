"""The training loop: restore, step, log, probe, checkpoint."""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.data.sources import Source, open_source
from ser_jax.data.unreadable import Unreadable
from ser_jax.data.watched import Watched
from ser_jax.methods.metric import Metrics
from ser_jax.storage.checkpoint import Checkpointer, refuse_unusable
from ser_jax.storage.files import PathLike, as_path, write_text
from ser_jax.storage.lock import only_writer
from ser_jax.storage.metrics import MetricWriter, read_metrics
from ser_jax.storage.summary import read_summary, write_summary
from ser_jax.train.accounting import account
from ser_jax.train.chips import chip
from ser_jax.train.compiled import compile_equiv_grad_norm, compile_train_step
from ser_jax.train.experiment import Experiment, build
from ser_jax.train.finite import SKIPPED, check_finite
from ser_jax.train.health import KNN_ACCURACY, KNN_PIXELS, scale_of, watched
from ser_jax.train.lost import COMPILE, SAVE, START, Lost
from ser_jax.train.memory import PEAKS, peaks
from ser_jax.train.overview import overview, parameter_table
from ser_jax.train.preemption import StopSignal
from ser_jax.train.profile import Profile, still_to_come
from ser_jax.train.progress import SPEEDS, UNREADABLE, Progress
from ser_jax.train.resume import Start, restore_or_init
from ser_jax.train.sharding import check_batch_size, make_mesh
from ser_jax.train.step import TrainState, TrainStep
from ser_jax.train.steps import Probe, Steps
from ser_jax.train.weights import StartWeights, start_weights

_Programs = tuple[TrainStep, Callable[[TrainState, Any], Metrics] | None]
MakeProbe = Callable[[Experiment, Source, Mesh], Probe | None]

_ORDERS_APART = 1_000_003  # seeds of a run's orders of the data

_logger = logging.getLogger(__name__)


def train(
    config: ConfigDict,
    workdir: PathLike,
    *,
    probe: MakeProbe | None = None,
    profile: range = range(0),
) -> dict[str, Any]:
    """Trains to the end, or from where the workdir's newest checkpoint left off.

    Args:
        config: The experiment.
        workdir: Folder for checkpoints, metrics and the summary.
        probe: Makes what measures the encoder now and then, or None where it cannot be
            measured; without it nothing is measured.
        profile: Steps that the first process traces, to the workdir's `profile`.

    Returns:
        The summary that is also written to `summary.json`; {} on all processes but the
        first. If a signal or a notice ended the run, its step saved: `stopped_by`, its
        name, and `step`, on all.

    Raises:
        ValueError: If the config is refused, or contradicts the workdir's checkpoint,
            or the workdir has a name that checkpoints cannot have, or `profile` begins
            after the run's end.
        FloatingPointError: If the loss, the gradient or a weight is not finite, and
            `config.divergence` does not say otherwise.
        OSError: If the workdir cannot be written, is another's (see `only_writer`), or
            the data cannot be read. What was trained until then is saved.
    """
    started, lost = time.monotonic(), Lost()
    path = as_path(workdir)
    refuse_unusable(path)
    weights = start_weights(config.to_dict(), path)
    dataset = config.dataset
    source = open_source(dataset.name, dataset.train_split, dataset.data_dir)
    experiment = build(config, len(source))
    mesh = make_mesh()
    check_batch_size(experiment.batch_size, mesh, experiment.accumulate_steps)
    measure = probe(experiment, source, mesh) if probe else None
    is_primary = jax.process_index() == 0
    stop_step = experiment.resolved.stop_step
    with (
        StopSignal() as should_stop,
        (
            only_writer(path) if is_primary else contextlib.nullcontext(lambda: None)
        ) as check_lock,
        Checkpointer(
            path / "checkpoints",
            keep_latest=config.checkpoint.keep_latest,
            keep_every_steps=config.checkpoint.keep_every_steps or None,
            best_metric=KNN_ACCURACY.name if measure else None,
        ) as checkpointer,
    ):
        start = restore_or_init(experiment, checkpointer, source, mesh, weights)
        first_step = start.step
        if is_primary:
            variables = start.state.variables
            text = overview(experiment, source, mesh, variables, path, start.init)
            _logger.info(text)
            write_text(path / "parameters.txt", parameter_table(variables))
        if first_step:
            _logger.info("Resuming after step %d.", first_step)
        lost.add(start.lost_s)
        lost.add({START.name: time.monotonic() - started})
        traced = still_to_come(profile, first_step, stop_step)
        programs = None
        if first_step < stop_step:  # ahead, so that the steps compile nothing
            with lost.to(COMPILE):
                programs = _compiled(experiment, start.state, mesh)
        run = _Run(
            experiment,
            path,
            source,
            mesh,
            checkpointer,
            measure,
            should_stop,
            check_lock,
            programs,
            weights,
            lost,
            Profile(path / "profile", traced if is_primary else range(0)),
            started=started - start.wall_s,  # as if it had run in one go
        )
        while True:
            try:
                step, speeds = run.go_on(start)
                break
            except FloatingPointError as error:
                failure = str(error)
            # Not before the error is gone, and with it what holds the state.
            start = run.roll_back(start, failure)
        with lost.to(SAVE):
            checkpointer.wait()
    if is_primary and step > first_step:
        _logger.info("%s", lost)
    if step < stop_step:
        _logger.warning("%s: saved step %d and stopped.", should_stop.name, step)
        return {"stopped_by": should_stop.name, "step": step}
    if not is_primary:
        return {}
    ended = read_summary(path) if step == first_step else None
    if ended is not None:
        _logger.info("Nothing to do: %s ended at step %d.", path, step)
        return ended
    summary = run.summary(step, read_metrics(path), speeds)
    if start.init:
        summary["init"] = start.init
    write_summary(path, summary, experiment.config)
    return summary


@dataclasses.dataclass(frozen=True)
class _Run:
    """What does not change when a run goes on from an older step.

    Attributes:
        weights: What the encoder starts from, until there is a checkpoint.
        lost: Seconds that trained nothing.
        check_lock: Raises if the workdir is another's by now.
        started: Of the monotonic clock.
    """

    experiment: Experiment
    path: epath.Path
    source: Source
    mesh: Mesh
    checkpointer: Checkpointer
    measure: Probe | None
    should_stop: StopSignal
    check_lock: Callable[[], None]
    programs: _Programs | None
    weights: StartWeights | None
    lost: Lost
    profile: Profile
    started: float

    @functools.cached_property
    def accounting(self) -> dict[str, Any]:
        """What a step costs."""
        return account(self.experiment)

    def go_on(self, start: Start) -> tuple[int, dict[str, float]]:
        """Trains to the end, or until a signal came; the last step, and its speeds."""
        is_primary = jax.process_index() == 0
        writer = MetricWriter(self.path, start_step=start.step, is_primary=is_primary)
        progress = Progress(
            self.experiment.resolved.stop_step,
            start.step,
            self.experiment.batch_size,
            log_every_s=30,
            is_primary=is_primary,
            ideal_s=self._ideal_s() if self.programs else None,
        )
        with contextlib.closing(writer), contextlib.closing(progress):
            if start.step == 0:
                text = ConfigDict(self.experiment.config)
                writer.write_text("config", f"```\n{text}\n```")
            if self.programs is None:
                return start.step, {}
            rows = read_metrics(self.path)
            scale = scale_of(self.experiment, start.state.variables)
            steps = Steps(
                self.experiment,
                self.mesh,
                start.state,
                *self.programs,
                self.measure,
                watched(writer.write_scalars, scale, rows),
                progress,
                functools.partial(self._save, start.data_order, start.init, writer),
                self.should_stop,
                Unreadable(self.source, self.experiment.max_bad_frac),
                int(max((row.get(SKIPPED.name, 0) for row in rows), default=0)),
                self.lost,
                self.profile,
            )
            if start.step == 0 and self.measure:
                steps.measure(self.measure)
            batches = contextlib.closing(self._batches(start))
            with contextlib.closing(self.profile), batches as loader:
                return steps.run(loader), progress.speeds()

    def _ideal_s(self) -> float | None:
        """Seconds that all devices at their peak need for an image, if it is known."""
        sheet = chip(self.mesh.devices.flat[0].device_kind)
        if sheet is None:
            return None
        with self.lost.to(START):  # it takes seconds
            flops = self.accounting["flops_per_image"]
        return flops / (sheet.flops * self.mesh.size)

    def roll_back(self, start: Start, failure: str) -> Start:
        """Where to go on after numbers that are not finite; raises if it is not to be.

        Args:
            start: Where the run went on before.
            failure: What was not finite.
        """
        self.checkpointer.wait()
        good = self.checkpointer.latest_step()
        divergence = self.experiment.divergence
        order = start.data_order + 1
        if divergence.policy != "rollback" or order > divergence.max_rollbacks:
            where = (
                "none yet" if good is None else self.path / "checkpoints" / str(good)
            )
            raise FloatingPointError(
                f"{failure} Last good checkpoint: {where}. {divergence.advice()}"
            )
        _logger.warning(
            "%s Back to step %d, on with another order of the data (%d of %d).",
            *(failure, good or 0, order, divergence.max_rollbacks),
        )
        with self.lost.to(START):
            return restore_or_init(
                self.experiment,
                self.checkpointer,
                self.source,
                self.mesh,
                self.weights,
            )._replace(data_order=order)

    def _save(
        self,
        data_order: int,
        init: dict[str, Any] | None,
        writer: MetricWriter,
        step: int,
        state: TrainState,
        scores: dict[str, float],
    ) -> None:
        with self.lost.to(SAVE):
            check_finite(state, step)
            self.check_lock()
            writer.flush()  # who goes on from this step finds its rows
            meta = {
                "config": self.experiment.config,
                "step": step,
                "seed": self.experiment.seed,
                "data": self.source.fingerprint,
                "data_order": data_order,
                "init": init,
                "wall_s": time.monotonic() - self.started,
                "lost_s": dict(self.lost.seconds),
            }
            self.checkpointer.save(step, state, meta, scores)

    def summary(
        self, step: int, rows: list[dict[str, float]], speeds: dict[str, float]
    ) -> dict[str, Any]:
        """What is left to say of a run.

        Args:
            step: Its last.
            rows: Its metrics.
            speeds: Of `SPEEDS`, what is known.
        """
        losses = [row["loss"] for row in rows if "loss" in row]
        knn = KNN_ACCURACY.name
        accuracies = [row[knn] for row in rows if knn in row]
        pixels = [row[KNN_PIXELS.name] for row in rows if KNN_PIXELS.name in row]
        most = peaks(self.mesh.local_devices)
        return {
            "loss_first": losses[0] if losses else None,
            "loss_last": losses[-1] if losses else None,
            KNN_PIXELS.name: pixels[-1] if pixels else None,
            f"{knn}_untrained": accuracies[0] if accuracies else None,
            knn: accuracies[-1] if accuracies else None,
            **{metric.name: speeds.get(metric.name) for metric in SPEEDS},
            **{metric.name: most.get(metric.name) for metric in PEAKS},
            "wall_s": time.monotonic() - self.started,
            **self.lost.seconds,
            "steps": step,
            UNREADABLE.name: max(
                (row.get(UNREADABLE.name, 0) for row in rows), default=0
            ),
            "device": f"{self.mesh.size} x {jax.devices()[0].device_kind}",
            "accounting": self.accounting,
        }

    def _batches(self, start: Start) -> Watched:
        experiment = self.experiment
        return train_loader(
            self.source,
            RandomCrops(experiment.crops, experiment.pair_seed),
            batch_size=experiment.batch_size,
            seed=experiment.seed + _ORDERS_APART * start.data_order,
            start_step=start.step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=experiment.num_threads,
            num_workers=experiment.num_workers,
            prefetch_batches=experiment.prefetch_batches,
            timeout_s=experiment.loader_timeout_s,
            replace_unreadable=True,
        )


def _compiled(experiment: Experiment, state: TrainState, mesh: Mesh) -> _Programs:
    """The step, and what is measured beside it."""
    compiling = time.monotonic()
    programs = (
        compile_train_step(experiment, state, mesh),
        _equiv_grad_norm(experiment, state, mesh),
    )
    _logger.info("Compiled in %.1f s.", time.monotonic() - compiling)
    return programs


def _equiv_grad_norm(
    experiment: Experiment, state: TrainState, mesh: Mesh
) -> Callable[[TrainState, Any], Metrics] | None:
    if experiment.learner.regularizer.make_heads() is None:
        return None
    return compile_equiv_grad_norm(experiment, state, mesh)
