"""Features on disk: computed once, part by part, and mapped into memory from then on.

A folder holds `features.npy` and `labels.npy`, both of full size from the start, and
`parts.json`: what they were computed from, and a checksum of every part that is done.
An interrupted extraction goes on where it stopped; a part that is not what was written
is computed anew. One evaluation computes at a time; another waits, and finds them done.

What is in a bucket is mapped from a copy on this machine's scratch, which is uploaded
when it is complete.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from ser_jax.storage.bucket import download, scheme_of, upload
from ser_jax.storage.files import PathLike, local_path, read_json, write_json
from ser_jax.storage.lock import only_writer

Compute = Callable[[int, int], tuple[np.ndarray, np.ndarray]]

_NAMES = ("features", "labels")
_FILES = ("features.npy", "labels.npy", "parts.json")  # the last says what they are
_logger = logging.getLogger(__name__)


def cached_features(
    folder: epath.Path,
    compute: Compute,
    *,
    key: Mapping[str, Any],
    shape: tuple[int, int],
    part_size: int,
    kept_in: epath.Path | None = None,
    scratch: PathLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of a split, from the folder as far as they are there.

    With several processes the folder must be one that all of them see; the first
    writes. Of a bucket each process has a copy.

    Args:
        folder: Where they are kept; made if absent.
        compute: `(start, stop) -> (features [stop - start, width] float32, labels
            [stop - start] int)`; called for one part after another.
        key: What the features depend on, as JSON can hold it. What another key left in
            the folder is replaced.
        shape: Number of examples and width.
        part_size: Examples computed, and lost by an interruption, at a time.
        kept_in: Another folder that they are taken from if it has all of them; nothing
            is written there.
        scratch: Folder of this machine for copies of what is in a bucket; None: one
            for temporary files.

    Returns:
        Features `[n, width]`, float32, and labels `[n]`, int64; mapped from disk,
        read-only.
    """
    record = {"key": dict(key), "shape": list(shape), "part_size": part_size}
    starts = range(0, shape[0], part_size)
    is_primary = jax.process_index() == 0
    here = _on_scratch(folder, record, scratch) if scheme_of(folder) else folder
    is_writer = is_primary or here != folder
    for place in (folder, kept_in or folder):
        arrays, done = _read(_fetched(place, here, record), record)
        if _all_agree(len(done) == len(starts)):
            return arrays["features"], arrays["labels"]
    with only_writer(folder, wait=True) if is_primary else contextlib.nullcontext():
        _all_agree(True)  # the first process has the lock
        arrays, done = _read(_fetched(folder, here, record), record, warn=True)
        if here != folder:  # what one of them lacks, all compute
            done = {k: done[k] for k in map(str, starts) if _all_agree(k in done)}
        _all_agree(True)  # read, before the first process changes what others check
        written = _open(here, shape, keep=bool(done)) if is_writer else {}
        for start in starts:
            if str(start) in done:
                continue
            stop = min(start + part_size, shape[0])
            parts = dict(zip(_NAMES, compute(start, stop), strict=True))
            if is_writer:
                for name, array in written.items():
                    array[start:stop] = parts[name]
                    array.flush()
                done[str(start)] = _checksum(written, start, stop)
                write_json(here / "parts.json", record | {"checksums": done})
        if is_primary and here != folder:
            for name in _FILES:
                upload(here / name, folder / name)
        _all_agree(True)  # written
        arrays = _load(here)
    return arrays["features"], arrays["labels"]


def _on_scratch(
    folder: epath.Path, record: Mapping[str, Any], scratch: PathLike | None
) -> epath.Path:
    """Where this process has its copy of what a folder in a bucket is to have."""
    root = scratch or os.path.join(tempfile.gettempdir(), f"ser_jax-{os.getuid()}")
    about = json.dumps([os.fspath(folder), record], sort_keys=True)
    digest = hashlib.sha256(about.encode()).hexdigest()[:16]
    here = local_path(root) / "features" / digest / f"process{jax.process_index()}"
    here.mkdir(parents=True, exist_ok=True)
    return here


def _fetched(
    place: epath.Path, here: epath.Path, record: Mapping[str, Any]
) -> epath.Path:
    """A folder of this machine with what a place has: itself, or its copy."""
    if not scheme_of(place):
        return place
    there = _read_sums(place / "parts.json", record)
    if there and there != _read_sums(here / "parts.json", record):
        for name in _FILES:
            download(place / name, here / f"{name}.partial")
        for name in _FILES:
            (here / f"{name}.partial").replace(here / name)
    return here


def _read(
    folder: epath.Path, record: Mapping[str, Any], *, warn: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The arrays on disk, and the checksums of the parts that are what was written."""
    arrays, done = _load(folder), {}
    for name, found in _read_sums(folder / "parts.json", record).items():
        if found == _checksum(arrays, int(name), int(name) + record["part_size"]):
            done[name] = found
        elif warn:
            _logger.warning(
                "%s: examples from %s on are not what was written; computing them "
                "again.",
                folder,
                name,
            )
    return arrays, done


def _open(
    folder: epath.Path, shape: tuple[int, int], *, keep: bool
) -> dict[str, np.memmap]:
    """The arrays to write to; what they hold is kept, or they are made anew."""
    files = {name: folder / f"{name}.npy" for name in _NAMES}
    if keep:
        return {n: np.lib.format.open_memmap(path, "r+") for n, path in files.items()}
    # First: it must never speak of other arrays than are there. Who reads the arrays
    # goes on with those that it has opened.
    for path in (folder / "parts.json", *files.values()):
        path.unlink(missing_ok=True)
    layouts: dict[str, Any] = {
        "features": {"dtype": np.float32, "shape": shape},
        "labels": {"dtype": np.int64, "shape": shape[:1]},
    }
    return {
        name: np.lib.format.open_memmap(path, "w+", **layouts[name])
        for name, path in files.items()
    }


def _load(folder: epath.Path) -> dict[str, np.ndarray]:
    """The arrays on disk; none of one that is cut short or missing."""
    try:
        return {n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in _NAMES}
    except (OSError, ValueError):
        return {}


def _read_sums(path: epath.Path, record: Mapping[str, Any]) -> dict[str, int]:
    """Checksums by first example; {} if there are none, or of something else."""
    try:
        found = read_json(path)
        sums = found.pop("checksums")
    except (OSError, ValueError, KeyError):
        return {}
    return (
        sums
        if isinstance(sums, dict) and found == json.loads(json.dumps(record))
        else {}
    )


def _checksum(arrays: Mapping[str, np.ndarray], start: int, stop: int) -> int:
    total = 0
    for array in arrays.values():
        total = zlib.crc32(np.ascontiguousarray(array[start:stop]), total)
    return total


def _all_agree(value: bool) -> bool:
    """Whether it is true in every process; and no process goes on before all are here.

    They may look at a folder that another program is writing to.
    """
    return bool(multihost_utils.process_allgather(np.array(value)).all())
