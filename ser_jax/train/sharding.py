"""The mesh, and how arrays lie on it. The only file that names mesh axes."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_DATA = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Mesh with every device along one data axis.

    Args:
        devices: Devices to use; all of all processes, in the order of the processes,
            as the loader gives them rows, if None.

    Returns:
        The mesh. Its axis is of type Auto: the partitioner places the all-pairs
        products of contrastive losses, which Explicit axes would refuse.
    """
    devices = devices or sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(devices), (_DATA,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole: the training state.

    Args:
        mesh: The mesh.

    Returns:
        The sharding.
    """
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: rows over all devices.

    Args:
        mesh: The mesh.

    Returns:
        The sharding, for arrays `[b, ...]`.
    """
    return NamedSharding(mesh, PartitionSpec(_DATA))


def check_batch_size(batch_size: int, mesh: Mesh, accumulate_steps: int = 1) -> None:
    """Refuses a global batch that the mesh, or a device's parts, cannot split evenly.

    Args:
        batch_size: Global batch size.
        mesh: The mesh.
        accumulate_steps: Parts of each device's rows.

    Raises:
        ValueError: If the number of devices does not divide it, or the parts do not
            divide what a device has of it.
    """
    if batch_size % mesh.size:
        lower = batch_size // mesh.size * mesh.size
        raise ValueError(
            f"batch_size {batch_size} (global) is not divisible by {mesh.size} "
            f"devices; use {lower + mesh.size}{f' or {lower}' if lower else ''}."
        )
    rows = batch_size // mesh.size
    if rows % accumulate_steps:
        divisors = [n for n in range(1, rows + 1) if rows % n == 0]
        near = sorted(divisors, key=lambda n: abs(n - accumulate_steps))[:2]
        raise ValueError(
            f"optimizer.accumulate_steps must divide the {rows} images that a device "
            f"has (batch_size {batch_size} on {mesh.size}), got {accumulate_steps}; "
            f"use {' or '.join(map(str, sorted(near)))}."
        )


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts this process's rows of a batch on its devices.

    Args:
        batch: Pytree of host arrays `[b / num_processes, ...]`.
        mesh: The mesh.

    Returns:
        Pytree of global arrays `[b, ...]`, sharded by rows.
    """
    sharding = batch_sharded(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x), batch
    )
