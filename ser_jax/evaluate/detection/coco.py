"""COCO, and any set in its format: pictures, boxes and classes of two splits."""

import hashlib
import logging
import re
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ser_jax.data.sources import Source
from ser_jax.evaluate.detection.annotations import (
    Annotations,
    read_annotations,
    usable,
)
from ser_jax.evaluate.detection.files import open_files
from ser_jax.evaluate.detection.split import Categories, CocoSplit
from ser_jax.evaluate.detection.tfds_coco import find_prepared, open_prepared
from ser_jax.storage.files import PathLike, local_path, matching

_NAMED = 5

_logger = logging.getLogger(__name__)


def open_coco(
    folder: PathLike, train: str = "train2017", eval: str = "val2017"
) -> tuple[CocoSplit, CocoSplit]:
    """The two splits of a set, their classes united in the order of the ids.

    A folder as COCO is published, `annotations/instances_<split>.json` and `<split>/`;
    one with other names; or one that TFDS prepared.

    Args:
        folder: Of the set.
        train: Split to learn from; or the path of its json, from the folder or from
            here, with the pictures in a folder beside it or where `file_name` says.
            "train2017[:16]" and "train2017[10%:]" are parts, in the order of the file.
        eval: Split to measure on, likewise.

    Returns:
        Both. What is left out, and classes that one of them lacks, are told.

    Raises:
        FileNotFoundError: If folder, json or pictures are not there.
        ValueError: If a json is not COCO's, the two disagree on a class, or one has no
            boxes that can be used; names the file.
    """
    root = local_path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root}, expected one with annotations/instances_{train}.json "
            f"and the pictures in {train}/, as COCO is published. Elsewhere: --coco."
        )
    opened = [_open(root, train, "--coco_train")]
    opened += opened if eval == train else [_open(root, eval, "--coco_eval")]
    names: dict[int, str] = {}
    for one in opened:
        for key, name in one.annotations.class_names.items():
            if names.setdefault(key, name) != name:
                raise ValueError(
                    f"class {key} is {names[key]!r} in {opened[0].where} and {name!r} "
                    f"in {opened[1].where}; both need the same classes."
                )
    ids = tuple(sorted(names))
    categories = Categories(ids, tuple(names[key] for key in ids))
    first = _split(opened[0], categories)
    if eval == train:
        return first, first
    second = _split(opened[1], categories)
    _tell_lonely_classes(first, second)
    return first, second


class _Opened(NamedTuple):
    """What was found of a split, and of which of its pictures it consists."""

    name: str
    where: str
    annotations: Annotations
    source: Source
    fingerprint: dict[str, Any]
    part: slice | None = None


def _open(root: epath.Path, split: str, flag: str) -> _Opened:
    whole, bracket, part = split.partition("[")
    tried = _places_of_json(root, whole)
    path = next((path for path in tried if path.is_file()), None)
    if path is None and (prepared := find_prepared(root)):
        source, annotations = open_prepared(prepared, split)
        about: dict[str, Any] = source.fingerprint | {"content": source.content}
        return _Opened(split, str(root), annotations, source, about)
    if path is None:
        there = [str(p.relative_to(root)) for p in matching(root, "annotations/*.json")]
        raise FileNotFoundError(
            f"no annotations of split {split!r}: expected {tried[0]}. Found: "
            f"{', '.join(there) or 'no annotations/*.json'}. Another split, or the "
            f"path of its json: {flag}."
        )
    data = path.read_bytes()
    annotations = read_annotations(path, data)
    name = whole.removesuffix(".json").rpartition("/")[2].removeprefix("instances_")
    above = path.parent
    folders = [root / name, above / name, root / "images" / name, above, root]
    known: dict[str, Any] = {
        "split": name,
        "annotations": hashlib.sha256(data).hexdigest()[:16],
    }
    source = open_files(folders, annotations.file_names, annotations.sizes, known)
    chosen = _slice(split, len(annotations.image_ids), flag) if part else None
    name += bracket + part
    return _Opened(name, str(path), annotations, source, known, chosen)


def _slice(split: str, count: int, flag: str) -> slice:
    """The pictures that "name[from:to]" means."""
    found = re.fullmatch(r"[^\[]*\[(-?\d+%?)?:(-?\d+%?)?\]", split)
    if found is None:
        raise ValueError(
            f"{flag} {split!r} is no part of a split; write one as train2017[:16] or "
            "train2017[10%:20%]."
        )

    def place(text: str | None) -> int | None:
        if text is None or not text.endswith("%"):
            return None if text is None else int(text)
        return round(int(text[:-1]) * count / 100)

    return slice(*map(place, found.groups()))


def _places_of_json(root: epath.Path, split: str) -> list[epath.Path]:
    if split.endswith(".json"):
        return [root / split, local_path(split)]
    return [
        root / "annotations" / f"instances_{split}.json",
        root / "annotations" / f"{split}.json",
        root / f"{split}.json",
    ]


def _split(opened: _Opened, categories: Categories) -> CocoSplit:
    a, found = opened.annotations, usable(opened.annotations)
    for reason, (number, examples) in found.left_out.items():
        _logger.warning(
            "%s: left out %d boxes %s: %s%s",
            *(opened.where, number, reason, "; ".join(examples)),
            ", ..." if number > len(examples) else ".",
        )
    rows = found.rows
    boxes, areas, is_crowd = a.boxes[rows], a.areas[rows], a.is_crowd[rows]
    has_area = (areas >= 0) & np.isfinite(areas)
    if is_crowd.all():
        reasons = [f"{n.number} {reason}" for reason, n in found.left_out.items()]
        raise ValueError(
            f"{opened.where}, split {opened.name!r}, has no boxes that can be used, of "
            f"{len(a.boxes)} (left out: {', '.join(reasons) or 'none'}; crowds: "
            f"{is_crowd.sum()}): nothing can be learnt or measured. Another split: "
            "--coco_train, --coco_eval."
        )
    split = CocoSplit(
        name=opened.name,
        categories=categories,
        image_ids=a.image_ids,
        file_names=a.file_names,
        sizes=a.sizes,
        starts=found.starts,
        boxes=boxes,
        labels=np.searchsorted(categories.ids, a.box_classes[rows]).astype(np.int32),
        areas=np.where(has_area, areas, boxes[:, 2] * boxes[:, 3]),
        is_crowd=is_crowd,
        source=opened.source,
        left_out=found.left_out,
        fingerprint=opened.fingerprint
        | {"num_images": len(a.image_ids), "num_boxes": len(rows)},
    )
    if opened.part is None:
        return split
    split = split.subset(np.arange(len(split))[opened.part])
    if split.is_crowd.all():
        raise ValueError(
            f"{opened.where}: this part, {len(split)} pictures, has no boxes. A larger "
            "one: --coco_train, --coco_eval."
        )
    return split


def _tell_lonely_classes(first: CocoSplit, second: CocoSplit) -> None:
    """Says which classes have boxes in one of the splits alone."""
    for one, other, what in (
        (first, second, "counts for nothing in the results"),
        (second, first, "cannot be learnt, and counts as never found"),
    ):
        lonely = np.setdiff1d(one.labels[~one.is_crowd], other.labels[~other.is_crowd])
        if len(lonely):
            names = [one.categories.names[label] for label in lonely[:_NAMED]]
            more = ", ..." if len(lonely) > _NAMED else ""
            _logger.warning(
                "%d classes have boxes in %r and none in %r (%s%s): such a class %s.",
                *(len(lonely), one.name, other.name, ", ".join(names), more, what),
            )
