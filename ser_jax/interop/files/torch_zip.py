"""What `torch.save` writes since PyTorch 1.6: a zip archive, nothing compressed in it.

Source: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py (`_save`)
"""

import zlib
from typing import Any, BinaryIO

from ser_jax.interop.files.machine import MOST_BYTES, Machine
from ser_jax.interop.files.pickles import load
from ser_jax.interop.files.refused import UnreadableError, shown
from ser_jax.interop.files.tensors import Storage, read_at
from ser_jax.interop.files.torch_calls import TorchCalls, storage_id
from ser_jax.interop.files.zip_entries import Entry, data_start, read_entries
from ser_jax.storage.files import PathLike


def read_torch_zip(stream: BinaryIO, path: PathLike, size: int) -> Any:
    """The value that was saved, its tensors not read.

    Args:
        stream: The file.
        path: Its path.
        size: Its bytes.

    Returns:
        The value.

    Raises:
        UnreadableError: If it is no such file, damaged, or wants what is not allowed.
    """
    archive = _Archive(stream, path, read_entries(stream, size))
    data = archive.read("data.pkl", MOST_BYTES)
    return load(Machine(data, TorchCalls(archive.storage)))


class _Archive:
    """The entries below the folder of data.pkl."""

    def __init__(self, stream: BinaryIO, path: PathLike, entries: dict[str, Entry]):
        self.stream, self.path, self.entries = stream, path, entries
        self.folder = _folder(entries)
        self.big_endian = False
        if f"{self.folder}byteorder" in entries:
            order = self.read("byteorder", 16)
            if order not in (b"little", b"big"):
                raise UnreadableError("has a byte order that is not little or big")
            self.big_endian = order == b"big"
        self.storages: dict[tuple[str, str], Storage] = {}

    def read(self, name: str, most_bytes: int) -> bytes:
        """An entry."""
        entry = self.entries[f"{self.folder}{name}"]
        if entry.num_bytes > most_bytes:
            raise UnreadableError(
                f"has a {name} of {entry.num_bytes} bytes; at most {most_bytes} are "
                "read"
            )
        start = data_start(self.stream, f"{self.folder}{name}", entry)
        data = read_at(self.stream, start, entry.num_bytes)
        if zlib.crc32(data) != entry.crc32:
            raise UnreadableError(f"is damaged: the checksum of {name} is another")
        return data

    def storage(self, key: Any) -> Storage:
        """The storage of a persistent id."""
        kind, name, dtype, numel = storage_id(key)
        if (kind, name) not in self.storages:
            self.storages[kind, name] = self._open(name, dtype)
        found = self.storages[kind, name]
        if found.num_bytes != numel * dtype.itemsize:
            raise UnreadableError(
                f"has {found.num_bytes} bytes in {shown(name)}, where its pickle says "
                f"{numel * dtype.itemsize}"
            )
        return found

    def _open(self, name: str, dtype: Any) -> Storage:
        full = f"{self.folder}data/{name}"
        if full not in self.entries:
            raise UnreadableError(f"lacks {shown(full)}, which its pickle names")
        entry = self.entries[full]
        start = data_start(self.stream, full, entry)
        return Storage(
            self.path, start, entry.num_bytes, dtype, self.big_endian, entry.crc32
        )


def _folder(entries: dict[str, Entry]) -> str:
    """Where data.pkl is, "" or ending in a slash."""
    ends = {name.rpartition("/")[2] for name in entries}
    if "constants.pkl" in ends or any("/code/" in f"/{name}" for name in entries):
        raise UnreadableError(
            "is a TorchScript program, not a checkpoint: load it with torch.jit.load "
            "and save its state_dict()"
        )
    if "archive_format" in ends:
        raise UnreadableError(
            "is a program of torch.export, not a checkpoint: save the state_dict()"
        )
    if any(end.endswith(".npy") for end in ends):
        raise UnreadableError(
            "holds arrays of NumPy: give them PyTorch's names in a .safetensors file"
        )
    found = [name for name in entries if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise UnreadableError(
            f"is a zip archive with {len(found)} files data.pkl in a folder, where "
            "torch.save writes one"
        )
    for name, entry in entries.items():
        if not entry.stored:
            raise UnreadableError(
                f"is a zip archive whose {shown(name)} is compressed or encrypted, "
                "which torch.save never does: save it anew"
            )
    return found[0].removesuffix("data.pkl")
