r"""Copies data sets from a bucket to a disk of this machine, before training on it.

python -m ser_jax.data.stage --source=gs://BUCKET/data --data_dir=/dev/shm/data \
    --names=imagenet2012

Each file has its name when it is whole and its checksum is the bucket's; a command that
was interrupted is run again and copies the rest. Several hosts run it each.
"""

import concurrent.futures
import contextlib
import os
import shutil
import sys
import threading

from absl import app, flags
from etils import epath

from ser_jax.data.progress import ProgressLine
from ser_jax.storage.bucket import checksums, download, scheme_of
from ser_jax.storage.files import PathLike, as_path, local_path, num_bytes

_LAST = "dataset_info.json"  # without it there is no data set
_NUM_THREADS = 8
_GB = 1e9


def _define_flags() -> None:
    flags.DEFINE_string("source", None, "Folder of data sets in a bucket.")
    flags.DEFINE_string("data_dir", None, "Folder of data sets on this machine.")
    flags.DEFINE_list("names", [], "Data sets to copy; all if none is named.")


def stage(
    source: PathLike, data_dir: PathLike, names: tuple[str, ...] = ()
) -> epath.Path:
    """Copies data sets; what is there already, in the size that it has, stays.

    Args:
        source: Folder of data sets in a bucket.
        data_dir: Folder of data sets on this machine; made if absent.
        names: Data sets to copy: "imagenet2012", "imagenet2012/1.0.0"; () for all.

    Returns:
        `data_dir`.

    Raises:
        ValueError: If the source is in no bucket, or `data_dir` is in one.
        FileNotFoundError: If there is no such data set.
        OSError: If there is no room, or what arrives is not what the bucket has.
    """
    root, target = as_path(source), local_path(data_dir)
    if not scheme_of(root):
        raise ValueError(f"expected --source=gs://BUCKET/FOLDER or s3://, got {source}")
    sizes: dict[str, int] = {}
    for name in names or ("",):
        found = {
            os.path.join(name, file): size
            for file, (size, _) in checksums(root / name if name else root).items()
        }
        if not any(os.path.basename(file) == _LAST for file in found):
            raise FileNotFoundError(
                f"no data set {name or 'at all'} in {root}: expected a {_LAST} below "
                f"{root / name if name else root}"
            )
        sizes |= found
    todo = {
        file: size
        for file, size in sizes.items()
        if not (target / file).is_file() or num_bytes(target / file) != size
    }
    target.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(target).free, sum(todo.values())
    if needed > free:
        raise OSError(
            f"no space: {needed / _GB:,.1f} GB are to be copied, {free / _GB:,.1f} GB "
            f"are free in {target}. Name fewer data sets with --names, or another disk"
        )
    _copy_all(root, target, todo)
    return target


def _copy_all(root: epath.Path, target: epath.Path, sizes: dict[str, int]) -> None:
    """Copies files, those last that say that a data set is whole."""
    line, total = ProgressLine(sum(sizes.values()) / _GB), sum(sizes.values())
    done, counting = 0.0, threading.Lock()

    def copy(file: str) -> None:
        nonlocal done
        _copy(root / file, target / file)
        with counting:
            done += sizes[file] / _GB
            line.update(
                done,
                lambda: (
                    f"{done:,.1f} of {total / _GB:,.1f} GB, {line.rate or 0:.2g} GB/s"
                ),
            )

    with (
        contextlib.closing(line),
        concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool,
    ):
        for is_last in (False, True):
            files = [f for f in sizes if (os.path.basename(f) == _LAST) == is_last]
            list(pool.map(copy, sorted(files)))  # raises what went wrong


def _copy(source: epath.Path, file: epath.Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    try:
        download(source, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def main(argv: list[str]) -> None:
    """Copies what the flags name; one line on stderr for a mistake."""
    del argv
    values = flags.FLAGS
    if values.source is None or values.data_dir is None:
        sys.exit("stage: --source and --data_dir are missing: gs://B/data, a folder")
    try:
        folder = stage(values.source, values.data_dir, tuple(values.names))
    except (OSError, ValueError) as error:
        sys.exit(f"stage: {error}")
    except KeyboardInterrupt:
        sys.exit("stage: interrupted; the same command copies the rest")
    print(f"Whole, and what the bucket has: {folder}")


if __name__ == "__main__":
    _define_flags()
    app.run(main)
