"""Batches of host arrays: endless and shuffled to train, one ordered pass to evaluate.

The position of the training stream is the step and nothing else: batch k is a function
of (source, transform, seed, batch_size, k), whatever the number of processes, worker
processes or threads. To resume, give `start_step`.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from ser_jax.data.batches import Ahead, Batches
from ser_jax.data.crops import Batch
from ser_jax.data.decode import UnreadableImageError
from ser_jax.data.sources import Source, UnreadableRecordError
from ser_jax.data.unreadable import stand_ins
from ser_jax.data.watched import Watched, live_with_parent

# Of a worker: one batch waits for its last rows while threads begin the next.
_WORKERS_OWN = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)


def train_loader(
    source: Source,
    transform: grain.transforms.RandomMap,
    *,
    batch_size: int,
    seed: int,
    num_threads: int,
    prefetch_batches: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    timeout_s: float = 600.0,
    replace_unreadable: bool = False,
) -> Watched:
    """This process's share of every global batch, without end.

    Every epoch is a new permutation. Batches run across its boundary, so none is short,
    and a source smaller than one batch simply repeats within it.

    Args:
        source: Records by index.
        transform: Turns a record into arrays; its rng is keyed by (seed, position).
        batch_size: Images in a global batch, over all processes.
        seed: Seeds the permutations and the transform.
        num_threads: Threads that decode, in each worker.
        prefetch_batches: Batches kept ahead, over all workers but at least one each.
        start_step: Global batches to skip (at no cost).
        process_index: This process, in [0, process_count).
        process_count: Processes that share the global batch; each gets as many rows on
            end, in the order of the processes, as device meshes lay them out.
        num_workers: Worker processes; 0 decodes in threads of this one; see
            `cores.workers_for`. Workers need an importable main module.
        timeout_s: Seconds that a batch may take.
        replace_unreadable: Whether another record, always the same, stands in for one
            that cannot be read; `Unreadable` counts them.

    Returns:
        An endless iterator of batches, `[batch_size / process_count, ...]`, with a
        `close()` that stops its threads and workers. What the transform returns and, if
        unreadable ones are replaced, `asked`, `[b]` int64: the records that were due.

    Raises:
        ValueError: If `batch_size` does not divide among the processes.
        UnreadableRecordError: While iterating, at a record that cannot be read, or if
            nothing that could stand in for it can.
        TimeoutError, ChildProcessError: While iterating: see `Watched.take`.
    """
    local_batch_size = _local_batch_size(batch_size, process_index, process_count)
    make = _readable if replace_unreadable else _example
    examples = (
        grain.MapDataset.source(range(len(source)))
        .seed(seed)
        .shuffle()
        .repeat()
        .map_with_index(_Place)
        # Before the rows are picked: the rng is keyed by the global position, so that
        # any number of processes makes the same images.
        .random_map(functools.partial(make, transform.random_map, source))
    )
    batches = Batches(
        examples,
        num_rows=local_batch_size,
        first=start_step * batch_size + process_index * local_batch_size,
        between_batches=batch_size,
        num_threads=num_threads,
    )
    if not num_workers:
        steps = itertools.count()
        return Watched(lambda: Ahead(batches, steps, prefetch_batches), timeout_s)
    if not flags.FLAGS.is_parsed():  # a script's; grain has some, and reads them
        flags.FLAGS.mark_as_parsed()
    of_each = -(-prefetch_batches // num_workers)
    from_workers = batches.to_iter_dataset(_WORKERS_OWN).mp_prefetch(
        grain.MultiprocessingOptions(num_workers, of_each),
        worker_init_fn=live_with_parent,
    )
    return Watched(from_workers.__iter__, timeout_s)


def eval_batches(
    source: Source,
    transform: grain.transforms.Map,
    *,
    batch_size: int,
    num_threads: int,
    prefetch_batches: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """One pass over the source in order, in batches of one shape.

    Args:
        source: Records by index.
        transform: Turns a record into arrays.
        batch_size: Images in a global batch, over all processes.
        num_threads: Threads that decode.
        prefetch_batches: Batches kept ahead.
        process_index: This process, in [0, process_count).
        process_count: Processes that share the global batch: process i gets its rows
            i, i + process_count, ... All of them see the same number of batches.

    Yields:
        What the transform returns, `[batch_size / process_count, ...]`, and `valid`,
        `[batch_size / process_count]` bool: False where the last batch was filled up
        with records from the start of the source.

    Raises:
        ValueError: If `batch_size` does not divide among the processes.
        UnreadableRecordError: At a record that cannot be read or decoded.
    """
    local_batch_size = _local_batch_size(batch_size, process_index, process_count)
    num_batches = -(-len(source) // batch_size)
    examples = (
        grain.MapDataset.source(range(len(source)))
        .repeat()
        .map_with_index(_Place)
        .map(functools.partial(_example, transform.map, source))
    )
    batches = Batches(
        examples,
        num_rows=local_batch_size,
        first=process_index,
        between_rows=process_count,
        between_batches=batch_size,
        num_threads=num_threads,
    )
    rows = process_index + process_count * np.arange(local_batch_size)
    steps = range(num_batches)
    with contextlib.closing(Ahead(batches, steps, prefetch_batches)) as ahead:
        for step, batch in enumerate(ahead):
            yield batch | {"valid": step * batch_size + rows < len(source)}


def _local_batch_size(batch_size: int, process_index: int, process_count: int) -> int:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size is global and must be a multiple of the {process_count} "
            f"process(es) that share it, got {batch_size}"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index must be in [0, {process_count}), got {process_index}"
        )
    return batch_size // process_count


@dataclasses.dataclass(frozen=True)
class _Place:
    """A place in the stream, and the record that is due there."""

    position: int
    index: int


def _example(
    transform: Callable[..., Batch], source: Source, place: _Place, *rng: Any
) -> Batch:
    """The transform's output; names the record if it cannot be read or decoded."""
    record = source[place.index] | {"position": place.position}
    try:
        return transform(record, *rng)
    except UnreadableImageError as error:
        raise source.unreadable(place.index, error) from error


def _readable(
    transform: Callable[..., Batch], source: Source, place: _Place, *rng: Any
) -> Batch:
    """The same of the first record that can be read, and which one was due."""
    for index in stand_ins(place.index, len(source)):
        try:
            example = _example(transform, source, _Place(place.position, index), *rng)
        except UnreadableRecordError as error:
            problem = error
        else:
            return example | {"asked": np.int64(place.index)}
    raise problem
