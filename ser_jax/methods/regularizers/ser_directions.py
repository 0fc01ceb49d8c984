"""Both directions of SER's pairs of views: queries where they are, keys everywhere.

Every query meets the keys of all images, which are few: they are gathered once, as unit
vectors in the encoder's compute dtype. No other token leaves its device.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.geometry.action import act_on_grid
from ser_jax.geometry.group import Element, relative
from ser_jax.methods.encode import interleave
from ser_jax.models.normalize import l2_normalize
from ser_jax.models.outputs import TokenGrid
from ser_jax.models.placement import by_rows, everywhere, padded
from ser_jax.views.view import View


class Direction(NamedTuple):
    """Tokens of one view against those of another, moved; see `against_all`.

    Attributes:
        queries: Student tokens of the view, `[r, n, d]`, float32, unit vectors.
        positives: The key of each, `[r, n, d]`.
        valid: Which count, `[r, n]`, bool.
        images: The image of each row, `[r]`, int32.
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
    one = _spread if any(view.spread for view in views.values()) else _plain
    return one(student, target, views, pairs, kernel, same_view)


def _plain(student, target, views, pairs, kernel, same_view):
    """Views of an image are on one device, each view an array."""
    found = []
    for source, destination in pairs:
        queries, own = student[destination], target[destination]
        element = relative(views[destination].element, views[source].element)
        keys = [_moved(target[source], element, views[source], kernel)]
        active = views[destination].active[:, None]  # [b, 1]
        valid = [queries.valid & active]
        if same_view:
            keys.append(l2_normalize(own.tokens))
            valid.append(own.valid & active)
        keys = [x.astype(own.dtype) for x in keys]
        found.append(
            Direction(
                l2_normalize(queries.tokens),
                keys[0],
                valid[0],
                jnp.arange(active.shape[0]),
                everywhere(jnp.concatenate(keys, axis=1)),
                everywhere(jnp.concatenate(valid, axis=1)),
            )
        )
    return found


def _spread(student, target, views, pairs, kernel, same_view):
    """Views of an image are rows of one array, on any devices (`View.spread`)."""

    @functools.cache  # once for all views that are encoded together
    def gathered(names: tuple[str, ...]) -> jax.Array:
        """Target tokens of every row, moved to the other view of its pair; unmoved."""
        grid, view = target[names[0]], views[names[0]]
        own = [views[name].element for name in names]
        other = [own[i ^ 1] for i in range(len(own))]
        own, other = (
            jax.tree.map(lambda *x: interleave(x), *of) for of in (own, other)
        )
        element = jax.tree.map(
            lambda x: padded(x, grid.valid.shape[0]), relative(other, own)
        )
        keys = [_moved(grid, element, view, kernel)]
        if same_view:
            keys.append(l2_normalize(grid.tokens))
        rows = jnp.concatenate(keys, axis=1).astype(grid.dtype)
        return everywhere(rows, view.num_images * view.spread)

    found = []
    for source, destination in pairs:
        view, grid = views[destination], student[destination]
        num_rows, num_slots = grid.valid.shape
        row = np.arange(num_rows)
        images = row // view.spread
        is_its = (row % view.spread == view.number) & (images < view.num_images)
        last = view.num_images * view.spread - 1  # rows after it are padding
        images, partner = (
            np.minimum(images, view.num_images - 1),
            np.minimum(row ^ 1, last),
        )
        bank = gathered(
            tuple(n for n in views if views[n].images.shape == view.images.shape)
        )
        keys = [bank[views[source].rows, :num_slots]]
        if same_view:
            keys.append(bank[view.rows, num_slots:])
        active = everywhere(view.active)[images] & is_its  # [r]
        valid = grid.valid & active[:, None]
        key_valid = everywhere(valid, last + 1)[view.rows]
        found.append(
            Direction(
                l2_normalize(grid.tokens),
                by_rows(bank[partner, :num_slots]),
                valid,
                jnp.asarray(images),
                jnp.concatenate(keys, axis=1),
                jnp.concatenate([key_valid] * len(keys), axis=1),
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
