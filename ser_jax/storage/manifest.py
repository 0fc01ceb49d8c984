"""A list of a checkpoint's files, to tell whether they are still what was written.

The checksums of the arrays notice every change that reaches a value. This list also
notices those that do not yet: a byte in a part of a file that nothing points to. Of a
bucket it has the objects' own checksums, so that nothing is read for it.
"""

import json
import zlib
from typing import Any

from etils import epath

from ser_jax.storage.bucket import checksums, scheme_of
from ser_jax.storage.files import whole_file

_NAME = "files.json"
_CHUNK_BYTES = 1 << 24


def write_manifest(checkpoint: epath.Path) -> None:
    """Writes size and checksum of every file of a complete checkpoint beside them.

    Args:
        checkpoint: Its directory.
    """
    with whole_file(checkpoint / _NAME) as stream:
        stream.write(json.dumps(_describe(checkpoint)).encode())


def check_manifest(checkpoint: epath.Path) -> None:
    """Returns if every listed file is as it was.

    Args:
        checkpoint: The checkpoint's directory.

    Raises:
        ValueError: If there is no list, or a file is missing, added or changed; names
            the first.
    """
    try:
        listed = json.loads((checkpoint / _NAME).read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{_NAME}, the list of its files, is missing") from error
    except ValueError as error:
        raise ValueError(f"file {_NAME} changed on disk: {error}") from error
    found = _describe(checkpoint)
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            raise ValueError(
                f"file {name} changed on disk: expected size and checksum "
                f"{listed.get(name, 'none')}, found {found.get(name, 'none')}"
            )


def _describe(checkpoint: epath.Path) -> dict[str, list[Any]]:
    """Path -> size and CRC-32; in a bucket, what `checksums` says."""
    if scheme_of(checkpoint):
        return {
            name: about
            for name, about in checksums(checkpoint).items()
            if name.startswith(("state/", "meta/"))
        }
    files = (
        folder / name
        for item in ("state", "meta")
        for folder, _, names in (checkpoint / item).walk()
        for name in names
    )
    return {str(file.relative_to(checkpoint)): _size_and_crc32(file) for file in files}


def _size_and_crc32(file: epath.Path) -> list[int]:
    size, crc = 0, 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return [size, crc]
