"""Records that cannot be read: what stands in for them, and when there are too many."""

import functools
import itertools
import logging
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ser_jax.data.decode import UnreadableImageError, decode_image
from ser_jax.data.sources import Source, UnreadableRecordError

_TRIES = 100
_NUM_TOLD = 10

_logger = logging.getLogger(__name__)


def stand_ins(index: int, count: int) -> Iterator[int]:
    """A record and, one after the other, those that are read in its place.

    Args:
        index: The record.
        count: Of all records.

    Yields:
        Indices, the same at every call: so a run that resumes, and every process of
        one, has the same batches.
    """
    yield index
    yield from np.random.default_rng(index).integers(count, size=_TRIES).tolist()


class Unreadable:
    """The records of a source that were found to be unreadable.

    Attributes:
        indices: Which; counted from nothing when a run resumes.
    """

    def __init__(
        self,
        source: Source,
        max_bad_frac: float,
        setting: str = "loader.max_bad_frac",
    ):
        """Knows of none.

        Args:
            source: The records.
            max_bad_frac: Share of the source that may be unreadable, in [0, 1].
            setting: What a user calls that share.
        """
        self.indices: set[int] = set()
        self._source = source
        self._max_bad_frac = max_bad_frac
        self._setting = setting

    def note(self, batch: Mapping[str, Any]) -> None:
        """Notes, and tells, what a batch had to do without.

        Args:
            batch: Of `train_loader`: `asked` and `index`, `[b]`.

        Raises:
            UnreadableRecordError: If that makes too many; names one of this batch.
        """
        rows = np.stack([batch["asked"], batch["index"]], axis=1)  # [b, 2]
        tried = [
            index
            for asked, found in rows[rows[:, 0] != rows[:, 1]].tolist()
            for index in itertools.takewhile(
                functools.partial(operator.ne, found),
                stand_ins(asked, len(self._source)),
            )
        ]
        self.add(tried)

    def add(self, indices: Iterable[int]) -> None:
        """Notes, and tells, what was found to be unreadable.

        Args:
            indices: Records; known ones may be among them.

        Raises:
            UnreadableRecordError: If that makes too many; names one of these.
        """
        new = [index for index in dict.fromkeys(indices) if index not in self.indices]
        if not new:
            return
        self.indices.update(new)
        if len(self.indices) > self._max_bad_frac * len(self._source):
            raise UnreadableRecordError(
                f"{_why(self._source, new[0])} Or do without such records: raise "
                f"{self._setting}, now {self._max_bad_frac:g}, "
                f"to their share or more; {len(self.indices)} of {len(self._source)} "
                "were found so far."
            )
        for index in new[: max(0, _NUM_TOLD + len(new) - len(self.indices))]:
            _logger.warning("Left out: %s", _why(self._source, index))


def _why(source: Source, index: int) -> str:
    """What is wrong with a record, in one line."""
    try:
        decode_image(source[index]["image"])
    except UnreadableRecordError as error:
        return str(error)
    except (UnreadableImageError, OSError) as error:
        return str(source.unreadable(index, error))
    return str(source.unreadable(index, "it can now, so the storage is not reliable"))
