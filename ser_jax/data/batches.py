"""Batches from examples: rows by threads, each written once, in its place."""

import collections
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import grain
import numpy as np

from ser_jax.data.crops import Batch

_MOST_ROWS = 16  # of a task: what a task costs is then little beside its rows


class Batches(grain.MapDataset[Batch]):
    """Whole batches by number; which examples they have depends on nothing else."""

    def __init__(
        self,
        examples: grain.MapDataset[Batch],
        *,
        num_rows: int,
        first: int,
        between_rows: int = 1,
        between_batches: int,
        num_threads: int,
    ):
        """Row r of batch k is example `first + k * between_batches + r * between_rows`.

        Args:
            examples: Dicts of arrays, of dicts of arrays, all of the same shapes.
            num_rows: Of a batch.
            first: The first example.
            between_rows: From a row to the next.
            between_batches: From a batch's first row to that of the next.
            num_threads: Threads that make rows.
        """
        super().__init__(examples)
        self._num_rows, self._num_threads = num_rows, num_threads
        self._first, self._strides = first, (between_batches, between_rows)

    def __len__(self) -> int:
        """Number of batches."""
        return (len(self._parent) - self._first) // self._strides[0]

    def __getitem__(self, index: Any) -> Any:
        """One batch, or the batches of a slice."""
        if isinstance(index, slice):
            return self.slice(index)
        return self.begin(index)()

    def begin(self, step: int) -> Callable[[], Batch]:
        """Gives a batch's rows to the threads.

        Args:
            step: Its number.

        Returns:
            Waits for the batch; raises what its first example that failed did.
        """
        batch = _Batch(self._num_rows)
        size = min(_MOST_ROWS, -(-self._num_rows // self._num_threads))
        parts = [
            self._pool.submit(self._write, batch, step, start, start + size)
            for start in range(0, self._num_rows, size)
        ]
        return functools.partial(_whole, batch, parts)

    def close(self) -> None:
        """Ends the threads; what they have not begun is left undone."""
        self._pool.shutdown(cancel_futures=True)

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        # Not before it is needed: a worker process gets these batches without threads.
        return ThreadPoolExecutor(self._num_threads, "loader")

    def _write(self, batch: "_Batch", step: int, start: int, stop: int) -> None:
        between_batches, between_rows = self._strides
        first = self._first + step * between_batches
        for row in range(start, min(stop, self._num_rows)):
            batch.write(row, self._parent[first + row * between_rows])


class Ahead:
    """Batches in their order, some of them under way before they are asked for."""

    def __init__(self, batches: Batches, steps: Iterable[int], num_ahead: int):
        """Begins when the first is asked for.

        Args:
            batches: All there are; `close` closes them.
            steps: Numbers of those that come.
            num_ahead: Batches under way while one is used.
        """
        self._batches, self._num_ahead = batches, num_ahead
        self._steps = iter(steps)
        self._under_way: collections.deque[Callable[[], Batch]] = collections.deque()

    def __iter__(self) -> Self:
        """The iterator itself."""
        return self

    def __next__(self) -> Batch:
        """The next batch."""
        missing = 1 + self._num_ahead - len(self._under_way)
        for step in itertools.islice(self._steps, missing):
            self._under_way.append(self._batches.begin(step))
        if not self._under_way:
            raise StopIteration
        return self._under_way.popleft()()

    def close(self) -> None:
        """Ends the threads."""
        self._batches.close()


class _Batch:
    """Arrays that are filled row by row, by several threads."""

    def __init__(self, num_rows: int):
        self._num_rows = num_rows
        self._making = threading.Lock()
        self.arrays: Batch = {}

    def write(self, row: int, example: Mapping[str, Any]) -> None:
        with self._making:
            if not self.arrays:
                self.arrays = _empty(self._num_rows, example)
        _write(self.arrays, row, example)


def _empty(num_rows: int, example: Mapping[str, Any]) -> Batch:
    return {
        key: _empty(num_rows, value)
        if isinstance(value, Mapping)
        else np.empty((num_rows, *np.shape(value)), np.asarray(value).dtype)
        for key, value in example.items()
    }


def _write(arrays: Batch, row: int, example: Mapping[str, Any]) -> None:
    for key, value in example.items():
        if isinstance(value, Mapping):
            _write(arrays[key], row, value)
            continue
        rows = arrays[key]
        if np.shape(value) != rows.shape[1:]:  # or it would be repeated to fit
            raise ValueError(
                f"{key!r} is {list(np.shape(value))} of one example and "
                f"{list(rows.shape[1:])} of another; they must be alike"
            )
        rows[row] = value


def _whole(batch: _Batch, parts: list[Future[None]]) -> Batch:
    for part in parts:
        part.result()
    return batch.arrays
