"""CIFAR-10 and CIFAR-100 from their official archives, Python or binary version.

Name, version and features are TFDS's, so that `tfds.data_source("cifar10")` reads what
is written.
"""

import functools
import io
import pathlib
import pickle
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from ser_jax.data.prepare.archives import damaged, open_tar
from ser_jax.data.prepare.image_set import ImageSet, ImageSplit, Item, PrepareError
from ser_jax.data.prepare.published import CIFAR_IMAGES
from ser_jax.data.prepare.write import encode_png

_NUM_PIXELS = 3 * 32 * 32
# The batches name a label with a prefix of their own: "fine_labels", "labels". In the
# order of the label bytes of the binary version.
_PREFIXES = {
    "cifar10": {"label": ""},
    "cifar100": {"coarse_label": "coarse_", "label": "fine_"},
}
_BATCHES = {
    "cifar10": {
        "train": [f"data_batch_{i}" for i in range(1, 6)],
        "test": ["test_batch"],
    },
    "cifar100": {"train": ["train"], "test": ["test"]},
}

Labels = dict[str, Sequence[int]]


def read_cifar(path: epath.Path) -> ImageSet:
    """CIFAR-10 or CIFAR-100 as TFDS's `cifar10` or `cifar100`, images as PNG.

    Args:
        path: cifar-10-python.tar.gz, cifar-10-binary.tar.gz, or those of CIFAR-100.

    Returns:
        Splits `train` and `test`.

    Raises:
        PrepareError: If the archive is damaged, or lacks one of the official files.
    """
    with open_tar(path) as archive:
        files = {
            pathlib.PurePath(member.name).name: file.read()
            for member in archive
            if (file := archive.extractfile(member))
        }
    suffix = ".bin" if any(name.endswith(".bin") for name in files) else ""
    name = "cifar10" if f"test_batch{suffix}" in files else "cifar100"
    builder = tfds.builder(name)
    features = builder.info.features
    try:
        for label, class_names in _class_names(files, name, suffix).items():
            _check_count(f"names of {label}", class_names, features[label].num_classes)
            features[label].names = class_names
        limits = {label: features[label].num_classes for label in _PREFIXES[name]}
        splits = {}
        for split, stems in _BATCHES[name].items():
            batches = [
                _read_batch(stem + suffix, files[stem + suffix], limits, name)
                for stem in stems
            ]
            for stem, (_, pixels) in zip(stems, batches, strict=True):
                _check_count(f"images in {stem}{suffix}", pixels, len(batches[0][1]))
            num_images = sum(len(pixels) for _, pixels in batches)
            splits[split] = ImageSplit(
                _items(split, batches, num_images),
                num_images * _NUM_PIXELS,
                CIFAR_IMAGES[split],
            )
    except KeyError as error:
        raise PrepareError(
            f"{path} lacks {error}; give an archive as published, such as "
            "cifar-10-python.tar.gz"
        ) from error
    except ValueError as error:
        raise damaged(path, error) from error
    return ImageSet(name, str(builder.version), features, splits, archives=(path,))


def _class_names(
    files: dict[str, bytes], name: str, suffix: str
) -> dict[str, list[str]]:
    """Label -> its class names."""
    prefixes = _PREFIXES[name]
    if suffix:
        paths = {
            label: f"{prefix}label_names.txt" if prefix else "batches.meta.txt"
            for label, prefix in prefixes.items()
        }
        return {label: files[path].decode().split() for label, path in paths.items()}
    file = "batches.meta" if name == "cifar10" else "meta"
    meta = _unpickle(file, files[file])
    found = {label: meta[f"{prefix}label_names"] for label, prefix in prefixes.items()}
    for names in found.values():
        if not (isinstance(names, list) and all(isinstance(n, bytes) for n in names)):
            raise ValueError(f"{file}: names of classes expected, got {names!r:.40}")
    return {label: [n.decode() for n in names] for label, names in found.items()}


def _read_batch(
    file: str, data: bytes, limits: Mapping[str, int], name: str
) -> tuple[Labels, np.ndarray]:
    """Label -> classes, and pixels, `[n, 3072]` uint8, channels first; checked."""
    prefixes = _PREFIXES[name]
    labels: Labels
    if file.endswith(".bin"):
        row_bytes = len(prefixes) + _NUM_PIXELS
        if len(data) % row_bytes:
            raise ValueError(f"{file}: {len(data)} bytes are no rows of {row_bytes}")
        rows = np.frombuffer(data, np.uint8).reshape(-1, row_bytes)
        labels, pixels = (
            dict(zip(prefixes, rows.T, strict=False)),
            rows[:, -_NUM_PIXELS:],
        )
    else:
        batch = _unpickle(file, data)
        labels = {label: batch[f"{prefix}labels"] for label, prefix in prefixes.items()}
        pixels = batch["data"]
    if not (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.shape[1:] == (_NUM_PIXELS,)
        and pixels.any()
    ):
        raise ValueError(f"{file}: no images of {_NUM_PIXELS} bytes, or all are black")
    for label, classes in labels.items():
        _check_count(f"of {label} in {file}", classes, len(pixels))
        for index, found in enumerate(classes):
            if (
                not isinstance(found, int | np.integer)
                or not 0 <= found < limits[label]
            ):
                raise ValueError(
                    f"{file}: {label} of image {index} is {found}, expected 0 to "
                    f"{limits[label] - 1}"
                )
    return labels, pixels


def _check_count(what: str, found: Any, expected: int) -> None:
    if not isinstance(found, Sequence | np.ndarray) or len(found) != expected:
        number = len(found) if isinstance(found, Sized) else f"a {type(found).__name__}"
        raise ValueError(f"{number} {what}, expected {expected}")


def _items(
    split: str, batches: list[tuple[Labels, np.ndarray]], num_images: int
) -> Iterator[Item]:
    index = 0
    for labels, pixels in batches:
        for row, row_pixels in enumerate(pixels):
            image = row_pixels.reshape(3, 32, 32).transpose(1, 2, 0)  # [h, w, 3]
            fields: dict[str, Any] = {key: int(of[row]) for key, of in labels.items()}
            fields["id"] = f"{split}_{index:05d}"  # as TFDS numbers them
            index += 1
            load = functools.partial(encode_png, image)
            yield Item(fields["id"], load, fields, index / num_images)


class _ArrayUnpickler(pickle.Unpickler):
    """Loads NumPy arrays in plain containers, and nothing that could run code."""

    _reconstruct = np.empty(0).__reduce__()[0]
    _allowed = {
        # The first is what NumPy 1 wrote, as in the published files.
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The class or function of that name, if it is harmless."""
        try:
            return self._allowed[module_name, global_name]
        except KeyError:
            raise PrepareError(
                f"the archive's pickles ask for {module_name}.{global_name}, which "
                "CIFAR does not need and which might run code; get the archive from "
                "its publisher"
            ) from None


def _unpickle(file: str, data: bytes) -> dict[str, Any]:
    try:
        loaded = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    except PrepareError:
        raise
    except Exception as error:  # damaged, it may raise anything
        raise ValueError(f"{file} is no pickle: {error}") from error
    if not isinstance(loaded, dict) or not all(
        isinstance(key, bytes) for key in loaded
    ):
        raise ValueError(f"{file} holds a {type(loaded).__name__} where names were due")
    return {key.decode(): value for key, value in loaded.items()}
