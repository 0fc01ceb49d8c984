"""Overlaps, centerness and suppression: reference data, loops, and boxes of nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.evaluate.detection.boxes import (
    area,
    centerness,
    giou_loss,
    giou_matrix,
    iou_matrix,
    nms,
    to_boxes,
    to_distances,
)

RNG = np.random.default_rng(0)
POINT, LINE, SQUARE = [3, 3, 3, 3], [3, 0, 3, 9], [0, 0, 4, 4]
FAR, TOUCHING, NOWHERE = [50, 50, 60, 60], [4, 0, 8, 4], [0, 0, 0, 0]
ODD = np.array([POINT, LINE, SQUARE, FAR, TOUCHING, NOWHERE], np.float32)


def random_boxes(n, size=40, rng=RNG):
    corner, sides = rng.uniform(0, size, (n, 2)), rng.uniform(1, size / 2, (n, 2))
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def iou_of(a, b):
    """Of two boxes, in float64; and the generalised one."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = max(width, 0) * max(height, 0)
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both
    around = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
    iou = both / union if union else 0.0
    return iou, iou - (around - union) / around if around else iou


def nms_loop(boxes, scores, classes, threshold):
    """What `nms` is to keep, one box after the other."""
    keep = np.zeros(len(boxes), bool)
    for i in np.argsort(-scores, kind="stable"):
        rivals = np.flatnonzero(keep & (classes == classes[i]))
        keep[i] = all(iou_of(boxes[i], boxes[j])[0] <= threshold for j in rivals)
    return keep


@pytest.mark.parity
def test_overlaps_are_the_reference(golden):
    data = golden("detection")
    boxes, targets = data["giou/pred_xyxy"], data["giou/target_xyxy"]
    assert_close(iou_matrix(boxes, targets), data["iou/matrix"], 1e-6, 1e-6)
    assert_close(giou_matrix(boxes, targets), data["giou/matrix"], 1e-6, 1e-6)
    loss, grads = jax.vmap(jax.value_and_grad(giou_loss))(boxes, targets)
    assert_close(loss, data["giou/loss"], 1e-6, 1e-6)
    assert_close(grads, data["giou/grad"], 1e-5, 1e-7)


@pytest.mark.parity
def test_centerness_is_the_reference(golden):
    data = golden("detection").group("centerness/")
    distances = to_distances(data["location_xy"], data["target_xyxy"])
    assert_close(distances, data["ltrb"], 1e-6)
    assert_close(centerness(distances), data["value"], 1e-6, 1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_suppression_is_the_reference(golden, threshold):
    data = golden("detection").group("nms/")
    keep = jax.jit(nms)(data["boxes"], data["scores"], data["classes"], threshold)
    kept = np.flatnonzero(keep)
    by_score = kept[np.argsort(-data["scores"][kept], kind="stable")]
    np.testing.assert_array_equal(by_score, data[f"keep_{threshold}"])


def test_overlaps_are_those_of_loops():
    first, second = random_boxes(7), random_boxes(5)
    expected = np.array([[iou_of(a, b) for b in second] for a in first])
    assert_close(iou_matrix(first, second), expected[..., 0])
    assert_close(giou_matrix(first, second), expected[..., 1])


def test_boxes_of_nothing_give_numbers_and_gradients():
    """Red if an area of 0 is divided by, or the square root of 0 has a gradient."""
    first, second = np.repeat(ODD, len(ODD), 0), np.tile(ODD, (len(ODD), 1))
    expected = [[iou_of(a, b) for b in ODD] for a in ODD]
    assert_close(iou_matrix(ODD, ODD), np.array(expected)[..., 0])
    assert_close(giou_matrix(ODD, ODD), np.array(expected)[..., 1])

    def total(first, second):
        return jnp.sum(giou_loss(first, second)) + jnp.sum(iou_matrix(first, second))

    for grads in jax.jit(jax.grad(total, (0, 1)))(first, second):
        assert np.all(np.isfinite(grads)) and np.any(grads)
    assert giou_loss(ODD[2], ODD[2]) == 0 and giou_loss(ODD[2], ODD[3]) > 1

    distances = np.array(
        [
            [0, 0, 0, 0],
            [1, 1, 1, 1],
            [0, 2, 3, 2],
            [-1, 1, 5, 1],
            [-1, 2, -1, 2],
            [-1, -1, 5, 3],
        ]
    ).astype(np.float32)
    np.testing.assert_array_equal(centerness(distances), [0, 1, 0, 0, 0, 0])
    assert np.all(np.isfinite(jax.grad(lambda d: jnp.sum(centerness(d)))(distances)))


def test_distances_and_back():
    boxes, locations = random_boxes(9), RNG.uniform(0, 40, (9, 2)).astype(np.float32)
    distances = to_distances(locations, boxes)
    assert_close(to_boxes(locations, distances), boxes, 1e-6)
    assert_close(
        to_boxes(locations, distances)[:, 2] - boxes[:, 0],
        np.ptp(boxes[:, ::2], axis=1),
    )
    assert_close(area(boxes), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))


@pytest.mark.parametrize("seed", range(6))
def test_suppression_is_that_of_a_loop(seed):
    """Crowded boxes of few classes, with ties: chains of boxes that hang together."""
    rng = np.random.default_rng(seed)
    k, threshold = 60, (0.2, 0.5, 0.6)[seed % 3]
    boxes = random_boxes(12, 12, rng)[rng.integers(0, 12, k)]
    boxes += rng.uniform(0, 0.5, (k, 4)).astype(np.float32)
    scores = rng.integers(0, 30, k).astype(np.float32)
    classes = rng.integers(0, 1 + seed // 2, k)
    expected = nms_loop(boxes, scores, classes, threshold)
    assert 0 < expected.sum() < k
    np.testing.assert_array_equal(
        jax.jit(nms)(boxes, scores, classes, threshold), expected
    )


def test_suppression_along_a_chain_and_of_equals():
    """Each box beats the next alone: every other one stays."""
    start = np.arange(12, dtype=np.float32)
    chain = np.stack([start, 0 * start, start + 3, 0 * start + 1], axis=1)
    scores, one_class = -start, np.zeros(12, int)
    jitted = jax.jit(nms)
    keep = jitted(chain, scores, one_class, 0.4)
    np.testing.assert_array_equal(keep, np.arange(12) % 2 == 0)
    assert np.all(jitted(chain, scores, np.arange(12), 0.4))
    same = np.tile(chain[:1], (12, 1))
    keep = jitted(same, 0 * scores, one_class, 0.4)
    np.testing.assert_array_equal(keep, np.arange(12) == 0)
    assert np.all(jitted(0 * chain, scores, one_class, 0.4))


def test_suppression_of_many_pictures_at_once():
    boxes = np.stack([random_boxes(20, 10), random_boxes(20, 400)])
    scores, classes = RNG.uniform(size=(2, 20)), np.zeros((2, 20), int)
    keep = jax.vmap(nms, (0, 0, 0, None))(boxes, scores, classes, 0.3)
    for i in range(2):
        expected = nms_loop(boxes[i], scores[i], classes[i], 0.3)
        np.testing.assert_array_equal(keep[i], expected)
