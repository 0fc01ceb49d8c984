"""The training loop: restore, step, log, probe, checkpoint."""

import logging
import time
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.data.sources import Source, open_source
from ser_jax.storage.checkpoint import Checkpointer
from ser_jax.storage.files import PathLike, as_path, write_text
from ser_jax.storage.metrics import MetricWriter, read_metrics
from ser_jax.storage.summary import read_summary, write_summary
from ser_jax.train.accounting import account
from ser_jax.train.compiled import compile_equiv_grad_norm, compile_train_step
from ser_jax.train.experiment import Experiment, build
from ser_jax.train.health import KNN_ACCURACY, Write, scale_of, watched
from ser_jax.train.overview import overview, parameter_table
from ser_jax.train.preemption import StopSignal
from ser_jax.train.progress import DATA_WAIT_FRAC, IMAGES_PER_S, Progress, Stopwatch
from ser_jax.train.resume import restore_or_init
from ser_jax.train.sharding import check_batch_size, make_mesh, shard_batch
from ser_jax.train.step import TrainState

Probe = Callable[[Any], dict[str, float]]  # Encoder's variables to scores by name.
MakeProbe = Callable[[Experiment, Source, Mesh], Probe | None]

_logger = logging.getLogger(__name__)


def train(
    config: ConfigDict, workdir: PathLike, *, probe: MakeProbe | None = None
) -> dict[str, Any]:
    """Trains to the end, or from where the workdir's newest checkpoint left off.

    Args:
        config: The experiment.
        workdir: Folder for checkpoints, metrics and the summary.
        probe: Makes what measures the encoder now and then, or None where it cannot be
            measured; without it nothing is measured.

    Returns:
        The summary that is also written to `summary.json`; {} if SIGTERM ended the run
        early, and on all processes but the first.

    Raises:
        ValueError: If the config is refused, or contradicts the workdir's checkpoint.
        FloatingPointError: If the loss or the gradient is not finite.
        OSError: If the workdir cannot be written.
    """
    path = as_path(workdir)
    dataset = config.dataset
    source = open_source(dataset.name, dataset.train_split, dataset.data_dir)
    experiment = build(config, len(source))
    mesh = make_mesh()
    check_batch_size(experiment.batch_size, mesh)
    measure = probe(experiment, source, mesh) if probe else None
    is_primary = jax.process_index() == 0
    stop_step = experiment.resolved.stop_step
    with (
        StopSignal() as should_stop,
        Checkpointer(
            path / "checkpoints",
            keep_latest=config.checkpoint.keep_latest,
            keep_every_steps=config.checkpoint.keep_every_steps or None,
            best_metric=KNN_ACCURACY.name if measure else None,
        ) as checkpointer,
    ):
        state, start_step, wall_s = restore_or_init(
            experiment, checkpointer, source, mesh
        )
        started = time.monotonic() - wall_s  # as if it had run in one go
        progress = Progress(
            stop_step,
            start_step,
            experiment.batch_size,
            log_every_s=30,
            is_primary=is_primary,
        )
        writer = MetricWriter(path, start_step=start_step, is_primary=is_primary)
        scale = scale_of(experiment, state.variables)

        def save(step: int, state: TrainState, scores: dict[str, float]) -> None:
            meta = {
                "config": experiment.config,
                "step": step,
                "seed": experiment.seed,
                "data": source.fingerprint,
                "wall_s": time.monotonic() - started,
            }
            checkpointer.save(step, state, meta, scores)

        if is_primary:
            _logger.info(overview(experiment, source, mesh, state.variables, path))
            write_text(path / "parameters.txt", parameter_table(state.variables))
        if start_step:
            _logger.info("Resuming after step %d.", start_step)
        else:
            writer.write_text("config", f"```\n{config}\n```")
        try:
            if start_step < stop_step:
                step = _loop(
                    experiment,
                    state,
                    source,
                    mesh,
                    measure,
                    watched(writer.write_scalars, scale, read_metrics(path)),
                    progress,
                    save,
                    should_stop,
                )
            else:
                step = start_step
        except FloatingPointError as error:
            checkpointer.wait()
            good = checkpointer.latest_step()
            where = "none yet" if good is None else path / "checkpoints" / str(good)
            raise FloatingPointError(
                f"{error} Last good checkpoint: {where}."
            ) from None
        finally:
            progress.close()
            writer.close()
    if step < stop_step:
        _logger.warning("SIGTERM: saved step %d and stopped.", step)
        return {}
    if not is_primary:
        return {}
    if step == start_step and (path / "summary.json").exists():
        _logger.info("Nothing to do: %s ended at step %d.", path, step)
        return read_summary(path)
    summary = _summarise(
        experiment, read_metrics(path), progress, time.monotonic() - started, mesh
    )
    write_summary(path, summary, experiment.config)
    return summary


def _batches(
    experiment: Experiment, source: Source, start_step: int
) -> grain.DatasetIterator[Any]:
    return train_loader(
        source,
        RandomCrops(experiment.crops, experiment.pair_seed),
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        start_step=start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=experiment.num_threads,
        num_workers=experiment.num_workers,
        prefetch_batches=experiment.prefetch_batches,
    )


def _loop(
    experiment: Experiment,
    state: TrainState,
    source: Source,
    mesh: Mesh,
    probe: Probe | None,
    write: Write,
    progress: Progress,
    save: Callable[[int, TrainState, dict[str, float]], None],
    should_stop: StopSignal,
) -> int:
    """Steps to the end or to SIGTERM; returns the last step, which is saved."""
    resolved = experiment.resolved
    start_step = int(state.step)
    started = time.monotonic()  # compiled ahead, so that the loop compiles nothing
    train_step = compile_train_step(experiment, state, mesh)
    equiv_grad_norm = None
    if experiment.learner.regularizer.make_heads() is not None:
        equiv_grad_norm = compile_equiv_grad_norm(experiment, state, mesh)
    _logger.info("Compiled in %.1f s.", time.monotonic() - started)
    if start_step == 0 and probe:
        write(0, probe(experiment.evaluated(state.variables)))
    waiting = Stopwatch()
    loader = _batches(experiment, source, start_step)

    def record(step: int, metrics: dict[str, jax.Array], log: bool) -> None:
        wanted = metrics if log else {k: metrics[k] for k in ("loss", "grad_norm")}
        values = {name: float(x) for name, x in jax.device_get(wanted).items()}
        if not np.isfinite([values["loss"], values["grad_norm"]]).all():
            raise FloatingPointError(
                f"training has diverged: loss {values['loss']}, gradient norm "
                f"{values['grad_norm']} at step {step}. Lower optimizer.base_lr or "
                "lengthen optimizer.warmup_epochs."
            )
        progress.update(step, values)
        if log:
            values[DATA_WAIT_FRAC.name] = waiting.fraction()
            if progress.images_per_s is not None:  # unknown before the second step
                values[IMAGES_PER_S.name] = progress.images_per_s
            write(step, values)

    step, pending = start_step, None
    try:
        for step in range(start_step + 1, resolved.stop_step + 1):
            with waiting:
                crops = next(loader)
            batch = shard_batch(
                {key: crops[key] for key in ("crops", "crop_params")}, mesh
            )
            last = step == resolved.stop_step
            log = step == 1 or last or step % experiment.log_every_steps == 0
            extra = equiv_grad_norm(state, batch) if log and equiv_grad_norm else {}
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = train_step(state, batch)
            # Fetching step n - 1 only now, with n under way, keeps the device busy.
            if pending is not None:
                record(*pending)
            pending = (step, metrics | extra, log)

            stop = should_stop(step)
            every = resolved.knn_every_steps
            probe_due = probe and (last or (every and step % every == 0))
            # Every probed state is saved: else the best of them could not be kept.
            save_due = probe_due or last or step % experiment.save_every_steps == 0
            if not (stop or save_due):
                continue
            record(*pending)  # nothing is saved before its loss is known
            pending = None
            with progress.pause():
                scores = {}
                if probe and probe_due:
                    scores = probe(experiment.evaluated(state.variables))
                    write(step, scores)
                save(step, state, scores)
            if stop:
                break
    finally:
        loader.close()
    return step


def _summarise(
    experiment: Experiment,
    rows: list[dict[str, float]],
    progress: Progress,
    wall_s: float,
    mesh: Mesh,
) -> dict[str, Any]:
    """What is left to say of a run, from its rows of metrics."""
    losses = [row["loss"] for row in rows if "loss" in row]
    knn = KNN_ACCURACY.name
    accuracies = [row[knn] for row in rows if knn in row]
    return {
        "loss_first": losses[0],
        "loss_last": losses[-1],
        knn: accuracies[-1] if accuracies else None,
        f"{knn}_untrained": accuracies[0] if accuracies else None,
        "images_per_s": progress.images_per_s,
        "wall_s": wall_s,
        "steps": rows[-1]["step"],
        "device": f"{mesh.size} x {jax.devices()[0].device_kind}",
        "accounting": account(experiment),
    }
