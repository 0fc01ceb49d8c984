"""Pictures and boxes as a detector takes them: of one size, padded, in batches."""

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from ser_jax.data.crops import Batch
from ser_jax.data.decode import UnreadableImageError, decode_image
from ser_jax.data.loader import eval_batches, train_loader
from ser_jax.data.sources import Source, UnreadableRecordError
from ser_jax.data.unreadable import Unreadable
from ser_jax.data.watched import Watched
from ser_jax.evaluate.detection.placing import Place, fitting, moved, resized, scaled
from ser_jax.evaluate.detection.split import CocoSplit

MAX_BOXES = 100

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Jitter(grain.transforms.RandomMap):
    """Large-scale jitter: enlarged or reduced, cut or padded to the size, mirrored.

    Attributes:
        split: Whose pictures.
        size_px: Side of the square that comes out.
        max_boxes: Boxes kept of a picture, the largest first.
        scale: Least and largest factor on the scale at which it just fits.
        flip_prob: Probability of a left-right flip, in [0, 1].

    Reference:
        Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for
        Instance Segmentation", CVPR 2021, Sec. 3; with the narrower scales here.
    """

    split: CocoSplit
    size_px: int
    max_boxes: int = MAX_BOXES
    scale: tuple[float, float] = (0.5, 1.5)
    flip_prob: float = 0.5

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> Batch:
        """A random part of a picture and the boxes in it, without crowds.

        Args:
            example: `image` (encoded bytes) and `index`.
            rng: The only source of randomness.

        Returns:
            What `Letterbox` returns, but `extent` and `readable`.

        Raises:
            UnreadableImageError: If the image cannot be decoded.
        """
        index = int(example["index"])
        image = decode_image(example["image"])
        size = self.split.sizes[index]
        scale = fitting(size, self.size_px) * rng.uniform(*self.scale)
        room = np.maximum(scaled(size, scale) - self.size_px, 0)
        corner = rng.integers(room + 1)
        flip = rng.random() < self.flip_prob
        place = Place(scale, corner, bool(flip))
        return _example(self.split, index, image, place, self.size_px, self.max_boxes)


@dataclasses.dataclass(frozen=True)
class Letterbox(grain.transforms.Map):
    """The whole picture as large as it fits, in the top left corner.

    Attributes:
        split: Whose pictures.
        size_px: Side of the square that comes out.
        max_boxes: Boxes kept of a picture, the largest first.
    """

    split: CocoSplit
    size_px: int
    max_boxes: int = MAX_BOXES

    def map(self, example: dict[str, Any]) -> Batch:
        """A picture and its boxes, without crowds.

        Args:
            example: `image` (encoded bytes) and `index`.

        Returns:
            `image`: `[s, s, 3]` uint8, 0 where nothing of the picture is. `pad`: `[2]`
            int32, height and width of what is picture, rounded down; `extent`: `[2]`
            float32, the same to the last fraction of a pixel. `boxes`: `[max_boxes, 4]`
            float32, x0, y0, x1, y1 in px of the image, clipped to the extent. `labels`:
            `[max_boxes]` int32, -1 where there is no box. `scale`: float32, from px of
            the picture, as its annotations say, to px of the image. `image_id`,
            `index`: int64. `readable`: bool; False where it could not be decoded, and
            nothing is on the image.
        """
        index = int(example["index"])
        try:
            image, readable = decode_image(example["image"]), True
        except UnreadableImageError:
            image, readable = np.zeros((1, 1, 3), np.uint8), False
        size = self.split.sizes[index]
        place = Place(fitting(size, self.size_px))
        made = _example(self.split, index, image, place, self.size_px, self.max_boxes)
        extent = np.float32(size * place.scale)
        return made | {"extent": extent, "readable": np.bool_(readable)}


def train_examples(
    split: CocoSplit,
    transform: Jitter,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_threads: int,
    num_workers: int = 0,
    prefetch_batches: int = 2,
    timeout_s: float = 600.0,
    process_index: int = 0,
    process_count: int = 1,
) -> Watched:
    """This process's share of every global batch to learn from, without end.

    Batch k is a function of (split, transform, seed, batch_size, k). Another picture,
    always the same, stands in for one that cannot be read: give every batch to
    `Unreadable(split.source, ...).note`.

    Args:
        split: The pictures; those without boxes are among them.
        transform: Of this split.
        batch_size: Pictures in a global batch, over all processes.
        seed: Of order and transform.
        start_step: Global batches to skip (at no cost).
        num_threads: Threads that decode, in each worker.
        num_workers: Worker processes; 0: threads of this one.
        prefetch_batches: Finished batches kept ahead, in each worker.
        timeout_s: Seconds that a batch may take.
        process_index: This process, in [0, process_count).
        process_count: Processes that share the global batch.

    Returns:
        An endless iterator of batches, `[batch_size / process_count, ...]`, of what
        the transform returns, `valid` (all True) and `asked`; with a `close()`.

    Raises:
        ValueError: If `batch_size` does not divide among the processes.
        UnreadableRecordError, TimeoutError, ChildProcessError: While iterating, as
            `data.loader.train_loader`.
    """
    _tell_beyond(split, transform.max_boxes)
    return train_loader(
        split.source,
        transform,
        batch_size=batch_size,
        seed=seed,
        num_threads=num_threads,
        prefetch_batches=prefetch_batches,
        start_step=start_step,
        process_index=process_index,
        process_count=process_count,
        num_workers=num_workers,
        timeout_s=timeout_s,
        replace_unreadable=True,
    )


def eval_examples(
    split: CocoSplit,
    transform: Letterbox,
    *,
    batch_size: int,
    unreadable: Unreadable,
    num_threads: int,
    prefetch_batches: int = 2,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Every picture once, in order, in batches of one shape.

    Args:
        split: The pictures.
        transform: Of this split.
        batch_size: Pictures in a global batch, over all processes.
        unreadable: Is told which of this process's could not be read.
        num_threads: Threads that decode.
        prefetch_batches: Finished batches kept ahead.
        process_index: This process, in [0, process_count).
        process_count: Processes that share the global batch: process i gets its rows
            i, i + process_count, ...

    Yields:
        What the transform returns, `[batch_size / process_count, ...]`, and `valid`,
        `[batch_size / process_count]` bool: False where the last batch was filled up,
        and where the picture could not be read.

    Raises:
        ValueError: If `batch_size` does not divide among the processes.
        UnreadableRecordError: If too many cannot be read; names one.
    """
    batches = eval_batches(
        _Forgiving(**vars(split.source)),
        transform,
        batch_size=batch_size,
        num_threads=num_threads,
        prefetch_batches=prefetch_batches,
        process_index=process_index,
        process_count=process_count,
    )
    for batch in batches:
        readable = batch.pop("readable")
        unreadable.add(batch["index"][batch["valid"] & ~readable].tolist())
        yield batch | {"valid": batch["valid"] & readable}


def num_beyond(split: CocoSplit, max_boxes: int) -> int:
    """How many boxes are too many for their pictures.

    Args:
        split: The pictures.
        max_boxes: Boxes kept of a picture.

    Returns:
        The number, over whole pictures; crowds do not count.
    """
    kept = np.concatenate([[0], np.cumsum(~split.is_crowd)])
    counts = np.diff(kept[split.starts])
    return int(np.maximum(counts - max_boxes, 0).sum())


def _tell_beyond(split: CocoSplit, max_boxes: int) -> None:
    if beyond := num_beyond(split, max_boxes):
        _logger.warning(
            "Split %r has pictures of more than %d boxes: the smallest %d in all are "
            "not learnt from.",
            *(split.name, max_boxes, beyond),
        )


@dataclasses.dataclass(frozen=True)
class _Forgiving(Source):
    """The same records, with no bytes in place of an image that cannot be read."""

    def __getitem__(self, index: Any) -> dict[str, Any]:
        try:
            return super().__getitem__(index)
        except UnreadableRecordError:
            return {"image": b"", "label": -1, "index": int(index)}


def _example(
    split: CocoSplit,
    index: int,
    image: np.ndarray,
    place: Place,
    size_px: int,
    max_boxes: int,
) -> Batch:
    size = split.sizes[index]
    part = np.minimum(scaled(size, place.scale) - place.corner, size_px)
    canvas = np.zeros((size_px, size_px, 3), np.uint8)
    pixels = resized(image, size, place, part)
    canvas[: part[0], : part[1]] = pixels[:, ::-1] if place.flip else pixels
    rows = np.arange(split.starts[index], split.starts[index + 1])
    rows = rows[~split.is_crowd[rows]]
    boxes, is_seen = moved(split.boxes[rows], size, place, part, size_px)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept = np.argsort(np.where(is_seen, -area, 1), kind="stable")
    kept = kept[: min(max_boxes, is_seen.sum())]
    padded = np.zeros((max_boxes, 4), np.float32)
    padded[: len(kept)] = boxes[kept]
    labels = np.full(max_boxes, -1, np.int32)
    labels[: len(kept)] = split.labels[rows[kept]]
    return {
        "image": canvas,
        "pad": part.astype(np.int32),
        "boxes": padded,
        "labels": labels,
        "scale": np.float32(place.scale),
        "image_id": split.image_ids[index],
        "index": np.int64(index),
        "valid": np.bool_(True),
    }
