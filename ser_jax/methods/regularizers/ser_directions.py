"""Both directions of SER's pairs of views: queries where they are, keys everywhere.

Every query meets the keys of all images, which are few: they are gathered once, as unit
vectors in the encoder's compute dtype. No other token leaves its device.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.geometry.action import act_on_grid
from ser_jax.geometry.group import Element, relative
from ser_jax.models.normalize import l2_normalize
from ser_jax.models.outputs import TokenGrid
from ser_jax.models.placement import everywhere
from ser_jax.views.view import View


class Direction(NamedTuple):
    """Tokens of one view against those of another, moved; see `against_all`.

    Attributes:
        queries: Student tokens of the view, `[r, n, d]`, float32, unit vectors.
        positives: The key of each, `[r, n, d]`.
        valid: Which count, `[r, n]`, bool.
        images: Which image of b2 each row is, `[r]`, int32; -1 for none.
        keys: Keys of each image, `[b, m, d]`.
        key_valid: Which count, `[b, m]`, bool.
    """

    queries: jax.Array
    positives: jax.Array
    valid: jax.Array
    images: jax.Array
    keys: jax.Array
    key_valid: jax.Array


def directions(
    student: Mapping[str, TokenGrid],
    target: Mapping[str, TokenGrid],
    views: Mapping[str, View],
    pairs: Sequence[tuple[str, str]],
    *,
    kernel: str,
    same_view: bool,
) -> list[Direction]:
    """What each direction compares.

    Args:
        student: View name -> projected grid.
        target: The same of the target network.
        views: The geometric views.
        pairs: (source, destination): the source's target tokens are moved.
        kernel: How rho_g interpolates.
        same_view: Whether the destination's own target tokens are keys too.

    Returns:
        A direction for each pair.
    """
    found = []
    for source, destination in pairs:
        queries, own = student[destination], target[destination]
        here, there = views[destination], views[source]
        assert here.element and there.element and here.cut and here.active is not None
        element = relative(here.element, there.element)
        keys = [_moved(target[source], element, there, kernel)]
        valid = [queries.valid & here.active[:, None]]
        if same_view:
            keys.append(l2_normalize(own.tokens))
            valid.append(own.valid & here.active[:, None])
        keys = [x.astype(own.dtype) for x in keys]
        images = here.cut.images
        rows = tuple(int(x) for x in np.flatnonzero(images >= 0))
        found.append(
            Direction(
                l2_normalize(queries.tokens),
                keys[0],
                valid[0],
                jnp.asarray(images),
                everywhere(jnp.concatenate(keys, axis=1), rows),
                everywhere(jnp.concatenate(valid, axis=1), rows),
            )
        )
    return found


def _moved(grid: TokenGrid, element: Element, view: View, kernel: str) -> jax.Array:
    """rho_g of a grid, unit vectors, `[b, n, d]`."""
    assert view.group is not None
    moved = act_on_grid(
        grid.tokens,
        grid.grid_shape,
        Element(element.d4, element.grid_shape * grid.scale),
        max_side=view.group.max_side * grid.scale,
        kernel=kernel,
    )
    return l2_normalize(moved)
