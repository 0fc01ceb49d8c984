"""Arrays that stay in their file until they are asked for."""

import dataclasses
import math
import zlib
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from ser_jax.interop.files.refused import RefusedFileError, UnreadableError, shown
from ser_jax.storage.files import PathLike

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
MOST_DIMENSIONS = 8
_MOST_LENGTH = 2**48
_MOST_REPEATED = 2**20  # elements of a tensor that has more than its storage
_CHUNK_BYTES = 2**20


def read_at(stream: BinaryIO, start: int, num_bytes: int) -> bytes:
    """Bytes of a file.

    Args:
        stream: The file.
        start: Where they begin.
        num_bytes: How many; the caller knows that memory can hold them.

    Returns:
        The bytes.

    Raises:
        UnreadableError: If the file ends before.
    """
    stream.seek(start)
    data = stream.read(num_bytes)
    if len(data) != num_bytes:
        raise UnreadableError(
            f"is cut off: {num_bytes} bytes were expected from byte {start} on, "
            f"{len(data)} are there; get it again"
        )
    return data


@dataclasses.dataclass(eq=False, slots=True)
class Storage:
    """A part of a file that tensors look at.

    Attributes:
        path: The file.
        start: Where it begins, bytes.
        num_bytes: Its length.
        dtype: Of its elements; None: the tensors say.
        big_endian: Whether numbers have their first byte first.
        crc32: Its checksum; None: there is none, or it was compared.
    """

    path: PathLike
    start: int
    num_bytes: int
    dtype: np.dtype | None = None
    big_endian: bool = False
    crc32: int | None = None

    def read(self, start: int, num_bytes: int) -> np.ndarray:
        """Bytes of it.

        Args:
            start: Where they begin in it.
            num_bytes: How many.

        Returns:
            `[num_bytes]`, uint8.

        Raises:
            RefusedFileError: If the file is no longer as it was, or damaged.
            OSError: If it cannot be read.
        """
        data = np.empty(num_bytes, np.uint8)
        with open(self.path, "rb") as stream:
            if num_bytes != self.num_bytes:
                self._check(stream)
            stream.seek(self.start + start)
            if stream.readinto(data) != num_bytes:
                raise RefusedFileError(self.path, "has become shorter; get it again")
        if num_bytes == self.num_bytes:
            self._compare(zlib.crc32(data) if self.crc32 is not None else None)
        return data

    def _check(self, stream: BinaryIO) -> None:
        """Reads all of it, a piece at a time, if it has a checksum."""
        if self.crc32 is None:
            return
        stream.seek(self.start)
        found, left = 0, self.num_bytes
        while left and (piece := stream.read(min(left, _CHUNK_BYTES))):
            found, left = zlib.crc32(piece, found), left - len(piece)
        self._compare(found)

    def _compare(self, found: int | None) -> None:
        if found != self.crc32:
            raise RefusedFileError(
                self.path,
                f"is damaged: the checksum of the {self.num_bytes} bytes from byte "
                f"{self.start} on is not the one written beside them; get it again",
            )
        self.crc32 = None


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """An array that lies in a file.

    Attributes:
        shape: Its shape.
        dtype: Its type, in this machine's byte order.
        storage: Where its elements are.
        offset: Its first element's place in the storage, elements.
        strides: Elements from one entry to the next, by axis.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    storage: Storage
    offset: int
    strides: tuple[int, ...]

    def numpy(self) -> np.ndarray:
        """The array, read now.

        Returns:
            `shape`, `dtype`, the caller's own; a tensor without axes stays one.

        Raises:
            RefusedFileError: If the file is no longer as it was, or damaged.
            OSError: If it cannot be read.
        """
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        size = self.dtype.itemsize
        data = self.storage.read(self.offset * size, _span(self) * size)
        flat = _elements(data, self.dtype, self.storage.big_endian)
        strides = tuple(stride * size for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(flat, self.shape, strides)
        return flat.reshape(self.shape) if view.flags.c_contiguous else view.copy()


def tensor(
    storage: Storage, dtype: np.dtype, offset: Any, shape: Any, strides: Any = None
) -> Tensor:
    """A tensor of a storage, checked; nothing is read.

    Args:
        storage: Where its elements are.
        dtype: Its type.
        offset: Its first element's place.
        shape: Whole numbers.
        strides: As many; None: row by row.

    Returns:
        The tensor.

    Raises:
        UnreadableError: If these are no whole numbers in bounds, or reach beyond the
            storage, or repeat its elements into far more than it has.
    """
    shape = _whole_numbers("shape", shape)
    strides = (
        tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        if strides is None
        else _whole_numbers("strides", strides)
    )
    (offset,) = _whole_numbers("offset", (offset,))
    if len(shape) != len(strides):
        raise UnreadableError(
            f"has a tensor of {len(shape)} axes with {len(strides)} strides"
        )
    found = Tensor(shape, dtype, storage, offset, strides)
    held = storage.num_bytes // dtype.itemsize
    if 0 not in shape and offset + _span(found) > held:
        raise UnreadableError(
            f"has a tensor of shape {shape} that reaches element "
            f"{offset + _span(found)} of a storage of {held}"
        )
    if math.prod(n or 1 for n in shape) > max(held, _MOST_REPEATED):
        raise UnreadableError(
            f"has a tensor of shape {shape} that repeats a storage of {held} elements"
        )
    return found


def _whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list):
        raise UnreadableError(f"has a tensor whose {name} is {shown(values)}")
    if len(values) > MOST_DIMENSIONS:
        raise UnreadableError(
            f"has a tensor of {len(values)} axes; at most {MOST_DIMENSIONS} are read"
        )
    for value in values:
        if type(value) is not int or not 0 <= value <= _MOST_LENGTH:
            raise UnreadableError(
                f"has a tensor whose {name} holds {shown(value)}, where a whole number "
                f"from 0 to {_MOST_LENGTH} was expected"
            )
    return tuple(values)


def _span(of: Tensor) -> int:
    """Elements from the first to the last."""
    return 1 + sum((n - 1) * step for n, step in zip(of.shape, of.strides, strict=True))


def _elements(data: np.ndarray, dtype: np.dtype, big_endian: bool) -> np.ndarray:
    """Bytes as numbers of this machine."""
    if dtype == np.bool_:
        return data != 0
    if not big_endian:
        return data.view(dtype)
    part = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    return data.view(f"u{part}").byteswap().view(dtype)
