"""Locations on a pyramid of maps, and which box each of them is to find."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.detection.boxes import area, to_distances

_RADIUS = 1.5  # in strides: how far from a box's centre locations may find it


class Locations(NamedTuple):
    """Centres of the cells of all levels, finest level first, row-major, float32.

    Attributes:
        xy: In pixels of the picture, `[n, 2]`.
        strides: Pixels a side of the cell, `[n]`.
        least: A box is found here if its farthest side is at least so far, `[n]`.
        below: And nearer than this, `[n]`; infinite on the coarsest level.
    """

    xy: np.ndarray
    strides: np.ndarray
    least: np.ndarray
    below: np.ndarray


def make_locations(
    size: int, strides: Sequence[int], range_factor: float = 4.0
) -> Locations:
    """Locations of square pictures.

    Args:
        size: Pixels a side of the pictures.
        strides: Of the levels, rising.
        range_factor: A level finds boxes whose farthest side, from the location, is
            less than so many strides away, and that the level before does not find.

    Returns:
        The locations.

    Reference:
        FCOS (arXiv 1904.01355), Sec. 3.2, where the factor is 8, for pictures of 800
        pixels.
    """
    parts = []
    bounds = [-1.0, *(range_factor * stride for stride in strides[:-1]), np.inf]
    for stride, least, below in zip(strides, bounds[:-1], bounds[1:], strict=True):
        centres = (np.arange(-(-size // stride)) + 0.5) * stride
        y, x = (axis.ravel() for axis in np.meshgrid(centres, centres, indexing="ij"))
        row = [np.full_like(x, value) for value in (stride, least, below)]
        parts.append((np.stack([x, y], axis=1), *row))
    joined = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Locations(*(array.astype(np.float32) for array in joined))


def assign(
    locations: Locations, boxes: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What each location of a picture is to find.

    A box is for the locations inside it that are within 1.5 strides of its centre along
    both axes, on the level whose range holds the distance to its farthest side. Of
    several boxes a location takes the smallest, of equal ones the first.

    Args:
        locations: n locations.
        boxes: `[m, 4]`, x0 y0 x1 y1 in pixels.
        labels: Class of each box, `[m]`, int; -1 where there is none.

    Returns:
        Class, `[n]`, int32, -1 for none; distances to the sides of its box, `[n, 4]`,
        float32, 0 for none.

    Reference:
        FCOS (arXiv 1904.01355), Sec. 3.2, and the sampling around centres of its
        journal version (arXiv 2006.09214).
    """
    xy, strides, least, below = (jnp.asarray(part) for part in locations)
    boxes = boxes.astype(jnp.float32)
    x, y = xy[:, :1], xy[:, 1:]  # [n, 1]
    x0, y0, x1, y1 = boxes.T[:, None]  # [1, m] each
    # Side by side, not stacked: the compiler keeps none of these [n, m].
    sides = x - x0, y - y0, x1 - x, y1 - y
    farthest = functools.reduce(jnp.maximum, sides)
    off_centre = jnp.maximum(jnp.abs(x - (x0 + x1) / 2), jnp.abs(y - (y0 + y1) / 2))
    candidate = (
        (labels >= 0)[None]
        & (functools.reduce(jnp.minimum, sides) > 0)
        & (off_centre < _RADIUS * strides[:, None])
        & (farthest >= least[:, None])
        & (farthest < below[:, None])
    )
    cost = jnp.where(candidate, area(boxes)[None], jnp.inf)
    best = jnp.argmin(cost, axis=1)  # [n]
    found = jnp.any(candidate, axis=1)
    chosen = to_distances(xy, boxes[best])
    return (
        jnp.where(found, labels[best], -1).astype(jnp.int32),
        jnp.where(found[:, None], chosen, 0.0),
    )
