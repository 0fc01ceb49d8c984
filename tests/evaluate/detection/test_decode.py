"""Boxes of a detector's outputs: against a loop, and with next to nothing to find."""

import functools

import jax
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.evaluate.detection.assign import assign, make_locations
from ser_jax.evaluate.detection.decode import Decoding, predict
from ser_jax.evaluate.detection.head import Outputs
from ser_jax.train.sharding import batch_sharded, make_mesh

SIZE, CLASSES = 64, 3
LOCATIONS = make_locations(SIZE, (8, 16))
N = len(LOCATIONS.xy)
WHOLE = np.full((2, 2), SIZE)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def random_outputs(b=2, seed=0, spread=30):
    rng = np.random.default_rng(seed)
    shapes = (b, N, CLASSES), (b, N, 4), (b, N)
    logits, distances, central = (rng.normal(size=shape) for shape in shapes)
    distances = spread * np.exp(distances / 2)
    arrays = 3 * logits, distances, central
    return Outputs(*(array.astype(np.float32) for array in arrays))


def iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = np.prod(np.maximum(high - low, 0))
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def predict_loop(logits, distances, central, extent, decoding):
    """(score, class, box) of one picture, best first."""
    height, width = extent
    found = []
    for i, (x, y) in enumerate(LOCATIONS.xy):
        left, top, right, bottom = np.asarray(distances[i], np.float64)
        box = np.array([x - left, y - top, x + right, y + bottom])
        box = np.clip(box, 0, [width, height, width, height])
        for c in range(CLASSES):
            score = np.sqrt(sigmoid(logits[i, c]) * sigmoid(central[i]))
            found.append((score, c, box))
    found.sort(key=lambda f: -f[0])
    kept = []
    for score, c, box in found[: decoding.max_candidates]:
        if score <= decoding.min_score or not np.prod(box[2:] - box[:2]):
            continue
        rivals = (other for _, k, other in kept if k == c)
        if all(iou(box, other) <= decoding.iou_threshold for other in rivals):
            kept.append((score, c, box))
    return kept[: decoding.max_detections]


@pytest.mark.parametrize(
    "decoding, spread",
    [
        (Decoding(), 30),
        (Decoding(0.3, 90, 0.5, 40), 30),
        (Decoding(0.5, 400, 0.3, 7), 10),
    ],
)
def test_detections_are_those_of_a_loop(decoding, spread):
    outputs = random_outputs(spread=spread)
    extent = np.array([[64, 64], [40, 56]])
    run = jax.jit(functools.partial(predict, decoding=decoding))
    found = run(outputs, LOCATIONS, extent)
    k = decoding.max_detections
    assert found.boxes.shape == (2, k, 4) and found.labels.dtype == np.int32
    for p in range(2):
        arrays = outputs.logits[p], outputs.distances[p], outputs.centerness[p]
        expected = predict_loop(*arrays, extent[p], decoding)
        count = len(expected)
        assert 0 < count <= k
        scores, labels, boxes = (np.array(part) for part in zip(*expected, strict=True))
        assert_close(found.scores[p, :count], scores, 1e-5)
        np.testing.assert_array_equal(found.labels[p, :count], labels)
        assert_close(found.boxes[p, :count], boxes, 1e-5)
        assert not np.any(found.scores[p, count:]) and not np.any(
            found.boxes[p, count:]
        )
        assert np.all(found.labels[p, count:] == -1)


def test_what_is_assigned_is_what_is_found():
    """Red if targets and predictions speak of distances or places in another way."""
    boxes = np.array([[4, 4, 20, 28], [30, 20, 61, 61]], np.float32)
    labels = np.array([2, 0])
    targets, distances = assign(LOCATIONS, boxes, labels)
    logits = np.where(np.asarray(targets)[:, None] == np.arange(CLASSES), 9.0, -30.0)
    outputs = Outputs(logits[None], distances[None], np.full((1, N), 9.0))
    found = predict(outputs, LOCATIONS, WHOLE[:1])
    best = np.argsort(found.labels[0, :2])[::-1]
    np.testing.assert_array_equal(found.labels[0, :3][best], labels)
    np.testing.assert_array_equal(found.boxes[0, :2][best], boxes)
    assert not np.any(found.scores[0, 2:])


def test_few_locations_fill_up_with_none():
    """Fewer pairs of location and class than detections are to be given."""
    locations = make_locations(16, (8, 16))
    outputs = random_outputs()
    few = jax.tree.map(lambda x: x[:, : len(locations.xy)], outputs)
    found = jax.jit(predict)(few, locations, np.full((2, 2), 16))
    assert found.scores.shape == (2, 100)
    assert 0 < np.sum(np.asarray(found.scores[0]) > 0) <= 5 * CLASSES
    assert np.all((np.asarray(found.labels) == -1) == (np.asarray(found.scores) == 0))


def test_nothing_to_find():
    """No picture at all, logits out of reach, boxes without area: none, and finite."""
    outputs = random_outputs()
    run = jax.jit(predict)
    hopeless = outputs.replace(logits=0 * outputs.logits - 1e4)
    flat = outputs.replace(distances=0 * outputs.distances)
    for what, extent in ((outputs, 0 * WHOLE), (hopeless, WHOLE), (flat, WHOLE)):
        found = run(what, LOCATIONS, extent)
        assert not np.any(found.scores) and not np.any(found.boxes)
        assert np.all(np.asarray(found.labels) == -1)


def test_equal_scores():
    """All at one place, all alike: one of each class."""
    outputs = jax.tree.map(np.zeros_like, random_outputs())
    distances = np.stack([*LOCATIONS.xy.T, *(SIZE - LOCATIONS.xy.T)], axis=1)
    outputs = outputs.replace(distances=np.stack([distances] * 2))
    found = jax.jit(predict)(outputs, LOCATIONS, WHOLE)
    assert_close(found.scores[0, :4], np.array([0.5, 0.5, 0.5, 0.0]))
    assert set(np.asarray(found.labels[0, :3])) == {0, 1, 2}
    np.testing.assert_array_equal(found.boxes[0, 0], [0, 0, SIZE, SIZE])


@pytest.mark.slow
def test_eight_devices_find_what_one_finds():
    """Red if scores are gathered on every device to be sorted."""
    outputs, extent = random_outputs(8), np.full((8, 2), SIZE)
    alone = jax.jit(predict)(outputs, LOCATIONS, extent)
    run = jax.jit(lambda outputs, extent: predict(outputs, LOCATIONS, extent))
    with jax.set_mesh(mesh := make_mesh()):
        rows = jax.device_put((outputs, extent), batch_sharded(mesh))
        compiled = run.lower(*rows).compile()
        jax.tree.map(assert_close, compiled(*rows), alone)
    assert "all-gather" not in compiled.as_text()
