"""ImageNet-C and CIFAR-10-C as published or as TFDS prepares them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from ser_jax.data.prepare.write import encode_png
from ser_jax.data.sources import Source, open_source
from ser_jax.evaluate.robustness.class_folders import (
    find_set,
    label_classes,
    list_files,
)
from ser_jax.evaluate.robustness.metrics import ALEXNET_ERROR, NUM_SEVERITIES

MAIN_CORRUPTIONS = tuple(ALEXNET_ERROR)
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
_ALL = MAIN_CORRUPTIONS + EXTRA_CORRUPTIONS
_SEVERITIES = range(1, NUM_SEVERITIES + 1)
_SUFFIXES = (".jpeg", ".jpg", ".png")
_TFDS_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
_TFDS_SPLITS = {"imagenet2012_corrupted": "validation", "cifar10_corrupted": "test"}


@dataclasses.dataclass(frozen=True)
class CorruptedSet:
    """A set of corrupted images.

    Attributes:
        made_by: "official": the published images; "tfds": made by TFDS from
            ImageNet after the published recipe.
        is_imagenet: Whether AlexNet's errors refer to it.
        corruptions: Those there, each with all five severities.
        open: (corruption, severity) -> its images.
    """

    made_by: str
    is_imagenet: bool
    corruptions: tuple[str, ...]
    open: Callable[[str, int], Source]


def open_corrupted(
    folder: epath.Path, num_classes: int, class_names: Sequence[str] | None
) -> CorruptedSet:
    """Finds out what a folder holds.

    Args:
        folder: One of: `[<group>/]<corruption>/<severity>/<class>/*.JPEG`, as
            ImageNet-C is published; `<corruption>.npy` and `labels.npy`, as CIFAR-10-C
            is; a TFDS data folder with `imagenet2012_corrupted` or `cifar10_corrupted`.
        num_classes: Number of classes the classifier tells apart.
        class_names: Their names in the order of the labels, if they have any.

    Returns:
        The set; what it lacks is missing from `corruptions`.

    Raises:
        FileNotFoundError: If there is no such folder, or nothing of these in it.
        ValueError: If a severity or a class is missing, or the classes are others.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with corrupted images.")
    if (folder / "labels.npy").is_file():
        found = _arrays(folder, num_classes)
    elif prepared := [name for name in _TFDS_SPLITS if (folder / name).is_dir()]:
        found = _prepared(folder, prepared, num_classes)
    else:
        found = _tree(folder, num_classes, class_names)
    if not found.corruptions:
        raise FileNotFoundError(
            f"no corrupted images in {folder}; expected ImageNet-C "
            "(<corruption>/<severity>/<class>/*.JPEG), CIFAR-10-C (<corruption>.npy "
            "and labels.npy), or a TFDS data folder with imagenet2012_corrupted or "
            f"cifar10_corrupted. Corruptions: {', '.join(_ALL)}."
        )
    return found


def _tree(
    folder: epath.Path, num_classes: int, class_names: Sequence[str] | None
) -> CorruptedSet:
    places = {name: place for name in _ALL if (place := find_set(folder, name))}
    severities = {
        name: [s for s in _SEVERITIES if (place / str(s)).is_dir()]
        for name, place in places.items()
    }
    _check_severities(folder, severities)
    labels: dict[str, int] = {}
    for place in places.values():
        for severity in _SEVERITIES:
            here = label_classes(place / str(severity), num_classes, class_names)
            labels = labels or here
            if here != labels:
                differing = sorted(labels.keys() ^ here.keys())
                raise ValueError(
                    f"{place / str(severity)} is not complete, or others are not: "
                    f"classes {', '.join(differing[:5])} are not everywhere. Unpack "
                    "the archives again."
                )

    def open_one(name: str, severity: int) -> Source:
        records = list_files(places[name] / str(severity), labels, _SUFFIXES)
        return _source("imagenet_c", name, severity, num_classes, records)

    return CorruptedSet("official", num_classes == 1000, tuple(places), open_one)


@dataclasses.dataclass(frozen=True)
class _Rows(Sequence[dict[str, Any]]):
    """Images of an array, as PNG, which loses nothing."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        return {
            "image": encode_png(np.asarray(self.images[index])),
            "label": self.labels[index],
        }


def _arrays(folder: epath.Path, num_classes: int) -> CorruptedSet:
    labels = _load_array(folder / "labels.npy")
    arrays = {
        name: _load_array(path)
        for name in _ALL
        if (path := folder / f"{name}.npy").is_file()
    }
    for name, array in arrays.items():
        shape = (len(labels), 32, 32, 3)
        if array.shape != shape or array.dtype != np.uint8 or len(labels) % 5:
            raise ValueError(
                f"{folder / name}.npy must hold uint8 {list(shape)}, five severities "
                f"on end of the images that labels.npy ({len(labels)} labels) is "
                f"for; it holds {array.dtype} {list(array.shape)}."
            )
    if labels.max() >= num_classes:
        raise ValueError(
            f"{folder}/labels.npy has label {labels.max()}, but the classifier tells "
            f"only {num_classes} classes apart; this set is for another."
        )
    num_pictures = len(labels) // NUM_SEVERITIES

    def open_one(name: str, severity: int) -> Source:
        rows = slice((severity - 1) * num_pictures, severity * num_pictures)
        records = _Rows(arrays[name][rows], labels[rows])
        return _source("cifar10_c", name, severity, num_classes, records)

    return CorruptedSet("official", False, tuple(arrays), open_one)


def _load_array(path: epath.Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Download it again."
        ) from error


def _prepared(
    data_dir: epath.Path, prepared: list[str], num_classes: int
) -> CorruptedSet:
    if len(prepared) > 1:
        raise ValueError(
            f"{data_dir} holds {' and '.join(prepared)}; give a folder with one only."
        )
    (dataset,) = prepared

    def config(name: str, severity: int) -> str:
        return f"{dataset}/{_TFDS_NAMES.get(name, name)}_{severity}"

    def open_one(name: str, severity: int) -> Source:
        split = _TFDS_SPLITS[dataset]
        source = open_source(config(name, severity), split, data_dir)
        if source.num_classes != num_classes:
            raise ValueError(
                f"{source.name!r} has {source.num_classes} classes, but the classifier "
                f"tells {num_classes} apart; this set is for another."
            )
        return source

    severities = {
        name: [s for s in _SEVERITIES if (data_dir / config(name, s)).is_dir()]
        for name in _ALL
    }
    found = {name: there for name, there in severities.items() if there}
    _check_severities(data_dir, found)
    is_imagenet = dataset.startswith("imagenet")
    made_by = "tfds" if is_imagenet else "official"  # that of CIFAR-10 is a copy
    return CorruptedSet(made_by, is_imagenet, tuple(found), open_one)


def _check_severities(folder: epath.Path, found: dict[str, list[int]]) -> None:
    """Refuses a part of a corruption: its mean error would compare with nothing."""
    lacking = [
        f"{name} {', '.join(str(s) for s in _SEVERITIES if s not in there)}"
        for name, there in found.items()
        if len(there) < NUM_SEVERITIES
    ]
    if lacking:
        raise ValueError(
            f"{folder} lacks severities: {'; '.join(lacking)}. Add them, or remove "
            "those corruptions to evaluate the others."
        )


def _source(
    dataset: str, name: str, severity: int, num_classes: int, records: Sequence
) -> Source:
    return Source(
        name=dataset,
        split=f"{name}/{severity}",
        num_classes=num_classes,
        fingerprint={},
        records=records,
    )
