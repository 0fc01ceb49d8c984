"""Rows of a batch on the devices, where the compiler has to be told.

What is computed for each image alone is split over all devices by itself. A kernel is
one device's program: it runs on each device's own rows. Outside of a mesh
(`jax.set_mesh`) all of this does nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec


def num_devices() -> int:
    """Devices that a batch is spread over; 1 outside of a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def by_rows(x: jax.Array) -> jax.Array:
    """The same array, its rows spread over the devices.

    Args:
        x: `[b, ...]`, b a multiple of the devices.

    Returns:
        `x`.
    """
    return _placed(x, lambda names: PartitionSpec(names))


def everywhere(x: jax.Array) -> jax.Array:
    """The same array, whole on every device: gathered here and not wherever it is read.

    Args:
        x: Any array.

    Returns:
        `x`.
    """
    return _placed(x, lambda names: PartitionSpec())


def _placed(x: jax.Array, spec: Callable[..., PartitionSpec]) -> jax.Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(mesh.axis_names))


def on_own_rows(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """A function of rows, called by each device on its own.

    Args:
        function: Of arrays `[b, ...]`, each row of whose result depends on the same
            row of its arguments alone.
        *arrays: Its arguments; b need not be a multiple of the devices.

    Returns:
        Its result, `[b, ...]`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function(*arrays)
    b = arrays[0].shape[0]
    missing = -b % mesh.size
    if missing:
        arrays = tuple(
            jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in arrays
        )
    rows = PartitionSpec(mesh.axis_names)
    result = jax.shard_map(function, in_specs=rows, out_specs=rows, check_vma=False)(
        *arrays
    )
    return result[:b]
