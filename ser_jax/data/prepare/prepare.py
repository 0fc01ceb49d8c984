"""From images as they come to a data set that is there whole or not at all."""

import collections
import concurrent.futures
import io
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from etils import epath
from PIL import Image

from ser_jax.data.host_transforms import decode_image
from ser_jax.data.prepare import write
from ser_jax.data.prepare.archives import read_imagenet
from ser_jax.data.prepare.cifar import read_cifar
from ser_jax.data.prepare.folder import read_folder
from ser_jax.data.prepare.image_set import ImageSet, ImageSplit, Item, PrepareError
from ser_jax.data.progress import ProgressLine
from ser_jax.storage.files import as_path, matching, write_text

_LINE_EVERY_S = 5.0


def read_image_set(
    *,
    folder: str | None = None,
    name: str | None = None,
    imagenet_train_tar: str | None = None,
    imagenet_val_tar: str | None = None,
    cifar_archive: str | None = None,
) -> ImageSet:
    """The images the flags of the same names ask for.

    Args:
        folder: A folder of images; needs `name`.
        name: Name of the data set made of a folder.
        imagenet_train_tar: The official archive; may come with the next one.
        imagenet_val_tar: The official archive.
        cifar_archive: An official archive of CIFAR-10 or CIFAR-100.

    Returns:
        The data set to write; its images are not read yet.

    Raises:
        PrepareError: If not exactly one source is given, or it is not there.
    """
    archives = (imagenet_train_tar, imagenet_val_tar, cifar_archive)
    num_sources = sum(
        map(bool, (folder, imagenet_train_tar or imagenet_val_tar, cifar_archive))
    )
    if num_sources != 1:
        raise PrepareError(
            f"{num_sources or 'no'} sources given; give one: --folder with --name, "
            "--imagenet_train_tar and --imagenet_val_tar, or --cifar_archive"
        )
    if bool(folder) != bool(name):
        raise PrepareError(
            "--folder needs --name, the name to give the data set"
            if folder
            else "--name goes with --folder; the archives have names of their own"
        )
    for archive in filter(None, archives):
        if not as_path(archive).is_file():
            raise PrepareError(f"there is no file {archive}")
    if folder and name:
        return read_folder(as_path(folder), name)
    if cifar_archive:
        return read_cifar(as_path(cifar_archive))
    train_tar, val_tar = (
        as_path(tar) if tar else None for tar in (imagenet_train_tar, imagenet_val_tar)
    )
    return read_imagenet(train_tar, val_tar)


def prepare(
    images: ImageSet, data_dir: str | os.PathLike[str], max_bad_frac: float = 0.0
) -> epath.Path:
    """Writes the data set, unless it is there.

    Args:
        images: What to write.
        data_dir: Folder that holds the data sets.
        max_bad_frac: Share of unreadable images to accept, in [0, 1].

    Returns:
        Folder of the data set.

    Raises:
        PrepareError: If `data_dir` cannot be written to, a split has no readable image,
            or more than `max_bad_frac` of the images are unreadable.
    """
    root = as_path(data_dir)
    final_dir = root / images.name / images.version
    if (final_dir / "dataset_info.json").exists():
        _say(f"{final_dir} is there already; remove it to prepare it anew")
        return final_dir
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepareError(
            f"cannot make --data_dir={root}: {error.strerror}; give a folder you may "
            "write to"
        ) from error
    if not os.access(root, os.W_OK):
        raise PrepareError(
            f"--data_dir={root} is read-only; give a folder you may write to"
        )
    for leftover in matching(root, f".{images.name}-{images.version}-*"):
        _say(f"{leftover} is another run's; if none is running, remove it")
    audit = _Audit()
    with write.staged(final_dir) as directory:
        splits = {
            name: write.Split(audit.examples(name, split), split.num_bytes)
            for name, split in images.splits.items()
        }
        try:
            write.write_splits(
                directory, images.name, images.version, images.features, splits
            )
        finally:
            report = audit.report(root / f"{images.name}.unreadable.txt")
        if len(audit.bad) > max_bad_frac * audit.num_images:
            raise PrepareError(
                f"{len(audit.bad)} of {audit.num_images} images cannot be decoded, "
                f"more than --max_bad_frac={max_bad_frac} allows; mend or remove them, "
                f"or allow more ({report}); no data set was written"
            )
    _say(f"{final_dir}: {audit.num_images - len(audit.bad)} images; {report}")
    return final_dir


def to_storable(data: bytes) -> bytes:
    """The image in a form that every reader of TFDS shows as RGB.

    Args:
        data: An encoded image.

    Returns:
        The same bytes for JPEG in RGB or grey and for PNG in RGB; any other image as
        RGB PNG, without loss.

    Raises:
        UnreadableImageError: If the image cannot be decoded in full.
    """
    image = decode_image(data)
    with Image.open(io.BytesIO(data)) as header:
        if header.format == "PNG" and header.mode == "RGB":
            return data
        if header.format in ("JPEG", "MPO") and header.mode in ("RGB", "L"):
            return data
    return write.encode_png(image)


class _Audit:
    """Decodes every image in threads, passes on the good, remembers the bad."""

    def __init__(self):
        self.num_images = 0
        self.bad: list[str] = []

    def examples(
        self, name: str, split: ImageSplit
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, TFDS example) of the readable images; progress goes to stderr."""
        num_images, num_bad = 0, 0
        progress = ProgressLine(1.0, every_s=_LINE_EVERY_S)
        started = time.monotonic()

        def text() -> str:
            rate = num_images / max(time.monotonic() - started, 1e-9)
            return (
                f"{name}: {num_images} images, {item.done_frac:.0%}, {rate:.0f}/s, "
                f"{num_bad} unreadable"
            )

        for item, future in _in_threads(split):
            num_images += 1
            try:
                image = future.result()
            except (ValueError, OSError) as error:  # undecodable; cannot be opened
                num_bad += 1
                self.bad.append(f"{name}: {item.name}\t{error}")
            else:
                yield item.name, {"image": image, **item.fields}
            progress.update(item.done_frac, text)
        progress.close()
        _say(f"{name}: {num_images} images read, {num_bad} unreadable; writing shards")
        self.num_images += num_images
        if num_images == num_bad:
            raise PrepareError(f"split {name!r} has no readable image")

    def report(self, path: epath.Path) -> str:
        """Lists the bad images on stderr and in a file; says where, in one phrase."""
        if not self.bad:
            path.unlink(missing_ok=True)  # of an earlier run
            return "none unreadable"
        for line in self.bad[:20]:
            _say(f"unreadable: {line}")
        write_text(path, "\n".join(self.bad))
        return f"{len(self.bad)} unreadable, listed in {path}"


def _in_threads(
    split: ImageSplit,
) -> Iterator[tuple[Item, concurrent.futures.Future[bytes]]]:
    """Loads and decodes ahead of the consumer, a bounded number, in order."""
    num_threads = os.cpu_count() or 1
    pending: collections.deque[tuple[Item, concurrent.futures.Future[bytes]]]
    pending = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for item in split.items:
            pending.append((item, pool.submit(lambda i: to_storable(i.load()), item)))
            if len(pending) > 4 * num_threads:
                yield pending.popleft()
        yield from pending


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
