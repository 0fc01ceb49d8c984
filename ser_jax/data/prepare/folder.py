"""Any folder of images as a data set."""

import os
import re
from collections.abc import Iterator

import tensorflow_datasets as tfds
from etils import epath

from ser_jax.data.prepare.image_set import ImageSet, ImageSplit, Item, PrepareError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_SPLIT_FOLDERS = {"train", "test", "val", "validation"}


def read_folder(folder: epath.Path, name: str) -> ImageSet:
    """The JPEG, PNG and WebP files under a folder, however deep.

    If they all lie in sub-folders `train`, `test`, `val` or `validation`, those are the
    splits; otherwise there is one, `train`. If in a split they all lie one level deep
    (`<class>/<file>`), those sub-folders are the classes; splits without classes get
    label -1, and if none has classes there is no feature `label`. Links are followed;
    hidden files and folders are not.

    Args:
        folder: Where to look.
        name: TFDS name to give: lower-case letters, digits and underscores.

    Returns:
        The data set: features `image`, `file_name` (relative to the folder, with "/")
        and perhaps `label`.

    Raises:
        PrepareError: If there is no such folder, no image in it, or the name is not one
            TFDS takes.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise PrepareError(
            f"--name={name!r} is not a TFDS name; use lower-case letters, digits and "
            "underscores, a letter first"
        )
    if not folder.is_dir():
        raise PrepareError(f"there is no folder {folder}; check --folder")
    paths = list(_find_images(folder))
    if not paths:
        raise PrepareError(
            f"no images under {folder}; looked for files ending in "
            f"{', '.join(_SUFFIXES)}"
        )
    has_splits = all(p.parts[0] in _SPLIT_FOLDERS and p.parts[1:] for p in paths)
    num_parents = 1 if has_splits else 0
    by_split: dict[str, list[epath.Path]] = {}
    for path in paths:
        split = path.parts[0] if has_splits else "train"
        by_split.setdefault(split, []).append(path)
    labelled = {
        split
        for split, members in by_split.items()
        if all(len(path.parts) == num_parents + 2 for path in members)
    }
    classes = sorted({p.parent.name for s in labelled for p in by_split[s]})
    features = {"image": tfds.features.Image(), "file_name": tfds.features.Text()}
    if classes:
        features["label"] = tfds.features.ClassLabel(names=classes)
    splits = {
        split: ImageSplit(
            _items(folder, members, bool(classes), split in labelled),
            sum((folder / path).stat().length for path in members),
        )
        for split, members in by_split.items()
    }
    return ImageSet(name, "1.0.0", tfds.features.FeaturesDict(features), splits)


def _find_images(folder: epath.Path) -> Iterator[epath.Path]:
    """Paths relative to the folder, in a fixed order."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in sorted(files):
            if file.lower().endswith(_SUFFIXES) and not file.startswith("."):
                yield (epath.Path(parent) / file).relative_to(folder)


def _items(
    folder: epath.Path, paths: list[epath.Path], has_label: bool, is_labelled: bool
) -> Iterator[Item]:
    for count, path in enumerate(paths, start=1):
        # A name that is not UTF-8 must not stop the run: TFDS stores UTF-8.
        file_name = os.fsencode(path.as_posix()).decode(errors="backslashreplace")
        fields: dict[str, str | int] = {"file_name": file_name}
        if has_label:
            fields["label"] = path.parent.name if is_labelled else -1
        yield Item(file_name, (folder / path).read_bytes, fields, count / len(paths))
