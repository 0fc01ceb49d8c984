"""Features of a whole split from a frozen encoder."""

from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from ser_jax.data.loader import eval_batches
from ser_jax.data.sources import Source
from ser_jax.train.sharding import batch_sharded, replicated, shard_batch

_KEPT = ("label", "index", "valid")


def make_embed(
    embed: Callable[[Any, jax.Array], jax.Array], mesh: Mesh
) -> Callable[..., Any]:
    """Jits an embedding function over a mesh.

    Args:
        embed: `(params, images [b, h, w, 3] uint8) -> features [b, d]`.
        mesh: The mesh; images are sharded over it.

    Returns:
        `(params, batch) -> (features [b, d], labels [b], index [b], valid [b])`, on
        every device.
    """

    def run(params, batch):
        return embed(params, batch["image"]), *(batch[key] for key in _KEPT)

    return jax.jit(
        run,
        in_shardings=(replicated(mesh), batch_sharded(mesh)),
        out_shardings=replicated(mesh),
    )


def extract(
    embed: Callable[..., Any],
    params: Any,
    source: Source,
    transform: grain.transforms.Map,
    mesh: Mesh,
    *,
    batch_size: int,
    num_threads: int,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of every image of a source.

    Args:
        embed: From `make_embed`.
        params: Its parameters.
        source: Records.
        transform: Host transform that gives "image" and "label".
        mesh: The mesh.
        batch_size: Global batch size, a multiple of the number of devices.
        num_threads: Threads that decode.
        on_batch: Called after each batch.

    Returns:
        Features `[n, d]`, float32, and labels `[n]`, int, in the order of the source;
        the same on every process.
    """
    rows = []
    for batch in eval_batches(
        source,
        transform,
        batch_size=batch_size,
        num_threads=num_threads,
        prefetch_batches=2,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    ):
        arrays = {key: np.asarray(batch[key]) for key in ("image", *_KEPT)}
        rows.append(embed(params, shard_batch(arrays, mesh)))
        # The one before is done while this one is computed: the device stays busy, and
        # neither it nor the count runs far behind.
        if len(rows) > 1:
            rows[-2] = jax.device_get(rows[-2])
        on_batch()
    features, labels, index, valid = (
        np.concatenate(parts) for parts in zip(*jax.device_get(rows), strict=True)
    )
    # Each process has every other record of a batch; on devices its rows are adjacent.
    order = np.argsort(index[valid])
    return features[valid][order], labels[valid][order]
