"""The training loop: restore, step, log, probe, checkpoint."""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.data.sources import Source, open_source
from ser_jax.data.watched import Watched
from ser_jax.methods.metric import Metrics
from ser_jax.storage.checkpoint import Checkpointer
from ser_jax.storage.files import PathLike, as_path, write_text
from ser_jax.storage.lock import only_writer
from ser_jax.storage.metrics import MetricWriter, read_metrics
from ser_jax.storage.summary import read_summary, write_summary
from ser_jax.train.accounting import account
from ser_jax.train.compiled import compile_equiv_grad_norm, compile_train_step
from ser_jax.train.experiment import Experiment, build
from ser_jax.train.finite import check_finite
from ser_jax.train.health import KNN_ACCURACY, scale_of, watched
from ser_jax.train.overview import overview, parameter_table
from ser_jax.train.preemption import StopSignal
from ser_jax.train.progress import Progress
from ser_jax.train.resume import restore_or_init
from ser_jax.train.sharding import check_batch_size, make_mesh
from ser_jax.train.step import TrainState
from ser_jax.train.steps import Probe, Steps

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
        The summary that is also written to `summary.json`; {} on all processes but the
        first. If a signal ended the run, its step saved: `stopped_by`, the signal's
        name, and `step`, on all.

    Raises:
        ValueError: If the config is refused, or contradicts the workdir's checkpoint.
        FloatingPointError: If the loss, the gradient or a weight is not finite.
        OSError: If the workdir cannot be written, is another's (see `only_writer`), or
            the data cannot be read. What was trained until then is saved.
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
        only_writer(path) if is_primary else contextlib.nullcontext(),
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
            check_finite(state, step)
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
            step = start_step
            if start_step < stop_step:
                # Compiled ahead, so that the steps compile nothing.
                compiling = time.monotonic()
                steps = Steps(
                    experiment,
                    mesh,
                    state,
                    compile_train_step(experiment, state, mesh),
                    _equiv_grad_norm(experiment, state, mesh),
                    measure,
                    watched(writer.write_scalars, scale, read_metrics(path)),
                    progress,
                    save,
                    should_stop,
                )
                _logger.info("Compiled in %.1f s.", time.monotonic() - compiling)
                if start_step == 0 and measure:
                    steps.write(0, measure(experiment.evaluated(state.variables)))
                with contextlib.closing(
                    _batches(experiment, source, start_step)
                ) as loader:
                    step = steps.run(loader)
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
        _logger.warning("%s: saved step %d and stopped.", should_stop.name, step)
        return {"stopped_by": should_stop.name, "step": step}
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


def _batches(experiment: Experiment, source: Source, start_step: int) -> Watched:
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
        timeout_s=experiment.loader_timeout_s,
    )


def _equiv_grad_norm(
    experiment: Experiment, state: TrainState, mesh: Mesh
) -> Callable[[TrainState, Any], Metrics] | None:
    if experiment.learner.regularizer.make_heads() is None:
        return None
    return compile_equiv_grad_norm(experiment, state, mesh)


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
