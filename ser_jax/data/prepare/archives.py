"""ImageNet from its official archives, and how an archive is opened.

TFDS knows the set but needs TensorFlow to read the archives. Name, version and features
are TFDS's, so that `tfds.data_source("imagenet2012")` reads what is written.
"""

import contextlib
import functools
import lzma
import pathlib
import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import tensorflow_datasets as tfds
from etils import epath

from ser_jax.data.prepare.image_set import ImageSet, ImageSplit, Item, PrepareError
from ser_jax.data.prepare.published import IMAGENET_IMAGES
from ser_jax.storage.files import num_bytes

_BLOCK_BYTES = 512
# Two empty blocks end a tar, and fill it up to a record of 20.
_END_BYTES = 2 * _BLOCK_BYTES
_MOST_END_BYTES = _END_BYTES + 19 * _BLOCK_BYTES


@contextlib.contextmanager
def open_tar(path: epath.Path) -> Iterator[tarfile.TarFile]:
    """The archive, open to read; damage names the archive.

    The `with` block reads to the last member. Then no byte of the file, and no checksum
    of its compression, is left unread.

    Args:
        path: A tar, compressed or not.

    Yields:
        The open archive.

    Raises:
        PrepareError: If it is no tar, cut off, or has a member that cannot be reached.
    """
    try:
        with tarfile.open(path) as archive:
            yield archive
            check_end(archive)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise damaged(path, error) from error
    except OSError as error:
        if error.filename is not None:  # it cannot be opened, and the error says so
            raise
        raise damaged(path, error) from error  # of the compression, or the disk


def damaged(path: epath.Path, why: Exception | str) -> PrepareError:
    """The error that says so of an archive.

    Args:
        path: The archive.
        why: What was found.

    Returns:
        The error, in one line.
    """
    text = str(why).partition("\n")[0].rstrip(":")
    return PrepareError(f"{path} is damaged ({text}); get it again")


def check_end(archive: tarfile.TarFile) -> None:
    """Returns if nothing but the end of an archive follows its last member.

    Python takes a header that it cannot read for the end, and does without an end.

    Args:
        archive: Iterated over to its last member.

    Raises:
        tarfile.ReadError: If members follow, or the end is missing or too long.
    """
    stream: Any = archive.fileobj
    stream.seek(archive.offset)
    end = stream.read(_MOST_END_BYTES + 1)
    if any(end):
        raise tarfile.ReadError(f"no header of a member at byte {archive.offset}")
    if not _END_BYTES <= len(end) <= _MOST_END_BYTES:
        found = str(len(end)) if len(end) < _END_BYTES else f"over {_MOST_END_BYTES}"
        raise tarfile.ReadError(
            f"{found} zeros from byte {archive.offset} on, where {_END_BYTES} to "
            f"{_MOST_END_BYTES} end a tar"
        )


def read_imagenet(train_tar: epath.Path | None, val_tar: epath.Path | None) -> ImageSet:
    """ImageNet (ILSVRC 2012) as TFDS's `imagenet2012`.

    The tars are streamed, never unpacked. Validation labels are the list TFDS ships.

    Args:
        train_tar: ILSVRC2012_img_train.tar, a tar of one tar per class, or None.
        val_tar: ILSVRC2012_img_val.tar, all ILSVRC2012_val_*.JPEG, or None.

    Returns:
        Splits `train` and `validation`, those given. Reading them raises PrepareError
        if a tar has another layout.
    """
    builder = tfds.builder("imagenet2012")
    splits = {}
    if train_tar:
        wnids = set(builder.info.features["label"].names)
        items = _train_items(train_tar, wnids)
        splits["train"] = ImageSplit(
            items, num_bytes(train_tar), IMAGENET_IMAGES["train"]
        )
    if val_tar:
        path = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt")
        items = _val_items(val_tar, path.read_text().split())
        splits["validation"] = ImageSplit(
            items, num_bytes(val_tar), IMAGENET_IMAGES["validation"]
        )
    return ImageSet(
        builder.name,
        str(builder.version),
        builder.info.features,
        splits,
        archives=tuple(filter(None, (train_tar, val_tar))),
    )


def _train_items(path: epath.Path, wnids: set[str]) -> Iterator[Item]:
    size = num_bytes(path)
    with open_tar(path) as outer:
        for class_tar in filter(tarfile.TarInfo.isfile, outer):
            wnid = pathlib.PurePath(class_tar.name).stem
            if wnid not in wnids:
                raise PrepareError(
                    f"{path} holds {class_tar.name!r} where one tar per class, such as "
                    "n01440764.tar, was expected; give ILSVRC2012_img_train.tar as "
                    "published"
                )
            file = outer.extractfile(class_tar)
            with _open_class(class_tar.name, file) as inner:
                for member in filter(tarfile.TarInfo.isfile, inner):
                    offset = class_tar.offset_data + member.offset
                    yield _item(inner, member, wnid, offset / size)


@contextlib.contextmanager
def _open_class(name: str, file: IO[bytes] | None) -> Iterator[tarfile.TarFile]:
    """The tar of one class; damage names it."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as inner:
            yield inner
            check_end(inner)
            if not inner.getmembers():
                raise tarfile.ReadError("it is empty")
    except tarfile.TarError as error:
        raise tarfile.ReadError(f"{name} in it: {error}") from error


def _val_items(path: epath.Path, labels: list[str]) -> Iterator[Item]:
    size = num_bytes(path)
    with open_tar(path) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):
            number = re.search(r"ILSVRC2012_val_(\d{8})\.JPEG$", member.name)
            if not number or not 1 <= int(number[1]) <= len(labels):
                raise PrepareError(
                    f"{path} holds {member.name!r} where ILSVRC2012_val_00000001.JPEG "
                    f"to ILSVRC2012_val_{len(labels):08d}.JPEG were expected; give "
                    "ILSVRC2012_img_val.tar as published"
                )
            label = labels[int(number[1]) - 1]
            yield _item(archive, member, label, member.offset / size)


def _item(
    archive: tarfile.TarFile, member: tarfile.TarInfo, label: str, done_frac: float
) -> Item:
    file = archive.extractfile(member)
    # Read now, not in a thread: a tar is read in order.
    data = file.read() if file else b""
    file_name = pathlib.PurePath(member.name).name
    fields = {"label": label, "file_name": file_name}
    return Item(file_name, functools.partial(bytes, data), fields, done_frac)
