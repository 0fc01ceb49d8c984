"""Files that are there whole or not at all, and what a path is.

Every file that a program replaces is written through here, so there is one spelling of
what a killed one leaves behind: `.NAME.partial`, which nothing reads. In a bucket
(`storage.bucket`) that is nothing.
"""

import contextlib
import fnmatch
import json
import logging
import math
import os
import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from etils import epath

from ser_jax.storage import bucket
from ser_jax.storage.bucket import PathLike

_logger = logging.getLogger(__name__)
_told: set[str] = set()


def as_path(path: PathLike) -> epath.Path:
    """The absolute path that a user means: the one place that turns text into paths.

    Args:
        path: What was given: of this machine, "~" allowed, or in a bucket ("gs://b/a").

    Returns:
        The path.

    Raises:
        ValueError: If it is in a bucket that cannot be read here; says what to install.
    """
    if bucket.scheme_of(path):
        return bucket.bucket_path(path)
    return epath.Path(os.path.abspath(os.path.expanduser(path)))


def local_path(path: PathLike) -> epath.Path:
    """The same, of what is read where it lies: many small files, parts of large ones.

    Args:
        path: What was given.

    Returns:
        The path.

    Raises:
        ValueError: If it is in a bucket.
    """
    if bucket.scheme_of(path):
        raise ValueError(
            f"expected a path of this machine, got {os.fspath(path)!r}: this is not "
            "read from a bucket. Copy it to a disk first and give that path"
        )
    return as_path(path)


def is_within(path: PathLike, folder: PathLike) -> bool:
    """Whether a file lies below a folder, links and ".." followed."""
    name, root = os.fspath(path), os.fspath(folder)
    follow = posixpath.normpath if bucket.scheme_of(path) else os.path.realpath
    return epath.Path(follow(name)).is_relative_to(follow(root))


def num_bytes(path: PathLike) -> int:
    """Size of a file.

    Args:
        path: The file.

    Returns:
        Bytes. (`epath.Path.stat` asks for the owner's name, too, which in containers
        need not exist.)
    """
    if bucket.scheme_of(path):
        return bucket.client(path).size(os.fspath(path))
    return os.stat(path).st_size


def matching(folder: PathLike, pattern: str) -> list[epath.Path]:
    """What lies below a folder, the folder's own name taken as it is.

    Args:
        folder: Where to look; its name may hold brackets, which `glob` would read.
        pattern: Of the path below it: "*/metrics.jsonl". No "**".

    Returns:
        The paths, sorted; [] if there is no such folder.
    """
    name, _, rest = pattern.partition("/")
    root = epath.Path(folder)
    if not root.is_dir():
        return []
    found = sorted(p for p in root.iterdir() if fnmatch.fnmatchcase(p.name, name))
    return [below for p in found for below in matching(p, rest)] if rest else found


@contextlib.contextmanager
def whole_file(path: PathLike) -> Iterator[IO[bytes]]:
    """A binary stream that becomes the file when the block ends without an error.

    Args:
        path: The file; replaced as a whole.

    Yields:
        The stream.

    Raises:
        OSError: If it cannot be written; names the file.
    """
    target = epath.Path(path)
    if bucket.scheme_of(target):
        with tempfile.NamedTemporaryFile() as stream:
            yield stream
            stream.flush()
            bucket.upload(stream.name, target)
        return
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # no space, mostly
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise


@contextlib.contextmanager
def growing_file(path: PathLike) -> Iterator[IO[bytes]]:
    """A binary stream to a new file, which has a number, as programs want it.

    Args:
        path: The file; replaced. In a bucket it is there when the block ends.

    Yields:
        The stream.
    """
    target = epath.Path(path)
    if bucket.scheme_of(target):
        with tempfile.NamedTemporaryFile() as stream:
            try:
                yield stream
            finally:
                bucket.upload(stream.name, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as stream:
        yield stream


@contextlib.contextmanager
def whole_folder(path: PathLike) -> Iterator[epath.Path]:
    """A folder that appears with all its files when the block ends without an error.

    In a bucket one file appears after the other.

    Args:
        path: The folder; absent or empty, so that nothing is replaced.

    Yields:
        Where to write the files.

    Raises:
        FileExistsError: If there is something at the path.
        OSError: If it cannot be written.
    """
    target = epath.Path(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(
            f"expected no folder {target}, or an empty one; there is something in it: "
            "give another, or remove it."
        )
    if bucket.scheme_of(target):
        with tempfile.TemporaryDirectory() as scratch:
            yield epath.Path(scratch)
            bucket.upload_folder(scratch, target)
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, target)  # `epath` takes an empty folder for a full one
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def move(source: epath.Path, target: epath.Path) -> None:
    """Gives a file or folder another name in the same place.

    Args:
        source: What is there.
        target: Its new name; nothing is there yet.
    """
    if bucket.scheme_of(source):
        bucket.move(source, target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def refuse_unwritable(folder: PathLike) -> None:
    """Raises if nothing can be written to a folder, which is made if absent.

    Args:
        folder: The folder.

    Raises:
        OSError: If so.
    """
    path = epath.Path(folder)
    if bucket.scheme_of(path):
        probe = path / f".{uuid.uuid4()}.partial"
        probe.write_bytes(b"")
        probe.unlink()
    else:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()


def write_text(path: PathLike, text: str) -> epath.Path:
    """Path of a text file.

    Args:
        path: The file; replaced as a whole.
        text: Its content; a line break is added.

    Returns:
        The path.
    """
    with whole_file(path) as stream:
        stream.write(f"{text}\n".encode())
    return epath.Path(path)


def write_json(path: PathLike, content: Mapping[str, Any]) -> epath.Path:
    """Path of a JSON file.

    Args:
        path: The file; replaced as a whole.
        content: Name to number, text, or mappings and lists of these. NaN and infinity,
            which JSON lacks, become null.

    Returns:
        The path.
    """
    return write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False))


def read_json(path: PathLike) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ValueError: If it holds something else; names the file.
        OSError: If it cannot be read.
    """
    try:
        return parse_object(epath.Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def parse_object(data: bytes, without: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON object.

    Args:
        data: UTF-8.
        without: Names that are left out, at any depth: what is under them takes no
            memory once it is read.

    Returns:
        The object; a whole number of twenty digits or more is a float in it.

    Raises:
        ValueError: If it is something else, or no JSON.
    """

    def some(found: dict[str, Any]) -> dict[str, Any]:
        for name in without:
            found.pop(name, None)
        return found

    try:
        content = json.loads(
            data.decode(), parse_int=_number, object_hook=some if without else None
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"not an object in braces but {content!r:.40}")
    return content


def warn_once(path: PathLike, message: str) -> None:
    """Logs what is wrong with a file, at the first time that it is asked to.

    Args:
        path: The file.
        message: What is wrong; names it.
    """
    if os.fspath(path) not in _told:
        _told.add(os.fspath(path))
        _logger.warning(message)


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


def _plain(value: Any) -> Any:
    """What JSON can hold: no arrays of one number, no NaN, no infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item"):  # A NumPy or JAX scalar.
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
