"""Any folder of images as a data set."""

import collections
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping

import tensorflow_datasets as tfds
from etils import epath

from ser_jax.data.prepare import stl10
from ser_jax.data.prepare.image_set import ImageSet, ImageSplit, Item, PrepareError
from ser_jax.data.prepare.layout import Layout, read_layout
from ser_jax.data.prepare.scan import (
    SUFFIXES,
    Found,
    LeftOut,
    as_text,
    read_picture,
    scan,
)
from ser_jax.storage.tables import table

_MOST_CLASSES, _MOST_NAMES = 20, 3


def read_folder(folder: epath.Path, name: str, upright: bool = True) -> ImageSet:
    """The pictures under a folder, however deep, with the splits and classes it has.

    Args:
        folder: Where to look: see `scan` for what is read, `read_layout` for how it is
            meant. Without a picture, STL-10's binary files are looked for.
        name: TFDS name to give: lower-case letters, digits and underscores.
        upright: Turn pictures as their EXIF orientation says.

    Returns:
        The data set: features `image`, `file_name` (relative to the folder, with "/")
        and, if a split has classes, `label`, -1 in splits without.

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
        raise PrepareError(
            f"there is no folder {as_text(os.fspath(folder))}; check --folder"
        )
    root = os.fspath(folder)
    found = scan(root)
    title = f"{as_text(root)} as {name}:"
    binary = stl10.find_stl10(found.others) if not found.pictures else None
    if binary is not None:
        splits = stl10.read_stl10(os.path.join(root, binary))
        sizes = {s: part.num_bytes // stl10.IMAGE_BYTES for s, part in splits.items()}
        parts = ", ".join(f"{split} ({size})" for split, size in sizes.items())
        return ImageSet(
            name,
            "1.0.0",
            _features(stl10.CLASSES),
            splits,
            understood=f"{title} STL-10's binary files, splits {parts}",
            num_found=sum(sizes.values()),
            lost=_lost(found.left_out),
        )
    layout = read_layout(found, functools.partial(_read_text, root))
    layout.splits = {split: labels for split, labels in layout.splits.items() if labels}
    if not layout.splits:
        reasons = "; ".join(["", *_lost(layout.left_out)[:3]]).replace("\t", ": ")
        raise PrepareError(
            f"no images under {as_text(root)}; looked for files ending in "
            f"{', '.join(sorted(SUFFIXES))}{reasons}"
        )
    classes = layout.classes()
    return ImageSet(
        name,
        "1.0.0",
        _features(classes),
        {
            split: ImageSplit(
                _items(root, labels, bool(classes)),
                sum(found.pictures[path] for path in labels),
            )
            for split, labels in layout.splits.items()
        },
        understood=f"{title}\n\n{describe(layout, found)}",
        num_found=sum(map(len, layout.splits.values())),
        lost=_lost(layout.left_out),
        upright=upright,
    )


def describe(layout: Layout, found: Found) -> str:
    """What was understood of a folder, as tables.

    Args:
        layout: How it is meant.
        found: What there is.

    Returns:
        Splits, pictures a class, what is left out and why, remarks.
    """
    counts = {
        split: collections.Counter(labels.values())
        for split, labels in layout.splits.items()
    }
    rows = [["split", "pictures", "classes", "MB"]]
    for split, labels in layout.splits.items():
        num_bytes = sum(found.pictures[path] for path in labels)
        num_classes = sum(label is not None for label in counts[split])
        rows.append(
            [
                split,
                f"{len(labels)}",
                f"{num_classes or 'none'}",
                f"{num_bytes / 1e6:.1f}",
            ]
        )
    parts = [table(rows)]
    if classes := layout.classes():
        rows = [["class", *counts]]
        for name in classes[:_MOST_CLASSES]:
            rows.append([name, *(f"{of[name]}" for of in counts.values())])
        parts.append(table(rows))
        if rest := classes[_MOST_CLASSES:]:
            sizes = [sum(of[name] for of in counts.values()) for name in rest]
            parts.append(
                f"and {len(rest)} more classes of {min(sizes)} to {max(sizes)} pictures"
            )
    if layout.left_out:
        parts.append(_left_out(layout))
    if num_lost := sum(left.is_lost for left in layout.left_out):
        num_files = num_lost + sum(map(len, layout.splits.values()))
        parts.append(
            f"{num_lost} of {num_files} count as unreadable, a share of "
            f"{num_lost / num_files:.3g}; --max_bad_frac says how large it may be"
        )
    return "\n\n".join([*parts, *layout.remarks])


def _left_out(layout: Layout) -> str:
    groups = collections.defaultdict(list)
    for path, why, is_lost in layout.left_out:
        groups[not is_lost, why].append(as_text(path))
    rows = [["left out", "number", "counts as unreadable", "which"]]
    for (is_harmless, why), paths in sorted(groups.items()):
        names = ", ".join(paths[:_MOST_NAMES])
        more = ", ..." if len(paths) > _MOST_NAMES else ""
        rows.append(
            [why, f"{len(paths)}", "no" if is_harmless else "yes", names + more]
        )
    return table(rows)


def _lost(left_out: Iterable[LeftOut]) -> list[str]:
    return [f"{as_text(left.path)}\t{left.why}" for left in left_out if left.is_lost]


def _features(classes: tuple[str, ...] | list[str]) -> tfds.features.FeaturesDict:
    features = {"image": tfds.features.Image(), "file_name": tfds.features.Text()}
    if classes:
        features["label"] = tfds.features.ClassLabel(names=list(classes))
    return tfds.features.FeaturesDict(features)


def _read_text(root: str, path: str) -> str:
    with open(os.path.join(root, path), errors="replace") as file:
        return file.read()


def _items(
    root: str, labels: Mapping[str, str | None], has_label: bool
) -> Iterator[Item]:
    for count, (path, label) in enumerate(labels.items(), start=1):
        file_name = as_text(path)
        fields: dict[str, str | int] = {"file_name": file_name}
        if has_label:
            fields["label"] = -1 if label is None else label
        load = functools.partial(read_picture, os.path.join(root, path))
        yield Item(file_name, load, fields, count / len(labels))
