"""How a folder of pictures is meant: its splits and classes, and what is beside."""

import collections
import dataclasses
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence

from ser_jax.data.prepare.image_set import PrepareError
from ser_jax.data.prepare.scan import Found, LeftOut, as_text

_SPLIT_WORDS = (
    "train training trainval val valid validation dev test testing unlabeled unlabelled"
).split()
# "train", "Valid", "test_images", "training_set", "val2017", "train-2014".
_SPLIT = re.compile(
    rf"({'|'.join(_SPLIT_WORDS)})"
    r"(?:[-_ ]?(?:set|data|split|images?|imgs?))?[-_ ]?(?:\d{2}|\d{4})?",
    re.IGNORECASE,
)
# No class is called so where one folder holds all.
_IN_BETWEEN = frozenset(
    "images image imgs img pictures photos jpegimages jpg jpeg png data".split()
)
# Pictures in these, beside the set's own, are masks and the like.
_ANNOTATIONS = frozenset(
    "annotations annotation labels masks segmentations segmentation trimaps "
    "segmentationclass segmentationobject".split()
)


@dataclasses.dataclass
class Layout:
    """A folder, understood.

    Attributes:
        splits: Split name -> path of a picture -> its class, or None without classes.
        left_out: All that is not read, with the reason.
        remarks: What the reader is to know besides, a line each.
    """

    splits: dict[str, dict[str, str | None]]
    left_out: list[LeftOut]
    remarks: list[str]

    def classes(self) -> list[str]:
        """Classes of all splits, sorted."""
        labels = (label for split in self.splits.values() for label in split.values())
        return sorted({label for label in labels if label is not None})


def read_layout(found: Found, read_text: Callable[[str], str]) -> Layout:
    """How the pictures are meant.

    Folders that are called like splits are splits, else all is the split `train`. In a
    split the folders are the classes, pictures however deep in them, unless at least as
    many lie beside them or there are none. A folder that merely wraps others
    (`IMAGES/photos/cat`, `train/images`, `train/cat/images`) is looked through.
    Tiny-ImageNet's `val_annotations.txt` gives the classes of its split.

    Args:
        found: What there is.
        read_text: Returns the text of a file among `found.others`.

    Returns:
        The layout.

    Raises:
        PrepareError: If two class folders have the same name as text.
    """
    layout = Layout({}, list(found.left_out), [])
    root, paths = _look_through("", list(found.pictures), layout, in_split=False)
    beside, folders = _by_folder(root, paths)
    named = _split_folders(root, folders)
    if named:
        _leave_out(layout, beside, "beside the folders of the splits")
        for folder in sorted(folders.keys() - named.keys()):
            is_lost = folder.lower() not in _ANNOTATIONS
            why = (
                "in a folder that is no split" if is_lost else "an annotation's folder"
            )
            _leave_out(layout, folders[folder], why, is_lost)
        _tell_empty(layout, found, root, named, "split")
        for folder, split in named.items():
            path = posixpath.join(root, folder)
            layout.splits[split] = _read_split(
                path, folders[folder], found, read_text, layout
            )
    else:
        layout.splits["train"] = _read_split(root, paths, found, read_text, layout)
    why = "no ending of a picture"
    layout.left_out += [LeftOut(path, why, is_lost=False) for path in found.others]
    _tell_classes_apart(layout)
    return layout


def _by_folder(
    root: str, paths: Iterable[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """The pictures directly in a folder, and the others by the folder they are in."""
    beside, folders = [], collections.defaultdict(list)
    for path in paths:
        first, separator, _ = path[len(root) :].lstrip("/").partition("/")
        if separator:
            folders[first].append(path)
        else:
            beside.append(path)
    return beside, dict(folders)


def _look_through(
    root: str, paths: list[str], layout: Layout, *, in_split: bool
) -> tuple[str, list[str]]:
    """The innermost folder that is no mere wrapper, and the pictures below it."""
    while True:
        beside, folders = _by_folder(root, paths)
        names = [name for name in folders if name.lower() not in _ANNOTATIONS]
        if len(names) != 1:
            return root, paths
        (name,) = names
        below = posixpath.join(root, name)
        is_split = bool(_SPLIT.fullmatch(name))
        if in_split:
            wraps = is_split
        else:
            wraps = not is_split and not _by_folder(below, folders[name])[0]
        is_wrapper = wraps or name.lower() in _IN_BETWEEN
        if not is_wrapper or len(folders[name]) <= len(beside):
            return root, paths
        _leave_out(layout, beside, f"beside {name}/, which holds the others")
        for other in folders.keys() - {name}:
            _leave_out(layout, folders[other], "an annotation's folder", is_lost=False)
        root, paths = below, folders[name]


def _split_folders(root: str, folders: dict[str, list[str]]) -> dict[str, str]:
    """Folder -> split, if all folders are splits, or several, or one of classes."""
    matches = {name: _SPLIT.fullmatch(name) for name in sorted(folders)}
    short = {name: match[1].lower() for name, match in matches.items() if match}
    others = [n for n in folders if n not in short and n.lower() not in _ANNOTATIONS]
    if others and (named_within := _words_within([*short, *others])):
        return named_within
    # "train" may be a class: {bus, car, train}. A split's pictures lie deeper.
    if others and len(short) == 1:
        (name,) = short
        if _by_folder(posixpath.join(root, name), folders[name])[0]:
            return {}
    if len(set(short.values())) == len(short):
        return short
    return {name: re.sub(r"\W", "_", name.lower()) for name in short}


def _words_within(folders: Sequence[str]) -> dict[str, str]:
    """Folder -> split for "cars_train" and "cars_test", but not for "freight_train".

    So only if each name has one word of a split, each another, and one is to train on.
    """
    words = {
        name: [w for w in re.findall("[a-z]+", name.lower()) if w in _SPLIT_WORDS]
        for name in sorted(folders)
    }
    split_of = {name: found[0] for name, found in words.items() if len(found) == 1}
    splits = set(split_of.values())
    is_clear = len(splits) == len(folders) > 1 and splits & {"train", "training"}
    return split_of if is_clear else {}


def _read_split(
    root: str,
    paths: list[str],
    found: Found,
    read_text: Callable[[str], str],
    layout: Layout,
) -> dict[str, str | None]:
    annotations = posixpath.join(root, "val_annotations.txt")
    inner, paths = _look_through(root, paths, layout, in_split=True)
    beside, folders = _by_folder(inner, paths)
    if annotations in found.others and not folders:
        return _read_annotations(annotations, read_text, inner, paths, layout)
    num_inside = len(paths) - len(beside)
    if not folders or len(beside) > num_inside or (beside and len(folders) == 1):
        if folders:
            layout.remarks.append(
                f"{_shown(inner)}: pictures lie beside the folder(s) "
                f"{_some(sorted(folders))}, so that these are no classes"
            )
        return dict.fromkeys(paths)
    _leave_out(layout, beside, "beside the class folders")
    depth = inner.count("/") + 2 if inner else 1
    deep = sorted(
        name
        for name, members in folders.items()
        if any(not _is_wrapped(path.split("/")[depth:-1]) for path in members)
    )
    if deep:
        layout.remarks.append(
            f"{_shown(inner)}: class folder(s) {_some(deep)} hold folders; the class "
            "is that of the first level"
        )
    _tell_empty(layout, found, inner, folders, "class")
    labels = {as_text(name): name for name in folders}
    if len(labels) < len(folders):
        raise PrepareError(
            f"class folders in {_shown(inner)} have the same name as text; rename one "
            f"of {_some(sorted(set(folders) - set(labels.values())))}"
        )
    return {path: label for label, name in labels.items() for path in folders[name]}


def _is_wrapped(folders: Sequence[str]) -> bool:
    return all(name.lower() in _IN_BETWEEN for name in folders)


def _read_annotations(
    file: str,
    read_text: Callable[[str], str],
    root: str,
    paths: list[str],
    layout: Layout,
) -> dict[str, str | None]:
    """Classes by Tiny-ImageNet's list: file name, class and box, tabs in between."""
    rows = [line.split("\t") for line in read_text(file).splitlines()]
    label_of = {row[0]: row[1] for row in rows if len(row) > 1}
    name = posixpath.basename(file)
    split: dict[str, str | None] = {}
    for path in paths:
        label = label_of.pop(posixpath.basename(path), None)
        if label is None:
            _leave_out(layout, [path], f"not in {name}")
        else:
            split[path] = label
    missing = [posixpath.join(root, picture) for picture in label_of]
    _leave_out(layout, missing, f"in {name}, but not there")
    return split


def _tell_empty(
    layout: Layout, found: Found, root: str, names: Iterable[str], kind: str
) -> None:
    """Says which folders beside those of splits or classes hold no picture."""
    for folder in found.folders:
        name = posixpath.basename(folder)
        if not folder or posixpath.dirname(folder) != root or name in names:
            continue
        if kind == "class" or _SPLIT.fullmatch(name):
            _leave_out(layout, [folder], f"no picture in it: no {kind}", is_lost=False)


def _leave_out(
    layout: Layout, paths: Iterable[str], why: str, is_lost: bool = True
) -> None:
    layout.left_out += [LeftOut(path, why, is_lost) for path in paths]


def _tell_classes_apart(layout: Layout) -> None:
    """Remarks on splits without classes, and on classes that not all others have."""
    classes = {split: {*labels.values()} for split, labels in layout.splits.items()}
    labelled = {split: c for split, c in classes.items() if c != {None} and c}
    everywhere = set(layout.classes())
    for split, own in labelled.items():
        if missing := sorted(everywhere - own):
            layout.remarks.append(
                f"{split} has no picture of {len(missing)} class(es): {_some(missing)}"
            )
    if labelled and len(labelled) < len(classes):
        without = ", ".join(sorted(classes.keys() - labelled.keys()))
        layout.remarks.append(f"without classes, label -1: {without}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(as_text, names[:5])) + more


def _shown(folder: str) -> str:
    return as_text(folder) or "the folder"
