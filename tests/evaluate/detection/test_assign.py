"""Which box a location is to find: against a loop, and the classification's loss."""

import jax
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.evaluate.detection.assign import assign, make_locations
from ser_jax.evaluate.detection.boxes import to_boxes


def assign_loop(size, strides, factor, boxes, labels):
    """For each location by falling fineness: its class and box, or -1 and None."""
    found = []
    for level, stride in enumerate(strides):
        least = -1 if level == 0 else factor * strides[level - 1]
        below = np.inf if stride == strides[-1] else factor * stride
        for row in range(-(-size // stride)):
            for column in range(-(-size // stride)):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                best, best_area = (-1, None), np.inf
                for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
                    sides = x - x0, y - y0, x1 - x, y1 - y
                    away = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2))
                    if label < 0 or min(sides) <= 0 or away >= 1.5 * stride:
                        continue
                    if not least <= max(sides) < below:
                        continue
                    if (x1 - x0) * (y1 - y0) < best_area:
                        best_area = (x1 - x0) * (y1 - y0)
                        best = label, (x0, y0, x1, y1)
                found.append(best)
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "size, strides, factor", [(128, (8, 16, 32, 64), 4.0), (70, (7, 14, 28), 2.0)]
)
def test_assignment_is_that_of_a_loop(seed, size, strides, factor):
    """Nested, equal, flat and absent boxes; red if a box is not what is decoded."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, size // 2, (30, 2))
    sides = rng.integers(0, size // 2, (30, 2)) // rng.integers(1, 8, (30, 1))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    boxes[1] = boxes[0]
    labels = rng.integers(-1, 5, 30)
    locations = make_locations(size, strides, factor)
    found, distances = jax.jit(assign)(locations, boxes, labels)
    expected = assign_loop(size, strides, factor, boxes, labels)
    assert len(expected) == len(locations.xy)
    np.testing.assert_array_equal(found, [label for label, _ in expected])
    there = np.asarray(found) >= 0
    assert 10 < there.sum() < len(there) and len(set(locations.strides[there])) > 1
    decoded = to_boxes(locations.xy[there], distances[there])
    np.testing.assert_array_equal(decoded, [box for _, box in expected if box])
    assert not np.any(distances[~there])


def test_an_odd_box_is_the_box_that_is_decoded():
    locations = make_locations(64, (8, 16))
    box = np.array([[3.3, 7.7, 20.1, 31.9]], np.float32)
    found, distances = assign(locations, box, np.array([4]))
    there = np.asarray(found) == 4
    decoded = np.asarray(to_boxes(locations.xy, distances))[there]
    assert there.any()
    assert_close(decoded, np.tile(box, (there.sum(), 1)), 1e-6)


def test_a_level_finds_boxes_of_its_range():
    """Squares around one cell's centre: their sides are half a square away."""
    locations = make_locations(512, (8, 16, 32, 64))
    jitted = jax.jit(assign)
    for stride, halves in ((8, (1, 31.9)), (16, (32, 63.9)), (64, (128, 200))):
        centre = 3.5 * stride + 200 // stride * stride
        at = np.all(locations.xy == centre, axis=1) & (locations.strides == stride)
        for half in (*halves, halves[0] - 0.1, halves[1] + 0.1):
            box = np.array([[centre - half, centre + half]], np.float32)[
                :, [0, 0, 1, 1]
            ]
            found, _ = jitted(locations, box, np.zeros(1, int))
            expected = half in halves or (stride, half) in ((8, 0.9), (64, 200.1))
            assert (found[at.argmax()] == 0) == expected, (stride, half)


def test_no_boxes():
    locations = make_locations(64, (8, 16))
    for boxes in (np.zeros((3, 4)), np.full((3, 4), 20), np.array([[0, 0, 64, 64]])):
        found, distances = assign(locations, boxes, np.full(len(boxes), -1))
        assert np.all(np.asarray(found) == -1) and not np.any(distances)
    flat = np.array([[0, 12, 64, 12], [20, 20, 20, 20]], np.float32)
    found, distances = assign(locations, flat, np.zeros(2, int))
    assert np.all(np.asarray(found) == -1) and not np.any(distances)


def test_locations_of_the_usual_sizes():
    strides = (8, 16, 32, 64)
    for size, count in ((256, 1360), (512, 5440)):
        assert len(make_locations(size, strides).xy) == count
    assert len(make_locations(640, (*strides, 128)).xy) == 8525
    ends = make_locations(64, strides)
    np.testing.assert_array_equal(
        ends.xy[[0, 1, 8, -1]], [[4, 4], [12, 4], [4, 12], [32, 32]]
    )
    assert ends.below[-1] == np.inf and ends.least[0] == -1
