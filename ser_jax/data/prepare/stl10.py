"""STL-10's binary files, as published, as a data set of splits and classes."""

import functools
import os
from collections.abc import Iterator

import numpy as np

from ser_jax.data.prepare.image_set import ImageSplit, Item, PrepareError
from ser_jax.data.prepare.write import encode_png

_SIDE = 96
IMAGE_BYTES = 3 * _SIDE * _SIDE
_SPLITS = {"train": "train", "test": "test", "unlabeled": "unlabelled"}  # TFDS's names
CLASSES = (
    *("airplane", "bird", "car", "cat", "deer"),
    *("dog", "horse", "monkey", "ship", "truck"),
)


def find_stl10(files: list[str]) -> str | None:
    """The folder that holds the binary files.

    Args:
        files: Paths of files.

    Returns:
        The folder's path as in `files`, or None.
    """
    names = {f"{stem}_X.bin" for stem in _SPLITS}
    return next(
        (os.path.dirname(file) for file in files if os.path.basename(file) in names),
        None,
    )


def read_stl10(folder: str) -> dict[str, ImageSplit]:
    """The splits that are there of `train`, `test` and `unlabelled`.

    Args:
        folder: Holds `train_X.bin`, `train_y.bin` and so on.

    Returns:
        Split name -> images as PNG, with the fields `file_name` and `label`, -1 where
        there is none.

    Raises:
        PrepareError: If a file is cut off or does not fit the other.
    """
    splits = {}
    for stem, split in _SPLITS.items():
        path = os.path.join(folder, f"{stem}_X.bin")
        if not os.path.exists(path):
            continue
        num_bytes = os.path.getsize(path)
        if not num_bytes or num_bytes % IMAGE_BYTES:
            raise PrepareError(
                f"{path} has {num_bytes:,} bytes, no multiple of {IMAGE_BYTES:,}, an "
                "image's; unpack stl10_binary.tar.gz again"
            )
        labels = np.full(num_bytes // IMAGE_BYTES, -1)
        if stem != "unlabeled":
            labels = _read_labels(os.path.join(folder, f"{stem}_y.bin"), len(labels))
        splits[split] = ImageSplit(_items(path, split, labels), num_bytes)
    return splits


def _read_labels(path: str, num_images: int) -> np.ndarray:
    if not os.path.exists(path):
        raise PrepareError(f"there is no {path}; unpack stl10_binary.tar.gz again")
    labels = np.fromfile(path, np.uint8).astype(int)
    if len(labels) != num_images or labels.min() < 1 or labels.max() > len(CLASSES):
        raise PrepareError(
            f"{path} should have {num_images} labels of 1 to {len(CLASSES)}, a byte "
            f"each; it has {len(labels)} of {labels.min(initial=255)} to "
            f"{labels.max(initial=0)}; unpack stl10_binary.tar.gz again"
        )
    return labels - 1


def _items(path: str, split: str, labels: np.ndarray) -> Iterator[Item]:
    # Column by column, a channel after the other: [n, channel, w, h].
    images = np.memmap(path, np.uint8, "r").reshape(-1, 3, _SIDE, _SIDE)
    for index, label in enumerate(labels):
        name = f"{split}_{index:05d}"
        fields = {"file_name": name, "label": int(label)}
        load = functools.partial(_encode, images, index)
        yield Item(name, load, fields, (index + 1) / len(labels))


def _encode(images: np.ndarray, index: int) -> bytes:
    return encode_png(np.ascontiguousarray(images[index].transpose(2, 1, 0)))
