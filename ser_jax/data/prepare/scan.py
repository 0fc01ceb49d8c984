"""What lies below a folder: pictures, and all else with why it is left out."""

import dataclasses
import os
import re
import stat
from typing import NamedTuple

from ser_jax.data.decode import MAX_PIXELS

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .tif .tiff .bmp .dib .ppm .pgm .pbm "
    ".pnm .jp2 .j2k .avif".split()
)
"""Endings of pictures, lower-case, of the formats that `ser_jax.data.decode` reads."""
_UNREAD_SUFFIXES = frozenset(
    ".heic .heif .jxl .svg .eps .psd .tga .exr .hdr .dng .nef .cr2 .arw .dcm".split()
)
_SYSTEM = frozenset(
    "__MACOSX @eaDir $RECYCLE.BIN lost+found Thumbs.db desktop.ini".split()
)
# No picture that is small enough to be read is longer: 16-bit RGBA, not compressed.
_MAX_BYTES = 8 * MAX_PIXELS + 2**24


class LeftOut(NamedTuple):
    """Something that is not read.

    Attributes:
        path: Relative to the folder, with "/", as the file system has it.
        why: The reason, the same words for all of a kind.
        is_lost: It is, or may hold, a picture that was meant; else nobody misses it.
    """

    path: str
    why: str
    is_lost: bool


@dataclasses.dataclass
class Found:
    """What lies below a folder; paths are relative to it, with "/", sorted.

    Attributes:
        pictures: Path -> bytes, of the regular files with a picture's ending.
        others: Regular files without one.
        folders: The folders that were read.
        left_out: What is neither picture nor folder, or cannot be read.
    """

    pictures: dict[str, int] = dataclasses.field(default_factory=dict)
    others: list[str] = dataclasses.field(default_factory=list)
    folders: list[str] = dataclasses.field(default_factory=list)
    left_out: list[LeftOut] = dataclasses.field(default_factory=list)


def scan(root: str) -> Found:
    """What lies below a folder, each folder read once.

    Links are followed, those to folders after all else, so that a folder is found where
    it lies and not where a link to it does.

    Args:
        root: The folder.

    Returns:
        What there is.
    """
    found = Found()
    top = os.path.realpath(root)
    above = set[tuple[int, int]]()
    visited = set[tuple[int, int]]()
    while (parent := os.path.dirname(top)) != top:
        above.add(_identity(parent))
        top = parent
    folders, links = [""], list[str]()
    while folders or links:
        path = folders.pop() if folders else links.pop(0)
        try:
            identity = _identity(os.path.join(root, path))
            if identity in above or identity in visited:
                why = "a link to a folder that is read already, or that this one is in"
                found.left_out.append(LeftOut(path, why, is_lost=False))
                continue
            visited.add(identity)
            with os.scandir(os.path.join(root, path)) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            why = f"a folder that cannot be read: {error.strerror}"
            found.left_out.append(LeftOut(path or ".", why, is_lost=True))
            continue
        found.folders.append(path)
        for entry in inside:
            below = f"{path}/{entry.name}" if path else entry.name
            if entry.name.startswith(".") or entry.name in _SYSTEM:
                why = "hidden, or the system's"
                found.left_out.append(LeftOut(below, why, is_lost=False))
            elif _is_folder(entry):
                (links if entry.is_symlink() else folders).append(below)
            else:
                _add_file(found, below, entry)
    found.pictures = dict(sorted(found.pictures.items()))
    found.others.sort()
    found.folders.sort()
    found.left_out.sort()
    return found


def read_picture(path: str) -> bytes:
    """The bytes of a picture.

    Args:
        path: Where it lies.

    Returns:
        Its content.

    Raises:
        OSError: If it cannot be read, or is no regular file any more.
    """
    # A pipe that took the file's place since would make a plain `open` wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("no regular file")
        return file.read()


def as_text(name: str) -> str:
    """A name of the file system as one line of UTF-8, whatever bytes it is of.

    Args:
        name: Name or path.

    Returns:
        The same; what cannot be shown, and a blank at either end, as in Python's
        strings.
    """
    shown = os.fsencode(name).decode(errors="backslashreplace")
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown
    )
    return re.sub(r"^ +| +$", lambda blanks: r"\x20" * len(blanks[0]), shown)


def _add_file(found: Found, path: str, entry: os.DirEntry[str]) -> None:
    suffix = os.path.splitext(entry.name)[1].lower()
    is_picture = suffix in SUFFIXES
    try:
        status = entry.stat()
    except OSError as error:
        if entry.is_symlink():  # without an ending it may have been a class's folder
            why, is_lost = "a link to nothing", is_picture or not suffix
        else:
            why, is_lost = f"cannot be read: {error.strerror}", is_picture
        found.left_out.append(LeftOut(path, why, is_lost))
        return
    if not stat.S_ISREG(status.st_mode):
        why = "no regular file: a pipe, a socket or a device"
        found.left_out.append(LeftOut(path, why, is_picture))
    elif suffix in _UNREAD_SUFFIXES:
        why = f"{suffix} is not read; save as PNG"
        found.left_out.append(LeftOut(path, why, is_lost=True))
    elif not is_picture:
        found.others.append(path)
    elif not 0 < status.st_size <= _MAX_BYTES:
        why = f"longer than {_MAX_BYTES:,} bytes" if status.st_size else "empty"
        found.left_out.append(LeftOut(path, why, is_lost=True))
    else:
        found.pictures[path] = status.st_size


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that ends in itself
        return False


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
