"""The training loop: restore, step, log, probe, checkpoint."""

import dataclasses
import pathlib
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from clu import parameter_overview
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ser_jax import config as config_lib
from ser_jax import summary as summary_lib
from ser_jax.checkpoint import Checkpointer
from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.data.sources import Source, open_source
from ser_jax.evals.features import extract, make_embed
from ser_jax.evals.knn import knn_predict
from ser_jax.experiment import Experiment, build
from ser_jax.metric_writer import MetricWriter, read_metrics
from ser_jax.progress import Progress
from ser_jax.sharding import (
    batch_sharded,
    check_batch_size,
    make_mesh,
    replicated,
    shard_batch,
)
from ser_jax.train_state import TrainState
from ser_jax.train_step import make_equiv_grad_norm, make_train_step


def train(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Trains to the end, or from where the workdir's newest checkpoint left off.

    Args:
        config: The experiment.
        workdir: Folder for checkpoints, metrics, curves and the summary; made if absent.

    Returns:
        The summary that is also written to `summary.json`; {} if stopped by SIGTERM.

    Raises:
        ValueError: If the config is refused, or contradicts the workdir's checkpoint.
        FloatingPointError: If the loss or a gradient is not finite.
        OSError: If the workdir cannot be written.
    """
    return _Run(config, workdir).run()


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """The programs of a run, compiled before its first step."""

    train_step: Callable[..., Any]
    equiv_grad_norm: Callable[..., Any]


class _Run:
    """One process's part in a run: what `train` needs at every turn, under one name."""

    def __init__(self, config: ConfigDict, workdir: str):
        self.config = config
        self.workdir = pathlib.Path(workdir).expanduser().absolute()
        self.source = open_source(
            config.dataset.name, config.dataset.train_split, config.dataset.data_dir
        )
        self.experiment: Experiment = build(config, len(self.source))
        self.mesh: Mesh = make_mesh()
        check_batch_size(config.batch_size, self.mesh)
        self.is_primary = jax.process_index() == 0
        self.probe = self._make_probe()

    def run(self) -> dict[str, Any]:
        """Restores or starts, trains, sums up."""
        config, resolved = self.config, self.experiment.resolved
        checkpointer = Checkpointer(
            self.workdir / "checkpoints",
            save_every_steps=config.checkpoint.every_steps,
            keep_latest=config.checkpoint.keep_latest,
            keep_every_steps=config.checkpoint.keep_every_steps or None,
            best_metric="knn_accuracy" if self.probe else None,
        )
        with checkpointer:
            state, wall_s = self._restore_or_init(checkpointer)
            start_step = int(state.step)
            writer = MetricWriter(
                self.workdir, start_step=start_step, is_primary=self.is_primary
            )
            progress = Progress(
                resolved.stop_step,
                start_step,
                config.batch_size,
                log_every_s=30,
                is_primary=self.is_primary,
            )
            started = time.monotonic() - wall_s
            try:
                stopped = self._loop(state, checkpointer, writer, progress, started)
            finally:
                writer.close()
        if stopped:
            return {}
        return self._summarise(progress, time.monotonic() - started)

    def _restore_or_init(self, checkpointer: Checkpointer) -> tuple[TrainState, float]:
        """State to start from, and the seconds already spent on it."""
        sharding, init = replicated(self.mesh), self.experiment.init_state
        rng = self.experiment.init_rng
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            jax.eval_shape(init, rng),
        )
        self._refuse_contradiction(checkpointer)
        restored = checkpointer.restore(abstract)
        if restored is not None:
            state, meta = restored
            logging.info("Resuming at step %d of %s.", meta["step"], self.workdir)
            return state, meta["wall_s"]
        state = jax.jit(init, out_shardings=sharding)(rng)
        if self.is_primary:
            overview = parameter_overview.get_parameter_overview(
                abstract.variables.params, include_stats=False
            )
            logging.info("Parameters:\n%s", overview)
        return state, 0.0

    def _refuse_contradiction(self, checkpointer: Checkpointer) -> None:
        if checkpointer.latest_step() is None:
            return
        try:
            meta = checkpointer.read_meta()
        except ValueError:
            return  # damaged; `restore` falls back and its checks apply to what it finds
        changed = config_lib.differences(meta["config"], self.config.to_dict())
        if meta["data"] != self.source.fingerprint:
            changed.append(f"data: {meta['data']} -> {self.source.fingerprint}")
        if changed:
            raise ValueError(
                f"{self.workdir} holds a checkpoint of another experiment. These "
                "settings differ (checkpoint -> now):\n  "
                + "\n  ".join(changed)
                + "\nUse the old settings to go on, or another --workdir to start anew."
            )

    def _compile(self, state: TrainState) -> _Compiled:
        """Compiles ahead of the loop, so that nothing compiles inside it."""
        started = time.monotonic()
        experiment = self.experiment
        state_sharding, batch_sharding = replicated(self.mesh), batch_sharded(self.mesh)
        step = make_train_step(
            experiment.learner,
            experiment.optimizer,
            experiment.learning_rate,
            experiment.step_rng,
        )
        grad_norm = make_equiv_grad_norm(experiment.learner, experiment.step_rng)
        batch = experiment.abstract_batch()
        shardings = (state_sharding, batch_sharding)
        compiled = _Compiled(
            jax.jit(
                step,
                in_shardings=shardings,
                out_shardings=(state_sharding, state_sharding),
                donate_argnums=0,
            )
            .lower(state, batch)
            .compile(),
            jax.jit(grad_norm, in_shardings=shardings, out_shardings=state_sharding)
            .lower(state, batch)
            .compile(),
        )
        logging.info("Compiled in %.1f s.", time.monotonic() - started)
        return compiled

    def _loop(
        self,
        state: TrainState,
        checkpointer: Checkpointer,
        writer: MetricWriter,
        progress: Progress,
        started: float,
    ) -> bool:
        """Steps to the end; returns whether SIGTERM cut it short."""
        config, resolved = self.config, self.experiment.resolved
        start_step = int(state.step)
        compiled = self._compile(state)
        if start_step == 0 and self.probe:
            writer.write_scalars(0, self.probe(state))
        loader = train_loader(
            self.source,
            RandomCrops(self.experiment.crops),
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=config.loader.num_threads,
            num_workers=config.loader.num_workers,
            prefetch_batches=config.loader.prefetch_batches,
        )
        should_stop = _StopSignal()
        pending: tuple[int, dict[str, jax.Array], bool] | None = None
        data_wait = _Stopwatch()

        def record(step, metrics, log):
            values = {k: float(v) for k, v in jax.device_get(metrics).items()}
            if not np.isfinite([values["loss"], values["grad_norm"]]).all():
                checkpointer.wait()
                raise FloatingPointError(self._not_finite(step, values, checkpointer))
            progress.update(step, values)
            if log:
                values["data_wait_frac"] = data_wait.fraction()
                if progress.images_per_s is not None:  # unknown before the second step
                    values["images_per_s"] = progress.images_per_s
                writer.write_scalars(step, values)

        try:
            for step in range(start_step + 1, resolved.stop_step + 1):
                with data_wait:
                    host_batch = next(loader)
                batch = shard_batch(
                    {key: host_batch[key] for key in ("crops", "crop_params")},
                    self.mesh,
                )
                last = step == resolved.stop_step
                log = step == 1 or last or step % config.log_every_steps == 0
                extra = compiled.equiv_grad_norm(state, batch) if log else {}
                with jax.profiler.StepTraceAnnotation("train", step_num=step):
                    state, metrics = compiled.train_step(state, batch)
                # Fetching step n - 1 after dispatching n keeps the device busy.
                if pending is not None:
                    record(*pending)
                pending = (step, metrics | extra, log)

                stop = should_stop(step)
                probe_due = self._probe_due(step)
                save_due = step % config.checkpoint.every_steps == 0
                if not (stop or last or probe_due or save_due):
                    continue
                record(*pending)  # nothing is saved before its loss is known
                pending = None
                with progress.pause():
                    scores = {}
                    if self.probe and (probe_due or last):
                        scores = self.probe(state)
                        writer.write_scalars(step, scores)
                    if save_due or last or stop:
                        meta = self._meta(step, time.monotonic() - started)
                        checkpointer.save(step, state, meta, scores, force=True)
                if stop and not last:
                    logging.warning("SIGTERM: saved step %d and stopping.", step)
                    return True
        finally:
            loader.close()
        return False

    def _probe_due(self, step: int) -> bool:
        every = self.experiment.resolved.knn_every_steps
        return bool(self.probe and every and step % every == 0)

    def _meta(self, step: int, wall_s: float) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "step": step,
            "seed": self.config.seed,
            "data": self.source.fingerprint,
            "wall_s": wall_s,
        }

    def _not_finite(self, step, values, checkpointer) -> str:
        good = checkpointer.latest_step()
        where = f"{self.workdir}/checkpoints/{good}" if good else "there is none yet"
        return (
            f"loss {values['loss']} and gradient norm {values['grad_norm']} at step "
            f"{step}: training has diverged. Last good checkpoint: {where}. Lower "
            "optimizer.base_lr or lengthen optimizer.warmup_epochs."
        )

    def _make_probe(self) -> Callable[[TrainState], dict[str, float]] | None:
        """k-NN accuracy of the encoder, measured while it trains."""
        knn, dataset = self.config.knn, self.config.dataset
        if not knn.every_epochs:
            return None
        if self.source.num_classes is None:
            logging.info("%s has no labels: no k-NN probe.", dataset.name)
            return None
        held_out = open_source(dataset.name, dataset.eval_split, dataset.data_dir)
        sources = (
            self.source.subset(knn.max_train_examples),
            held_out.subset(knn.max_eval_examples),
        )
        embed = make_embed(self.experiment.embed, self.mesh)

        def features(params: Any, source: Source) -> tuple[np.ndarray, np.ndarray]:
            return extract(
                embed,
                params,
                source,
                self.experiment.eval_transform(),
                self.mesh,
                batch_size=self.config.batch_size,
                num_threads=self.config.loader.num_threads,
            )

        def probe(state: TrainState) -> dict[str, float]:
            params = state.variables.params["encoder"]
            bank, labels = features(params, sources[0])
            queries, truth = features(params, sources[1])
            predicted = knn_predict(
                queries,
                bank,
                labels,
                num_neighbors=min(knn.num_neighbors, len(bank)),
                temperature=knn.temperature,
            )
            return {"knn_accuracy": float(np.mean(predicted == truth))}

        return probe

    def _summarise(self, progress: Progress, wall_s: float) -> dict[str, Any]:
        """Writes summary.json and the curves; prints the table."""
        if not self.is_primary:
            return {}
        rows = read_metrics(self.workdir)
        losses = [row["loss"] for row in rows if "loss" in row]
        accuracies = [row["knn_accuracy"] for row in rows if "knn_accuracy" in row]
        summary = {
            "loss_first": losses[0],
            "loss_last": losses[-1],
            "knn_accuracy": accuracies[-1] if accuracies else None,
            "knn_accuracy_untrained": accuracies[0] if accuracies else None,
            "images_per_s": progress.images_per_s,
            "wall_s": wall_s,
            "steps": self.experiment.resolved.stop_step,
            "device": f"{self.mesh.size} x {jax.devices()[0].device_kind}",
        }
        summary_lib.write_summary(self.workdir, summary, self.config.to_dict())
        curves = summary_lib.plot_curves(self.workdir)
        print(summary_lib.final_table(summary))
        print(f"\nCurves: {curves}\nMetrics, checkpoints, summary: {self.workdir}")
        return summary


class _StopSignal:
    """Whether SIGTERM asked to stop; agreed on by all processes."""

    def __init__(self) -> None:
        self._received = False
        if jax.process_count() == 1:  # else JAX catches it and agrees on a step
            signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, *_: Any) -> None:
        self._received = True

    def __call__(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received


class _Stopwatch:
    """Share of time spent inside its `with` blocks since it was last asked."""

    def __init__(self) -> None:
        self._inside, self._since = 0.0, time.monotonic()

    def __enter__(self) -> None:
        self._entered = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._inside += time.monotonic() - self._entered

    def fraction(self) -> float:
        """Seconds inside over seconds since the last call, which starts anew."""
        now = time.monotonic()
        fraction = self._inside / max(now - self._since, 1e-9)
        self._inside, self._since = 0.0, now
        return fraction
