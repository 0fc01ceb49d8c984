"""Boxes of a set that TFDS prepared as `coco/2017` or like it."""

import concurrent.futures
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ser_jax.data.decode import read_size
from ser_jax.data.progress import ProgressLine
from ser_jax.data.sources import Source, UnreadableRecordError, open_source
from ser_jax.evaluate.detection.annotations import Annotations
from ser_jax.storage.files import matching

_WHERE = ("", "*/", "2017/*/", "coco/2017/*/")
_SPLITS = {"train2017": "train", "val2017": "validation"}  # TFDS's names
_NUM_THREADS = 8


class Prepared(NamedTuple):
    """Where a prepared set is.

    Attributes:
        name: TFDS's: "coco/2017:1.1.0".
        data_dir: Folder of data sets.
    """

    name: str
    data_dir: epath.Path


def find_prepared(folder: epath.Path) -> Prepared | None:
    """The set that a folder is, or holds.

    Args:
        folder: A version's, a set's, or that of all sets.

    Returns:
        Name and place of its newest version; None if there is none.
    """
    for where in _WHERE:
        if found := matching(folder, f"{where}dataset_info.json"):
            version = max((f.parent for f in found), key=lambda d: _order(d.name))
            config, name = version.parent, version.parents[1]
            return Prepared(f"{name.name}/{config.name}:{version.name}", name.parent)
    return None


def open_prepared(prepared: Prepared, split: str) -> tuple[Source, Annotations]:
    """The pictures of a split and what is on them.

    Every record is read once: TFDS keeps boxes with the pictures. Class ids are its
    labels from 1 on, for it does not keep COCO's.

    Args:
        prepared: Of `find_prepared`.
        split: TFDS's ("train", "validation[:10%]"), or COCO's "train2017", "val2017".

    Returns:
        The pictures, encoded, and the annotations, in their order.

    Raises:
        FileNotFoundError: If it lacks a file.
        ValueError: If there is no such split, or it has no boxes.
        UnreadableRecordError: At a record that cannot be read.
    """
    import tensorflow_datasets as tfds  # 0.4 s; worker processes may not need it

    name, data_dir = prepared
    source = open_source(name, _SPLITS.get(split, split), data_dir)
    directory = data_dir / name.replace(":", "/")
    features = tfds.builder_from_directory(directory).info.features
    if "objects" not in features or "image/id" not in features:
        raise ValueError(
            f"{name!r} in {data_dir} has no features 'objects' and 'image/id', as "
            f"TFDS's coco/2017; it has {', '.join(sorted(features))}."
        )
    names = features["objects"].feature["label"].names
    found = list(_read(source))
    objects = [one["objects"] for one in found]
    counts = [len(each["label"]) for each in objects]
    sizes = np.array([one["size"] for one in found], np.int32)
    image_ids = np.array([one["image/id"] for one in found], np.int64)

    def column(key: str, kind: type, *width: int) -> np.ndarray:
        values: list[np.ndarray]
        values = [np.asarray(each[key], kind).reshape(-1, *width) for each in objects]
        return np.concatenate(values)

    return source, Annotations(
        image_ids=image_ids,
        file_names=tuple(one["image/filename"] for one in found),
        sizes=sizes,
        class_names={label + 1: each for label, each in enumerate(names)},
        box_ids=column("id", np.int64),
        box_images=np.repeat(image_ids, counts),
        box_classes=column("label", np.int64) + 1,
        boxes=_in_pixels(column("bbox", np.float64, 4), np.repeat(sizes, counts, 0)),
        areas=column("area", np.float64),
        is_crowd=column("is_crowd", bool),
    )


def _read(source: Source) -> Iterator[dict[str, Any]]:
    """What is said of every picture, in order; the pictures are not kept."""

    def one(index: int) -> dict[str, Any]:
        try:
            record = source.records[index]
            size = read_size(record["image"])
        except (OSError, UnreadableRecordError):
            raise
        except Exception as error:  # on broken bytes readers raise anything
            raise source.unreadable(index, error) from error
        name = record["image/filename"]
        return {
            "objects": record["objects"],
            "size": size,
            "image/id": int(record["image/id"]),
            "image/filename": name.decode() if isinstance(name, bytes) else str(name),
        }

    line = ProgressLine(len(source))
    with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as threads:
        for index, found in enumerate(threads.map(one, range(len(source)))):
            line.update(index + 1, lambda: f"boxes of {source.name}, {source.split}")
            yield found


def _in_pixels(shares: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """TFDS's y0, x0, y1, x1, in shares of the picture, as x, y, width, height."""
    y0, x0, y1, x1 = (shares * np.tile(sizes, 2)).T
    return np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)


def _order(version: str) -> list[int]:
    return [int(n) if n.isdecimal() else -1 for n in version.split(".")]
