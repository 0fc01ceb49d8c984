"""What tells the data of one prepared set from other data, split by split."""

import hashlib
import json
import os
import re
from collections.abc import Mapping

from etils import epath

from ser_jax.storage.bucket import checksums, scheme_of
from ser_jax.storage.files import as_path, matching, write_json

_FILE = "fingerprint.json"


def fingerprint(directory: str | os.PathLike[str]) -> dict[str, str] | None:
    """What the records of each split are, without reading them.

    Args:
        directory: A version of a data set, `<data_dir>/<name>/<version>`.

    Returns:
        Split name -> `sha256:...` over all encoded images and labels in their order,
        where this package wrote the set; `files:...` over names, sizes and times of
        change (in a bucket: checksums) of the split's files, where another did. None if
        there is no data set.
    """
    root = as_path(directory)
    info = _read(root / "dataset_info.json")
    if info is None:
        return None
    recorded = _read(root / _FILE) or {}
    names = [split["name"] for split in info.get("splits", [])]
    return {name: recorded.get(name) or _of_files(root, name) for name in names}


def write_fingerprint(directory: epath.Path, digests: Mapping[str, str]) -> None:
    """Keeps the digests with the set.

    Args:
        directory: Where the set is written.
        digests: Split name -> hexadecimal SHA-256 of its content.
    """
    recorded = {name: f"sha256:{digest}" for name, digest in digests.items()}
    write_json(directory / _FILE, recorded)


def _of_files(root: epath.Path, split: str) -> str:
    """Digest of what the file system says of a split's files."""
    ours = re.compile(rf"(^|-){re.escape(split)}\.[^/]*$")
    files = [path for path in matching(root, "*") if ours.search(path.name)]
    # A set whose files are named in a way of its own: all of them.
    files = files or [p for p in matching(root, "*") if p.name != _FILE]
    known = checksums(root) if scheme_of(root) else {}
    lines = []
    for path in files:
        if known:
            lines.append(f"{path.name} {known[path.name]}\n")
            continue
        stat = os.stat(path)
        lines.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n")
    return f"files:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _read(path: epath.Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
