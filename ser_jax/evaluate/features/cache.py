"""Features on disk: computed once, part by part, and mapped into memory from then on.

A folder holds `features.npy` and `labels.npy`, both of full size from the start, and
`parts.json`: what they were computed from, and a checksum of every part that is done.
An interrupted extraction goes on where it stopped; a part that is not what was written
is computed anew.
"""

import json
import logging
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from ser_jax.storage.files import read_json, write_json

Compute = Callable[[int, int], tuple[np.ndarray, np.ndarray]]

_logger = logging.getLogger(__name__)


def cached_features(
    folder: epath.Path,
    compute: Compute,
    *,
    key: Mapping[str, Any],
    shape: tuple[int, int],
    part_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of a split, from the folder as far as they are there.

    With several processes the folder must be one that all of them see; the first
    writes.

    Args:
        folder: Where they are kept; made if absent.
        compute: `(start, stop) -> (features [stop - start, width] float32, labels
            [stop - start] int)`; called for one part after another.
        key: What the features depend on, as JSON can hold it. What another key left in
            the folder is replaced.
        shape: Number of examples and width.
        part_size: Examples computed, and lost by an interruption, at a time.

    Returns:
        Features `[n, width]`, float32, and labels `[n]`, int64; mapped from disk,
        read-only.
    """
    files = {name: folder / f"{name}.npy" for name in ("features", "labels")}
    record = {"key": dict(key), "shape": list(shape), "part_size": part_size}
    is_primary = jax.process_index() == 0
    sums = _read_sums(folder / "parts.json", record)
    done = {}
    for name, found in sums.items():
        if found == _checksum(_read(files), int(name), int(name) + part_size):
            done[name] = found
        else:
            _logger.warning(
                "%s: examples from %s on are not what was written; computing them "
                "again.",
                folder,
                name,
            )
    starts = range(0, shape[0], part_size)
    _wait("features read")  # before the first process changes what the others check
    if len(done) < len(starts):
        written = _open(files, shape, keep=bool(done)) if is_primary else {}
        for start in starts:
            if str(start) in done:
                continue
            stop = min(start + part_size, shape[0])
            parts = dict(zip(files, compute(start, stop), strict=True))
            if is_primary:
                for name, array in written.items():
                    array[start:stop] = parts[name]
                    array.flush()
                done[str(start)] = _checksum(written, start, stop)
                write_json(folder / "parts.json", record | {"checksums": done})
        _wait("features written")
    arrays = _read(files)
    return arrays["features"], arrays["labels"]


def _open(
    files: Mapping[str, epath.Path], shape: tuple[int, int], *, keep: bool
) -> dict[str, np.memmap]:
    """The arrays to write to; what they hold is kept, or they are made anew."""
    if keep:
        return {n: np.lib.format.open_memmap(path, "r+") for n, path in files.items()}
    folder = files["features"].parent
    folder.mkdir(parents=True, exist_ok=True)
    # First: it must never speak of other arrays than are there.
    (folder / "parts.json").unlink(missing_ok=True)
    layouts: dict[str, Any] = {
        "features": {"dtype": np.float32, "shape": shape},
        "labels": {"dtype": np.int64, "shape": shape[:1]},
    }
    return {
        name: np.lib.format.open_memmap(path, "w+", **layouts[name])
        for name, path in files.items()
    }


def _read(files: Mapping[str, epath.Path]) -> dict[str, np.ndarray]:
    """The arrays on disk; none of one that is cut short or missing."""
    try:
        return {name: np.load(path, mmap_mode="r") for name, path in files.items()}
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


def _wait(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
