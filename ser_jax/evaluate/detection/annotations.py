"""Boxes on pictures as columns: from COCO's json, or from wherever they are.

What a box must have to be learnt or found is checked here, whatever it was read from.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ser_jax.storage.files import parse_object

_NUM_TOLD = 5
_MOST_PX = 2**31 - 1  # of a side
_MOST = 1e15  # of a box's numbers: beyond, their products are not finite
_NO_ID = np.iinfo(np.int64).min


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """All that is said of the pictures of a split.

    Attributes:
        image_ids: `[n]` int64, each once.
        file_names: Of the pictures, n.
        sizes: `[n, 2]` int32: height and width, px.
        class_names: Class id -> name.
        box_ids: `[m]` int64; the smallest there is where a box has none.
        box_images: `[m]` int64: id of the picture, which need not be there.
        box_classes: `[m]` int64: id of the class, which need not be there.
        boxes: `[m, 4]` float64: x, y, width, height, px; NaN where it is no number.
        areas: `[m]` float64: px of the object; NaN where it is not said.
        is_crowd: `[m]` bool: a box around many.
    """

    image_ids: np.ndarray
    file_names: tuple[str, ...]
    sizes: np.ndarray
    class_names: dict[int, str]
    box_ids: np.ndarray
    box_images: np.ndarray
    box_classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    is_crowd: np.ndarray


class LeftOut(NamedTuple):
    """Boxes that cannot be used, for one reason.

    Attributes:
        number: How many.
        examples: The first few, each in words.
    """

    number: int
    examples: tuple[str, ...]


class Usable(NamedTuple):
    """The boxes that can be used, by picture.

    Attributes:
        rows: `[k]` int64: of the annotations, sorted by picture.
        starts: `[n + 1]` int64: those of picture i are `rows[starts[i]:starts[i + 1]]`.
        left_out: Reason -> the others.
    """

    rows: np.ndarray
    starts: np.ndarray
    left_out: dict[str, LeftOut]


def usable(annotations: Annotations) -> Usable:
    """The boxes that have a picture, a class and a part within the picture.

    Args:
        annotations: All of them.

    Returns:
        Those, sorted by picture, and why the others are not among them.
    """
    a = annotations
    order = np.argsort(a.image_ids, kind="stable")
    at = np.searchsorted(a.image_ids, a.box_images, sorter=order)
    picture = order[np.minimum(at, len(order) - 1)]
    height, width = a.sizes[picture].T
    is_number = (np.abs(a.boxes) < _MOST).all(1)
    x, y, w, h = np.where(is_number[:, None], a.boxes, 0).T
    problems = {
        "of a picture that is not listed": a.image_ids[picture] != a.box_images,
        "of a class that is not listed": ~np.isin(a.box_classes, list(a.class_names)),
        "not four finite numbers": ~is_number,
        "of no area": (w <= 0) | (h <= 0),
        "outside the picture": (x >= width)
        | (y >= height)
        | (x + w <= 0)
        | (y + h <= 0),
        "given twice": _repeated(a),
    }
    is_left, left_out = np.ones(len(a.boxes), bool), {}
    for reason, is_bad in problems.items():
        found = np.flatnonzero(is_left & is_bad)
        if len(found):
            examples = tuple(_said(a, row) for row in found[:_NUM_TOLD])
            left_out[reason] = LeftOut(len(found), examples)
        is_left &= ~is_bad
    rows = np.flatnonzero(is_left)
    rows = rows[np.argsort(picture[rows], kind="stable")]
    starts = np.searchsorted(picture[rows], np.arange(len(a.image_ids) + 1))
    return Usable(rows, starts, left_out)


def _repeated(a: Annotations) -> np.ndarray:
    """Which boxes repeat an earlier one in everything, the id too: `[m]` bool."""
    is_repeated = np.zeros(len(a.box_ids), bool)
    _, group, counts = np.unique(a.box_ids, return_inverse=True, return_counts=True)
    rows = np.flatnonzero((counts[group] > 1) & (a.box_ids != _NO_ID))
    seen = set()
    for row in rows:
        whole = (a.box_ids[row], a.box_images[row], a.box_classes[row])
        said = (*whole, *a.boxes[row])
        is_repeated[row] = said in seen
        seen.add(said)
    return is_repeated


def _said(a: Annotations, row: int) -> str:
    box = ", ".join(f"{value:g}" for value in a.boxes[row])
    name = "" if a.box_ids[row] == _NO_ID else f" {a.box_ids[row]}"
    return (
        f"annotation{name} of picture {a.box_images[row]}, class {a.box_classes[row]}: "
        f"[{box}]"
    )


def read_annotations(path: epath.Path, data: bytes) -> Annotations:
    """What COCO's json says of boxes; outlines and all else in it are not kept.

    Args:
        path: Of the file, for errors.
        data: What it holds.

    Returns:
        The annotations.

    Raises:
        ValueError: If it is not COCO's json; names what is wrong in the file.
    """
    try:
        # Outlines are most of the file: they go as soon as they are read.
        content = parse_object(data, without=("segmentation",))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: {error}. It is to hold COCO's json; download or write "
            "it again."
        ) from error
    listed = _Listed(path, content)
    images, classes = listed.entries("images"), listed.entries("categories")
    boxes = listed.entries("annotations")
    if not images or not classes:
        which = "categories" if images else "images"
        raise ValueError(
            f"{path} lists no {which}; another file? See --coco_train, --coco_eval."
        )
    image_ids = listed.whole_numbers("images", "id")
    sizes = np.stack(
        [listed.whole_numbers("images", k) for k in ("height", "width")], 1
    )
    is_bad = ((sizes < 1) | (sizes > _MOST_PX)).any(1)
    if is_bad.any():
        row = int(np.flatnonzero(is_bad)[0])
        raise ValueError(
            f"{path}: image {image_ids[row]} has height {sizes[row, 0]} and width "
            f"{sizes[row, 1]}, expected 1 to {_MOST_PX}; write the size of the picture."
        )
    _check_once(path, image_ids, listed)
    return Annotations(
        image_ids=image_ids,
        file_names=tuple(map(str, listed.column("images", "file_name"))),
        sizes=sizes.astype(np.int32),
        class_names=_class_names(path, listed),
        box_ids=_ids(boxes),
        box_images=listed.whole_numbers("annotations", "image_id"),
        box_classes=listed.whole_numbers("annotations", "category_id"),
        boxes=_numbers(listed.column("annotations", "bbox"), 4),
        areas=_numbers([[box.get("area")] for box in boxes], 1)[:, 0],
        is_crowd=np.array([bool(box.get("iscrowd")) for box in boxes], bool),
    )


class _Listed:
    """The lists of COCO's json; what is not as it should be raises and is named."""

    def __init__(self, path: epath.Path, content: dict[str, Any]):
        self._path, self._content = path, content

    def entries(self, name: str) -> list[dict[str, Any]]:
        """The objects of a list."""
        found = self._content.get(name)
        if not isinstance(found, list):
            raise ValueError(
                f"{self._path} has no list {name!r}, expected as in COCO's json: lists "
                f"images, annotations, categories; it has "
                f"{', '.join(map(repr, sorted(self._content)[:10])) or 'nothing'}."
            )
        for row, entry in enumerate(found):
            if not isinstance(entry, dict):
                raise ValueError(
                    f"{self._path}: entry {row} of {name!r} is {entry!r:.40}, expected "
                    "an object in braces."
                )
        return found

    def column(self, name: str, key: str) -> list[Any]:
        """One value of each object."""
        entries = self.entries(name)
        try:
            return [entry[key] for entry in entries]
        except KeyError:
            row = next(i for i, entry in enumerate(entries) if key not in entry)
            raise ValueError(
                f"{self._path}: entry {row} of {name!r} has no {key!r}; it has "
                f"{', '.join(map(repr, sorted(entries[row])[:10])) or 'nothing'}."
            ) from None

    def whole_numbers(self, name: str, key: str) -> np.ndarray:
        """The same as int64."""
        values = self.column(name, key)
        for row, value in enumerate(values):
            is_whole = type(value) is int or (
                isinstance(value, float) and value.is_integer()
            )
            if not is_whole or not -(2**63) < value < 2**63:
                raise ValueError(
                    f"{self._path}: entry {row} of {name!r} has {key} {value!r:.40}, "
                    "expected a whole number."
                )
        return np.array(values, np.int64)


def _check_once(path: epath.Path, image_ids: np.ndarray, listed: _Listed) -> None:
    ids, counts = np.unique(image_ids, return_counts=True)
    if (counts > 1).any():
        twice = ids[counts > 1][0]
        names = listed.column("images", "file_name")
        which = [str(names[i]) for i in np.flatnonzero(image_ids == twice)[:2]]
        raise ValueError(
            f"{path} gives the id {twice} to several images ({', '.join(which)}): "
            "whose are its boxes? Give each an id of its own."
        )


def _class_names(path: epath.Path, listed: _Listed) -> dict[int, str]:
    names: dict[int, str] = {}
    ids = listed.whole_numbers("categories", "id").tolist()
    for key, name in zip(ids, listed.column("categories", "name"), strict=True):
        if names.setdefault(key, str(name)) != str(name):
            raise ValueError(
                f"{path} gives the id {key} to two classes, {names[key]!r} and "
                f"{str(name)!r}; give each an id of its own."
            )
    return names


def _ids(boxes: list[dict[str, Any]]) -> np.ndarray:
    found = (box.get("id") for box in boxes)
    whole = (i if type(i) is int and abs(i) < 2**63 else _NO_ID for i in found)
    return np.fromiter(whole, np.int64, len(boxes))


def _numbers(values: list[Any], width: int) -> np.ndarray:
    """`[m, width]` float64; rows of NaN where there are not so many numbers."""
    try:
        return np.array(values, np.float64).reshape(len(values), width)
    except (TypeError, ValueError, OverflowError):  # not all alike: one after the other
        none = [math.nan] * width
        rows = [v if _are_numbers(v, width) else none for v in values]
        return np.array(rows, np.float64)


def _are_numbers(value: Any, width: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == width
        and all(isinstance(number, int | float) for number in value)
    )
