"""From a detector's outputs to the boxes that are counted."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ser_jax.evaluate.detection.assign import Locations
from ser_jax.evaluate.detection.boxes import area, nms, to_boxes
from ser_jax.evaluate.detection.head import Outputs
from ser_jax.models.placement import by_device


class Detections(NamedTuple):
    """Boxes found in pictures, best first.

    Attributes:
        boxes: `[b, k, 4]`, x0 y0 x1 y1 in pixels of the input, float32; 0 where there
            is none.
        scores: `[b, k]` in [0, 1], float32; 0 where there is none.
        labels: Classes, `[b, k]`, int32; -1 where there is none.
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How boxes are chosen.

    Attributes:
        min_score: Score that a box must exceed, >= 0.
        max_candidates: Pairs of location and class that are looked at, the best ones.
        iou_threshold: Largest IoU at which both of two boxes of a class are kept.
        max_detections: Boxes of a picture, k: COCO counts 100.
    """

    min_score: float = 0.001
    max_candidates: int = 1000
    iou_threshold: float = 0.6
    max_detections: int = 100


def predict(
    outputs: Outputs,
    locations: Locations,
    extent: jax.Array,
    decoding: Decoding = Decoding(),
) -> Detections:
    """Boxes of pictures.

    Within a mesh (`jax.set_mesh`) each device sees to its own.

    Args:
        outputs: Of the detector, on b pictures; a multiple of the devices.
        locations: n locations.
        extent: Height and width of what is picture, from the top left corner, `[b, 2]`,
            pixels: boxes end there, and what is outside is none.
        decoding: How they are chosen.

    Returns:
        The boxes. The score is the geometric mean of the probabilities of class and
        centerness.

    Reference:
        FCOS (arXiv 1904.01355), Sec. 3.3; the square root: arXiv 2006.09214.
    """

    def of_one(outputs: Outputs, extent: jax.Array) -> Detections:
        log_class = jax.nn.log_sigmoid(outputs.logits.astype(jnp.float32))
        log_central = jax.nn.log_sigmoid(outputs.centerness.astype(jnp.float32))
        scores = jnp.exp((log_class + log_central[:, None]) / 2)  # [n, c]
        num_classes = scores.shape[1]
        count = min(decoding.max_candidates, scores.size)
        scores, index = jax.lax.top_k(scores.reshape(-1), count)
        at, labels = index // num_classes, index % num_classes
        boxes = to_boxes(jnp.asarray(locations.xy)[at], outputs.distances[at])
        height, width = extent.astype(jnp.float32)
        most = jnp.stack([width, height, width, height])[None]
        boxes = jnp.clip(boxes, 0.0, most)
        scores = jnp.where(area(boxes) > 0, scores, 0.0)
        kept = nms(boxes, scores, labels, decoding.iou_threshold)
        kept &= scores > decoding.min_score
        return _best(decoding.max_detections, boxes, labels, scores * kept)

    # The compiler alone would gather all scores on every device to sort them.
    return by_device(lambda _, rows: jax.vmap(of_one)(*rows), (), (outputs, extent))


def _best(
    count: int, boxes: jax.Array, labels: jax.Array, scores: jax.Array
) -> Detections:
    """The `count` best of a picture's boxes, filled up with none."""
    few = max(0, count - len(scores))
    scores, best = jax.lax.top_k(jnp.pad(scores, (0, few)), count)
    there = scores > 0
    boxes = jnp.pad(boxes, ((0, few), (0, 0)))[best]
    labels = jnp.pad(labels, (0, few))[best]
    return Detections(
        jnp.where(there[:, None], boxes, 0.0),
        scores,
        jnp.where(there, labels, -1).astype(jnp.int32),
    )
