"""What detectors find on all pictures of a split."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from ser_jax.data.progress import ProgressLine
from ser_jax.data.unreadable import Unreadable
from ser_jax.evaluate.detection.examples import Letterbox, eval_examples
from ser_jax.evaluate.detection.frozen import Detectors
from ser_jax.evaluate.detection.metrics import coco_detections
from ser_jax.evaluate.detection.split import CocoSplit


class Found(NamedTuple):
    """What was found.

    Attributes:
        split: The pictures that could be read.
        detections: Of each detector, as COCO has them.
        images_per_s: Speed, reading included; None of a single batch, which compiles.
    """

    split: CocoSplit
    detections: list[list[dict[str, Any]]]
    images_per_s: float | None


def find(
    detectors: Detectors,
    params: Any,
    split: CocoSplit,
    *,
    batch_size: int,
    num_threads: int,
    max_bad_frac: float,
) -> Found:
    """Looks for boxes on every picture.

    Args:
        detectors: Whose.
        params: Their parameters, each leaf `[number of detectors, ...]`.
        split: The pictures.
        batch_size: Pictures at a time, over all devices, a multiple of their number;
            fewer, if there are fewer.
        num_threads: Threads that decode.
        max_bad_frac: Share of the pictures that may be unreadable.

    Returns:
        What was found, the same on all processes.

    Raises:
        UnreadableRecordError: If too many cannot be read; names one.
        FloatingPointError: If a box or a score is not finite.
    """
    devices = detectors.mesh.size
    batch_size = min(batch_size, -(-len(split) // devices) * devices)
    batches = eval_examples(
        split,
        Letterbox(split, detectors.size_px),
        batch_size=batch_size,
        unreadable=Unreadable(split.source, max_bad_frac, "--max_bad_frac"),
        num_threads=num_threads,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    line = ProgressLine(
        -(-len(split) // batch_size), every_s=30, is_shown=jax.process_index() == 0
    )
    num_heads = jax.tree.leaves(params)[0].shape[0]
    rows: list[list[dict[str, Any]]] = [[] for _ in range(num_heads)]
    seen: list[int] = []
    started, num_compiled = time.monotonic(), 0
    for number, batch in enumerate(batches, start=1):
        detections, told = jax.device_get(detectors.find(params, batch))
        valid = told["valid"]
        index = told["index"][valid]
        for row, *found in zip(rows, *detections, strict=True):
            boxes, scores, labels = (x[valid] for x in found)
            row += coco_detections(
                boxes,
                scores,
                labels,
                image_ids=split.image_ids[index].tolist(),
                scales=told["scale"][valid],
                sizes=split.sizes[index],
                category_ids=split.categories.ids,
            )
        seen += index.tolist()
        line.update(number, lambda: "looking for boxes")
        if number == 1:
            started, num_compiled = time.monotonic(), len(seen)
    timed, seconds = len(seen) - num_compiled, time.monotonic() - started
    readable = split if len(seen) == len(split) else split.subset(np.sort(seen))
    return Found(readable, rows, timed / seconds if timed else None)
