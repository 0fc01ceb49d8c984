"""Opens a file of weights, whatever its name is."""

import dataclasses
import functools
import hashlib
import os
import stat
from typing import Any, BinaryIO

from ser_jax.interop.files.inert import Inert
from ser_jax.interop.files.refused import RefusedFileError, UnreadableError, shown
from ser_jax.interop.files.safetensors import read_safetensors
from ser_jax.interop.files.torch_legacy import is_legacy, read_legacy
from ser_jax.interop.files.torch_zip import read_torch_zip
from ser_jax.storage.files import PathLike, local_path, num_bytes

_HEAD_BYTES = 512  # a tar says so at 257
_NOT_WEIGHTS = (
    (b"version https://git-lfs", "a Git LFS pointer: get the file with `git lfs pull`"),
    (b"<", "a web page: the download went wrong; get it again"),
    (b"\x1f\x8b", "compressed with gzip: unpack it"),
    (b"\x89HDF\r\n", "an HDF5 file, which is not read: save it as safetensors"),
    (b"GGUF", "a GGUF file, which is not read: get the safetensors file"),
    (b"\x93NUMPY", "an array of NumPy, which is not read: save it as safetensors"),
    (b"{", "a text in JSON: give the file of weights itself"),
    (b"\x80", "a pickle, but not one of torch.save, and is not read"),
)


@dataclasses.dataclass(eq=False)
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        path: The file.
        format: "safetensors", "zip" or "legacy".
        content: Dictionaries, lists, tuples, plain values, `Tensor`, `Inert`. They may
            hold each other in circles, and one object may stand in many places.
        metadata: Texts by name, of a safetensors file.
    """

    path: str
    format: str
    content: dict[Any, Any] = dataclasses.field(repr=False)
    metadata: dict[str, str] = dataclasses.field(repr=False)

    @functools.cached_property
    def sha256(self) -> str:
        """The file's SHA-256, in hexadecimal digits.

        Raises:
            OSError: If the file cannot be read.
        """
        with open(self.path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def read_weights_file(path: PathLike) -> WeightsFile:
    """Content of a file of weights: safetensors, or what `torch.save` writes.

    It is told by its first bytes. Nothing in it is run or imported, and tensors are
    read when they are asked for.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        RefusedFileError: If it is something else, cut off or damaged.
        OSError: If it is not there or cannot be read.
        ValueError: If the path is no path of this machine.
    """
    file = os.fspath(local_path(path))
    size = _size(file)
    try:
        with open(file, "rb") as stream:
            return _read(stream, file, size)
    except UnreadableError as error:
        raise RefusedFileError(file, str(error)) from error


def _size(path: str) -> int:
    """Bytes of a file; a pipe or a device has none, and a folder is none."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is nothing at {path}, expected a file or folder of weights"
        ) from None
    if not stat.S_ISREG(mode):
        raise RefusedFileError(path, "is no file; give a file of weights")
    return num_bytes(path)


def _read(stream: BinaryIO, path: str, size: int) -> WeightsFile:
    head = stream.read(_HEAD_BYTES)
    metadata: dict[str, str] = {}
    if head[8:9] == b"{":
        content, metadata = read_safetensors(stream, path, size)
        return WeightsFile(path, "safetensors", content, metadata)
    if head.startswith(b"PK"):
        return WeightsFile(
            path, "zip", _dictionary(read_torch_zip(stream, path, size)), metadata
        )
    if is_legacy(head):
        return WeightsFile(
            path, "legacy", _dictionary(read_legacy(stream, path, size)), metadata
        )
    raise UnreadableError(_what_else(head))


def _what_else(head: bytes) -> str:
    """What is said of a file that begins so."""
    if not head:
        return "is empty; get it again"
    for start, what in _NOT_WEIGHTS:
        if head.startswith(start):
            return f"is {what}"
    if head[257:262] == b"ustar":
        return "is a tar archive: unpack it"
    return (
        f"begins with {shown(head[:8].hex(' '))}: a safetensors file, or one of "
        "torch.save, was expected"
    )


def _dictionary(content: Any) -> dict[Any, Any]:
    if isinstance(content, Inert):
        raise UnreadableError(
            f"is a pickled {shown(content.name)}, not a dictionary of tensors: load it "
            "with torch and save its state_dict()"
        )
    if not isinstance(content, dict):
        raise UnreadableError(
            f"holds {shown(content)}, where a dictionary of tensors was expected"
        )
    return content
