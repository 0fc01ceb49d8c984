"""Boxes as arithmetic: overlaps, distances to their sides, suppression.

A box is x0, y0, x1, y1 in pixels, x0 <= x1 and y0 <= y1. All of it is float32, and what
is divided by nothing is 0, in value and gradient: boxes without area break nothing.
"""

import jax
import jax.numpy as jnp


def area(boxes: jax.Array) -> jax.Array:
    """Area of boxes.

    Args:
        boxes: `[..., 4]`.

    Returns:
        `[...]`, square pixels, float32.
    """
    sides = boxes[..., 2:].astype(jnp.float32) - boxes[..., :2].astype(jnp.float32)
    return sides[..., 0] * sides[..., 1]


def iou_matrix(first: jax.Array, second: jax.Array) -> jax.Array:
    """Intersection over union of every pair of boxes.

    Args:
        first: `[n, 4]`.
        second: `[m, 4]`.

    Returns:
        `[n, m]` in [0, 1], float32; 0 where neither box has an area.
    """
    intersection, union, _ = _overlap(first[:, None], second[None])
    return _ratio(intersection, union)


def giou_matrix(first: jax.Array, second: jax.Array) -> jax.Array:
    """Generalised IoU of every pair of boxes.

    Args:
        first: `[n, 4]`.
        second: `[m, 4]`.

    Returns:
        `[n, m]` in [-1, 1], float32.

    Reference:
        Rezatofighi et al. (arXiv 1902.09630), Alg. 1.
    """
    return _giou(first[:, None], second[None])


def giou_loss(boxes: jax.Array, targets: jax.Array) -> jax.Array:
    """1 - generalised IoU of paired boxes.

    Args:
        boxes: `[..., 4]`.
        targets: `[..., 4]`.

    Returns:
        `[...]` in [0, 2], float32.
    """
    return 1 - _giou(boxes, targets)


def centerness(distances: jax.Array) -> jax.Array:
    """How near to a box's centre a location is.

    Args:
        distances: Left, top, right, bottom: from the location to the box's sides,
            `[..., 4]`.

    Returns:
        1 at the centre, 0 on the sides and outside, `[...]`, float32.

    Reference:
        FCOS (arXiv 1904.01355), Eq. 3.
    """
    distances = distances.astype(jnp.float32)
    one, other = distances[..., :2], distances[..., 2:]
    near, far = jnp.minimum(one, other), jnp.maximum(one, other)
    ratios = _ratio(jnp.maximum(near, 0.0), far)  # [..., 2]
    product = ratios[..., 0] * ratios[..., 1]
    inside = product > 0
    return jnp.where(inside, jnp.sqrt(jnp.where(inside, product, 1.0)), 0.0)


def to_distances(locations: jax.Array, boxes: jax.Array) -> jax.Array:
    """Distances from locations to the sides of boxes.

    Args:
        locations: x and y, `[..., 2]`.
        boxes: `[..., 4]`, of the same rank.

    Returns:
        Left, top, right, bottom, `[..., 4]`, float32; all positive inside the box.
    """
    locations, boxes = locations.astype(jnp.float32), boxes.astype(jnp.float32)
    return jnp.concatenate(
        [locations - boxes[..., :2], boxes[..., 2:] - locations], axis=-1
    )


def to_boxes(locations: jax.Array, distances: jax.Array) -> jax.Array:
    """Boxes around locations, the inverse of `to_distances`.

    Args:
        locations: x and y, `[..., 2]`.
        distances: Left, top, right, bottom, `[..., 4]`, of the same rank.

    Returns:
        `[..., 4]`, float32.
    """
    locations, distances = locations.astype(jnp.float32), distances.astype(jnp.float32)
    return jnp.concatenate(
        [locations - distances[..., :2], locations + distances[..., 2:]], axis=-1
    )


def nms(
    boxes: jax.Array, scores: jax.Array, classes: jax.Array, iou_threshold: float
) -> jax.Array:
    """Greedy suppression: of boxes of a class that overlap, the best one stays.

    Boxes are taken by falling score, equal ones in their order, and each is kept if it
    overlaps no kept one by more than the threshold. That decision is a recursion along
    the order with one fixed point, which is found by repeating it for all boxes at
    once: as often as the longest chain of boxes that hang on each other, where a loop
    over boxes would take k steps.

    Args:
        boxes: `[k, 4]`.
        scores: `[k]`.
        classes: `[k]`, int.
        iou_threshold: Largest IoU at which both of two boxes are kept.

    Returns:
        Which are kept, `[k]`, bool.
    """
    k = scores.shape[0]
    order = jnp.argsort(-scores, stable=True)
    boxes, classes = boxes[order], classes[order]
    position = jnp.arange(k)
    beats = (
        (iou_matrix(boxes, boxes) > iou_threshold)
        & (classes[:, None] == classes[None])
        & (position[:, None] < position[None])
    )  # [k, k]: row suppresses column, if it is kept itself

    def decide(state):
        keep, _ = state
        again = ~jnp.any(beats & keep[:, None], axis=0)
        return again, jnp.any(again != keep)

    start = jnp.ones(k, bool), jnp.array(True)
    keep, _ = jax.lax.while_loop(lambda state: state[1], decide, start)
    return jnp.zeros(k, bool).at[order].set(keep)


def _overlap(
    first: jax.Array, second: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Area of the intersection, of the union, and of the smallest box around both."""
    first, second = first.astype(jnp.float32), second.astype(jnp.float32)
    low = jnp.maximum(first[..., :2], second[..., :2])
    sides = jnp.minimum(first[..., 2:], second[..., 2:]) - low
    meet = jnp.all(sides > 0, axis=-1)
    intersection = jnp.where(meet, sides[..., 0] * sides[..., 1], 0.0)
    union = area(first) + area(second) - intersection
    low = jnp.minimum(first[..., :2], second[..., :2])
    sides = jnp.maximum(first[..., 2:], second[..., 2:]) - low
    return intersection, union, sides[..., 0] * sides[..., 1]


def _giou(first: jax.Array, second: jax.Array) -> jax.Array:
    intersection, union, around = _overlap(first, second)
    return _ratio(intersection, union) - _ratio(around - union, around)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """One over the other; 0 where there is no whole."""
    there = whole > 0
    return jnp.where(there, part / jnp.where(there, whole, 1.0), 0.0)
