"""The safetensors format: a header in JSON, then every tensor's bytes, row by row.

Format: https://github.com/huggingface/safetensors#format
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from ser_jax.interop.files.refused import UnreadableError, shown
from ser_jax.interop.files.tensors import BFLOAT16, Storage, Tensor, read_at, tensor
from ser_jax.storage.files import PathLike, whole_file

DTYPES = {
    "F64": np.dtype("f8"),
    "F32": np.dtype("f4"),
    "F16": np.dtype("f2"),
    "BF16": BFLOAT16,
    **{f"{k}{8 * n}": np.dtype(f"{k.lower()}{n}") for k in "IU" for n in (1, 2, 4, 8)},
    "BOOL": np.dtype("?"),
}
# What a header of this size becomes takes less than a second and 200 MB, whatever
# is in it. One of 35 000 tensors is as large.
_MOST_HEADER_BYTES = 2**22
_ALIGNMENT = 8


def read_safetensors(
    stream: BinaryIO, path: PathLike, size: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, none read, and its metadata.

    Args:
        stream: The file.
        path: Its path.
        size: Its bytes.

    Returns:
        Tensors by name, and texts by name.

    Raises:
        UnreadableError: If it is not of this format.
    """
    (length,) = struct.unpack("<Q", read_at(stream, 0, 8))
    if length > size - 8:
        raise UnreadableError(
            f"is cut off, or no safetensors: its header has {length} bytes, {size - 8} "
            "are there; get it again"
        )
    if length > _MOST_HEADER_BYTES:
        raise UnreadableError(
            f"has a header of {length} bytes; at most {_MOST_HEADER_BYTES} are read"
        )
    header = _parse(read_at(stream, 8, length))
    metadata = _metadata(header.pop("__metadata__", {}))
    spans: list[tuple[int, int, str]] = []
    tensors = {}
    for name, entry in header.items():
        begin, end, dtype = _entry(name, entry)
        spans.append((begin, end, name))
        storage = Storage(path, 8 + length + begin, end - begin, dtype)
        tensors[name] = _tensor(name, storage, dtype, entry["shape"])
    _check_spans(spans, size - 8 - length)
    return tensors, metadata


def write_safetensors(
    path: PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes arrays to a file that is there whole or not at all.

    The same arrays and texts give the same bytes, in whatever order they come.

    Args:
        path: The file; replaced.
        arrays: Arrays by name, of the types that the format has: `DTYPES`.
        metadata: Texts by name.

    Raises:
        ValueError: If an array is of another type, a name is the format's own, or the
            metadata is no text.
        OSError: If it cannot be written.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    for name, text in metadata.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"expected texts by name as metadata, got {name!r}")
    # Large types first, so that every tensor begins at a multiple of its type's size.
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    end = 0
    for name, array in ordered:
        if name == "__metadata__" or array.dtype.newbyteorder("=") not in names:
            raise ValueError(
                f"expected arrays of {', '.join(DTYPES)}, and not '__metadata__' as a "
                f"name; got {name!r} of {array.dtype}"
            )
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": names[array.dtype.newbyteorder("=")],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % _ALIGNMENT)
    with whole_file(path) as stream:
        stream.write(struct.pack("<Q", len(head)))
        stream.write(head)
        for _, array in ordered:
            stream.write(array.astype(array.dtype.newbyteorder("<")).tobytes())


def _parse(data: bytes) -> dict[str, Any]:
    """The header, its names unique."""
    try:
        header = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except UnreadableError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnreadableError(
            f"has a header that is no JSON ({str(error)[:80]})"
        ) from error
    if not isinstance(header, dict):
        raise UnreadableError(f"has a header that is no object but {shown(header)}")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnreadableError("has a header that gives a name twice")
    return found


def _no_constant(text: str) -> None:
    raise UnreadableError(f"has a header that holds {text}, which JSON does not")


def _metadata(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(
        isinstance(text, str) for text in found.values()
    ):
        raise UnreadableError("has '__metadata__' that is not texts by name")
    return found


def _entry(name: str, entry: Any) -> tuple[int, int, np.dtype]:
    """Where a tensor's bytes begin and end, and its type."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise UnreadableError(
            f"says something else of {shown(name)} than dtype, shape and data_offsets"
        )
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise UnreadableError(
            f"has {shown(name)} of type {shown(entry['dtype'])}, which is not read: "
            "convert it to float32"
        )
    offsets = entry["data_offsets"]
    if not (
        isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(x) is int and x < 2**63 for x in offsets)
        and 0 <= offsets[0] <= offsets[1]
    ):
        raise UnreadableError(f"has no place for {shown(name)} in its data_offsets")
    return offsets[0], offsets[1], dtype


def _tensor(name: str, storage: Storage, dtype: np.dtype, shape: Any) -> Tensor:
    try:
        found = tensor(storage, dtype, 0, shape)
    except UnreadableError as error:
        raise UnreadableError(f"{error} ({shown(name)})") from error
    needed = math.prod(found.shape) * dtype.itemsize
    if needed != storage.num_bytes:
        raise UnreadableError(
            f"has {shown(name)} of shape {found.shape}, {needed} bytes, in "
            f"{storage.num_bytes}"
        )
    return found


def _check_spans(spans: list[tuple[int, int, str]], size: int) -> None:
    """Returns if the tensors fill the data, with no hole and no byte used twice."""
    end = 0
    for begin, next_end, name in sorted(spans):
        if begin != end:
            what = "leaves a hole before" if begin > end else "overlaps at"
            raise UnreadableError(f"{what} {shown(name)}, byte {begin} of its data")
        end = next_end
    if end > size:
        raise UnreadableError(
            f"is cut off: its tensors have {end} bytes, {size} are there; get it again"
        )
    if end < size:
        raise UnreadableError(f"goes on for {size - end} bytes after its last tensor")
