"""Training detectors on a frozen encoder: logged, saved, resumed."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from ser_jax.data.unreadable import Unreadable
from ser_jax.data.watched import Watched
from ser_jax.evaluate.detection.examples import Jitter, train_examples
from ser_jax.evaluate.detection.frozen import Detectors, Heads
from ser_jax.evaluate.detection.split import CocoSplit
from ser_jax.storage.checkpoint import Checkpointer, refuse_unusable
from ser_jax.storage.lock import only_writer
from ser_jax.storage.metrics import MetricWriter
from ser_jax.train.preemption import Stopped, StopSignal
from ser_jax.train.progress import Progress
from ser_jax.train.sharding import replicated

_SAVES = 20  # of a training
_ROWS = 1000  # of metrics, at most


@dataclasses.dataclass(frozen=True)
class Trained:
    """Detectors that are trained.

    Attributes:
        params: Their parameters, each leaf `[number of detectors, ...]`.
        folder: Where their checkpoints and curves are.
        images_per_s: Speed of training; None if nothing was trained now.
        num_unreadable: Pictures that this process found to be unreadable now.
    """

    params: Any
    folder: epath.Path
    images_per_s: float | None
    num_unreadable: int


def train_detectors(
    detectors: Detectors,
    split: CocoSplit,
    folder: epath.Path,
    *,
    seeds: tuple[int, ...],
    data_seed: int,
    num_threads: int,
    num_workers: int = 0,
    max_bad_frac: float,
) -> Trained:
    """Trains, or goes on where it was stopped; what is trained already is read.

    Args:
        detectors: What is trained, and how.
        split: The pictures.
        folder: A folder in it, named after all that the training depends on, has
            checkpoints and metrics.
        seeds: Of initial weights, a detector each.
        data_seed: Of the order of the pictures and of what is done to them.
        num_threads: Threads that decode, in each worker.
        num_workers: Worker processes; 0: threads of this one.
        max_bad_frac: Share of the pictures that may be unreadable.

    Returns:
        The detectors.

    Raises:
        Stopped: If a signal came; its step is saved.
        FloatingPointError: If a loss is not finite.
        UnreadableRecordError: If too many pictures cannot be read.
        OSError: If the folder cannot be written to, or another process writes there.
        ValueError: If all checkpoints are damaged, or would be on s3://.
    """
    key = _key(detectors, split, seeds, data_seed)
    text = json.dumps(key, sort_keys=True, default=str)
    folder /= f"heads-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    refuse_unusable(folder)
    is_primary = jax.process_index() == 0
    with (
        StopSignal() as should_stop,
        (
            only_writer(folder) if is_primary else contextlib.nullcontext(lambda: None)
        ) as check_lock,
        Checkpointer(folder / "checkpoints") as checkpointer,
    ):
        heads, first = _start(detectors, seeds, checkpointer)
        if first == detectors.settings.total_steps:
            return Trained(heads.params, folder, None, 0)
        batches = train_examples(
            split,
            Jitter(split, detectors.size_px),
            batch_size=detectors.settings.batch_size,
            seed=data_seed,
            start_step=first,
            num_threads=num_threads,
            num_workers=num_workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        unreadable = Unreadable(split.source, max_bad_frac, "--max_bad_frac")

        def save(step: int, heads: Heads) -> None:
            check_lock()
            checkpointer.save(step, heads, {"step": step, "about": key})

        with (
            contextlib.closing(batches),
            contextlib.closing(_Log(folder, first, detectors, seeds)) as log,
        ):
            heads = _steps(
                detectors, heads, first, batches, unreadable, log, save, should_stop
            )
        speed = log.images_per_s
        return Trained(heads.params, folder, speed, len(unreadable.indices))


def _key(
    detectors: Detectors, split: CocoSplit, seeds: tuple[int, ...], data_seed: int
) -> dict[str, Any]:
    """All that the training depends on."""
    module = detectors.detector
    return {
        "encoder": detectors.encoder.digest,
        "data": split.fingerprint,
        "classes": list(split.categories.names),
        "size_px": detectors.size_px,
        "layer": detectors.layer,
        "settings": dataclasses.asdict(detectors.settings),
        "detector": [module.strides, module.channels, module.num_convs],
        "seeds": list(seeds),
        "data_seed": data_seed,
    }


def _start(
    detectors: Detectors, seeds: tuple[int, ...], checkpointer: Checkpointer
) -> tuple[Heads, int]:
    """Heads and the steps behind them."""
    everywhere = replicated(detectors.mesh)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
        jax.eval_shape(lambda: detectors.init(seeds)),
    )
    if (restored := checkpointer.restore(abstract)) is not None:
        heads, meta = restored
        return heads, meta["step"]
    return detectors.init(seeds), 0


def _steps(
    detectors: Detectors,
    heads: Heads,
    first: int,
    batches: Watched,
    unreadable: Unreadable,
    log: "_Log",
    save: Callable[[int, Heads], None],
    should_stop: StopSignal,
) -> Heads:
    """The heads after the last step."""
    total = detectors.settings.total_steps
    every = -(-total // _SAVES)
    for step in range(first + 1, total + 1):
        batch = next(batches)
        unreadable.note(batch)
        heads, losses = detectors.train_step(heads, batch)
        log.take(step, losses)
        stopped = should_stop(step)
        if stopped or step == total or step % every == 0:
            log.flush()
            log.upload()
            save(step, heads)
        if stopped:
            raise Stopped(should_stop.name, step)
    return heads


class _Log:
    """Losses on disk and on the screen, a step late: the device stays busy."""

    def __init__(
        self,
        folder: epath.Path,
        first: int,
        detectors: Detectors,
        seeds: tuple[int, ...],
    ):
        settings, is_primary = detectors.settings, jax.process_index() == 0
        self._writer = MetricWriter(folder, start_step=first, is_primary=is_primary)
        self._progress = Progress(
            settings.total_steps,
            first,
            settings.batch_size,
            log_every_s=30,
            is_primary=is_primary,
        )
        self._every = -(-settings.total_steps // _ROWS)
        self._seeds = seeds
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None

    @property
    def images_per_s(self) -> float | None:
        """Speed of training."""
        return self._progress.images_per_s

    def take(self, step: int, losses: Mapping[str, jax.Array]) -> None:
        """Reports the step before this one."""
        self.flush()
        self._pending = step, losses

    def flush(self) -> None:
        """Reports the last step."""
        if self._pending is None:
            return
        (step, pending), self._pending = self._pending, None
        losses = {name: np.asarray(x) for name, x in jax.device_get(pending).items()}
        if not np.isfinite(losses["loss"]).all():
            row = int(np.flatnonzero(~np.isfinite(losses["loss"]))[0])
            raise FloatingPointError(
                f"the detector of seed {self._seeds[row]} has diverged at step {step}: "
                f"its loss is {losses['loss'][row]}."
            )
        means = {name: float(x.mean()) for name, x in losses.items()}
        self._progress.update(step, means)
        if step % self._every == 0:
            each = zip(self._seeds, losses["loss"].tolist(), strict=True)
            self._writer.write_scalars(
                step, means | {f"loss_seed{seed}": x for seed, x in each}
            )

    def upload(self) -> None:
        """Returns when all rows are in the bucket, if the folder is in one."""
        self._writer.flush()

    def close(self) -> None:
        """Ends line and files."""
        self._progress.close()
        self._writer.close()
