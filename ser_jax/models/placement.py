"""Rows of a batch on the devices, where the compiler has to be told.

What is computed for each image alone is split over all devices by itself. A kernel is
one device's program: it runs on each device's own rows. Outside of a mesh
(`jax.set_mesh`) all of this moves nothing.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec


def _mesh() -> jax.sharding.AbstractMesh | None:
    """The mesh; None outside of one, and where a device is by itself (`by_device`)."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.manual_axes else mesh


def num_devices() -> int:
    """Devices that a batch is spread over; 1 outside of a mesh."""
    mesh = _mesh()
    return 1 if mesh is None else mesh.size


def by_rows(x: jax.Array) -> jax.Array:
    """The same array, its rows spread over the devices.

    Args:
        x: `[b, ...]`.

    Returns:
        `x`; where it is if the devices do not divide b.
    """
    mesh = _mesh()
    if mesh is None or x.shape[0] % mesh.size:
        return x
    rows = PartitionSpec(mesh.axis_names)
    return jax.lax.with_sharding_constraint(x, rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def everywhere(x: jax.Array, rows: tuple[int, ...] | None = None) -> jax.Array:
    """The same array, whole on every device: gathered here and not wherever it is read.

    Args:
        x: `[b, ...]`. Its gradient goes back to the devices that have its rows.
        rows: Which of them are meant; None for all. The others are not sent; `x` is
            then `[b, m, ...]`.

    Returns:
        `x`, or these rows of it.
    """
    mesh, num = _mesh(), x.shape[0]
    is_whole = rows is None or rows == tuple(range(num))
    chosen = slice(None) if is_whole else np.array(rows)
    if mesh is None:
        return x[chosen]
    if is_whole or num % mesh.size:
        return jax.lax.with_sharding_constraint(x, PartitionSpec())[chosen]
    axes, devices = mesh.axis_names, mesh.size

    def gathered(own: jax.Array) -> jax.Array:
        """Each device takes a piece of every row, leaves out some, and sends it."""
        shape = own.shape[1:]
        if shape[0] % devices:  # else its layout stays as it is
            own = own.reshape(own.shape[0], -1)
            own = jnp.pad(own, [(0, 0), (0, -own.shape[1] % devices)])
        pieces = jax.lax.all_to_all(own, axes, 1, 0, tiled=True)[chosen]
        whole = jax.lax.all_gather(pieces, axes, axis=1, tiled=True)
        if shape[0] % devices:
            whole = whole[:, : math.prod(shape)].reshape(-1, *shape)
        return whole

    own_rows = PartitionSpec(axes)
    return jax.shard_map(
        gathered, in_specs=own_rows, out_specs=PartitionSpec(), check_vma=False
    )(x)


def _everywhere_forward(x, rows):
    return everywhere(x, rows), x.shape[0]


def _everywhere_backward(rows, total, g):
    if rows is not None:
        place = np.full(total, -1)
        place[list(rows)] = np.arange(len(rows))
        is_meant = (place >= 0).reshape(-1, *(1 for _ in g.shape[1:]))
        g = jnp.where(is_meant, g[np.maximum(place, 0)], 0)
    return (by_rows(g),)


everywhere.defvjp(_everywhere_forward, _everywhere_backward)


def by_device(function: Callable[[Any, Any], Any], weights: Any, rows: Any) -> Any:
    """A function of weights and rows, called by each device on its own rows.

    The weights' gradient is summed on each device first, and over the devices once,
    after the function, in the weights' own dtype: the compiler by itself would reduce
    each layer's, and each use's.

    Args:
        function: Of `weights` and of `rows`; rows of its results depend on the same
            rows alone.
        weights: Pytree of arrays, whole on every device.
        rows: Pytree of arrays `[b, ...]`, each b a multiple of the devices.

    Returns:
        Its result, a pytree of arrays `[b, ...]`.
    """
    mesh = _mesh()
    if mesh is None:
        return function(weights, rows)
    own = PartitionSpec(mesh.axis_names)
    return jax.shard_map(
        function, in_specs=(PartitionSpec(), own), out_specs=own, check_vma=False
    )(weights, rows)
