"""What `torch.save` wrote before PyTorch 1.6: pickles, then raw storages.

Source: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py
(`_legacy_save`)
"""

import struct
from typing import Any, BinaryIO

from ser_jax.interop.files.inert import Inert
from ser_jax.interop.files.machine import MOST_BYTES, Machine
from ser_jax.interop.files.pickles import load
from ser_jax.interop.files.refused import UnreadableError, shown
from ser_jax.interop.files.tensors import Storage, read_at
from ser_jax.interop.files.torch_calls import TorchCalls, storage_id
from ser_jax.storage.files import PathLike

_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
_MAGIC_NUMBER = int.from_bytes(_MAGIC[2:], "little")
_VERSION = 1001


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins so is of this format, in any protocol."""
    return head.startswith(b"\x80") and _MAGIC in head[:32]


def read_legacy(stream: BinaryIO, path: PathLike, size: int) -> Any:
    """The value that was saved, its tensors not read.

    Args:
        stream: The file.
        path: Its path.
        size: Its bytes.

    Returns:
        The value.

    Raises:
        UnreadableError: If it is no such file, cut off, or wants what is not allowed.
    """
    storages = _Storages(path)
    pickles = Machine(
        read_at(stream, 0, min(size, MOST_BYTES)), TorchCalls(storages.storage)
    )
    magic, version, system = load(pickles), load(pickles), load(pickles)
    if magic != _MAGIC_NUMBER or version != _VERSION or not isinstance(system, dict):
        raise UnreadableError("is a pickle, but not one of torch.save, and is not read")
    if system.get("little_endian") is not True:
        raise UnreadableError(
            "was written by a machine with another byte order: load it with torch and "
            "save it again"
        )
    content, keys = load(pickles), load(pickles)
    _place(stream, size, pickles.at, keys, storages.by_key)
    return content


class _Storages:
    """The storages that a pickle names, their places not known yet."""

    def __init__(self, path: PathLike):
        self.path = path
        self.by_key: dict[str, Storage] = {}
        self.kinds: dict[str, str] = {}

    def storage(self, key: Any) -> Any:
        """The storage of a persistent id, or the class of a module."""
        if isinstance(key, tuple) and key[:1] == ("module",) and len(key) > 1:
            return key[1] if isinstance(key[1], Inert) else None
        kind, name, dtype, numel = storage_id(key)
        num_bytes = numel * dtype.itemsize
        found = self.by_key.setdefault(name, Storage(self.path, -1, num_bytes, dtype))
        if self.kinds.setdefault(name, kind) != kind or found.num_bytes != num_bytes:
            raise UnreadableError(f"says two things of the storage {shown(name)}")
        return found


def _place(
    stream: BinaryIO, size: int, at: int, keys: Any, storages: dict[str, Storage]
) -> None:
    """Tells every storage where it begins."""
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or len(set(keys)) != len(keys)
        or set(keys) != set(storages)
    ):
        raise UnreadableError("has other storages than its pickle names")
    for key in keys:
        storage = storages[key]
        assert storage.dtype is not None
        (count,) = struct.unpack("<q", read_at(stream, at, 8))
        if count * storage.dtype.itemsize != storage.num_bytes:
            raise UnreadableError(
                f"has {count} elements in the storage {shown(key)}, where its pickle "
                f"says {storage.num_bytes // storage.dtype.itemsize}"
            )
        storage.start, at = at + 8, at + 8 + storage.num_bytes
        if at > size:
            raise UnreadableError(
                f"is cut off: {size} bytes of at least {at}; get it again"
            )
