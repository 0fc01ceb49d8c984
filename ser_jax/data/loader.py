"""Batches of host arrays: endless and shuffled to train, one ordered pass to evaluate.

The position of the training stream is the step and nothing else: batch k is a function
of (source, transform, seed, batch_size, k), whatever the number of processes, worker
processes or threads. To resume, give `start_step`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from ser_jax.data.crops import Batch
from ser_jax.data.decode import UnreadableImageError
from ser_jax.data.sources import Source, UnreadableRecordError
from ser_jax.data.unreadable import stand_ins
from ser_jax.data.watched import Watched, live_with_parent

_EXAMPLES_AHEAD = 4  # a thread; more would wait for one that is slow, none works longer


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
        prefetch_batches: Finished batches kept ahead, in each worker.
        start_step: Global batches to skip (at no cost).
        process_index: This process, in [0, process_count).
        process_count: Processes that share the global batch; each gets as many rows on
            end, in the order of the processes, as device meshes lay them out.
        num_workers: Worker processes; 0 decodes in threads of this one, which is the
            faster choice up to about 16 cores. Workers need an importable main
            module.
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
    first_row = start_step * batch_size + process_index * local_batch_size
    rows = _Rows(examples, first_row, local_batch_size, batch_size)
    if num_workers:
        if not flags.FLAGS.is_parsed():  # a script's; grain has some, and reads them
            flags.FLAGS.mark_as_parsed()
        # Dealt whole batches: with single rows they would change their order.
        batches = (
            rows.batch(local_batch_size, drop_remainder=True)
            .to_iter_dataset(grain.ReadOptions(num_threads, prefetch_batches))
            .mp_prefetch(
                grain.MultiprocessingOptions(num_workers, prefetch_batches),
                worker_init_fn=live_with_parent,
            )
        )
    else:
        batches = _in_threads(rows, local_batch_size, num_threads, prefetch_batches)
    return Watched(batches.__iter__, timeout_s)


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
        prefetch_batches: Finished batches kept ahead.
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
    mine = slice(process_index, num_batches * batch_size, process_count)
    examples = (
        grain.MapDataset.source(range(len(source)))
        .repeat()
        .slice(mine)
        .map_with_index(_Place)
        .map(functools.partial(_example, transform.map, source))
    )
    batches = iter(
        _in_threads(examples, local_batch_size, num_threads, prefetch_batches)
    )
    rows = process_index + process_count * np.arange(local_batch_size)
    try:
        for step, batch in enumerate(batches):
            yield batch | {"valid": step * batch_size + rows < len(source)}
    finally:
        batches.close()


def _in_threads(
    examples: grain.MapDataset[Batch],
    local_batch_size: int,
    num_threads: int,
    prefetch_batches: int,
) -> grain.IterDataset[Batch]:
    """Batches whose examples are made by threads, so many batches ahead.

    Batched after the threads: before them, each would make a whole batch, and no more
    could work than batches are wanted ahead. Grain looks through the examples that are
    ahead at every one it takes, so these are few, and a thread of its own takes them.
    """
    options = grain.ReadOptions(num_threads, _EXAMPLES_AHEAD * num_threads)
    batches = examples.to_iter_dataset(options).batch(
        local_batch_size, drop_remainder=True
    )
    return grain.experimental.ThreadPrefetchIterDataset(
        batches, prefetch_buffer_size=prefetch_batches
    )


class _Rows(grain.MapDataset[Batch]):
    """`count` examples on end out of every `stride`, from position `first` on."""

    def __init__(
        self, parent: grain.MapDataset[Batch], first: int, count: int, stride: int
    ):
        super().__init__(parent)
        self._first, self._count, self._stride = first, count, stride

    def __len__(self) -> int:
        return (len(self._parent) - self._first) // self._stride * self._count

    def __getitem__(self, index: Any) -> Any:
        batch, row = divmod(index, self._count)
        return self._parent[self._first + batch * self._stride + row]


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
