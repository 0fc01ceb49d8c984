import posixpath

import pytest

from ser_jax.data.prepare.folder import describe
from ser_jax.data.prepare.image_set import PrepareError
from ser_jax.data.prepare.layout import read_layout
from ser_jax.data.prepare.scan import Found


def understood(files, texts=None, folders=()):
    """The layout of a folder of these files; "a/{1,2}.png" is two."""
    found = Found()
    for name in files:
        head, brace, rest = name.partition("{")
        middle, _, tail = rest.partition("}")
        names = [head + m + tail for m in middle.split(",")] if brace else [name]
        for path in names:
            if path.endswith((".png", ".JPEG")):
                found.pictures[path] = 1
            else:
                found.others.append(path)
    above = {posixpath.dirname(path) for path in [*found.pictures, *found.others]}
    found.folders = sorted({"", *above, *folders})
    found.pictures = dict(sorted(found.pictures.items()))
    layout = read_layout(found, lambda path: (texts or {})[path])
    assert sorted(found.pictures) == sorted(
        [path for split in layout.splits.values() for path in split]
        + [out.path for out in layout.left_out if out.path in found.pictures]
    ), "each picture is in one split or left out"
    assert describe(layout, found)
    return layout


def counted(layout):
    """Split -> class -> number of pictures."""
    splits = {}
    for split, labels in layout.splits.items():
        splits[split] = {}
        for label in labels.values():
            splits[split][label] = splits[split].get(label, 0) + 1
    return splits


def lost(layout):
    return sorted(left.path for left in layout.left_out if left.is_lost)


CLASSES = ["cat/{1,2}.png", "dog/{3,4}.png"]


def inside(folder, files=CLASSES):
    return [f"{folder}/{name}" for name in files]


BOTH = {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["{1,2}.png"], {"train": {None: 2}}),
        (CLASSES, {"train": BOTH}),
        (["cat/1.png"], {"train": {"cat": 1}}),
        ([*inside("train"), *inside("val")], {"train": BOTH, "val": BOTH}),
        ([*inside("Train"), *inside("VALID")], {"train": BOTH, "valid": BOTH}),
        ([*inside("train"), *inside("dev")], {"train": BOTH, "dev": BOTH}),
        (
            [*inside("train"), *inside("validation"), "test/{1,2}.png"],
            {"train": BOTH, "validation": BOTH, "test": {None: 2}},
        ),
        # COCO
        (
            ["train2017/{1,2}.png", "val2017/3.png", "annotations/captions.json"],
            {"train": {None: 2}, "val": {None: 1}},
        ),
        (
            ["train2014/1.png", "train2017/2.png"],
            {"train2014": {None: 1}, "train2017": {None: 1}},
        ),
        # YOLO's two, and a wrapper around all
        (
            ["images/train/1.png", "images/val/2.png", "labels/train/1.txt"],
            {"train": {None: 1}, "val": {None: 1}},
        ),
        (
            ["train/images/1.png", "train/labels/1.txt", "valid/images/2.png"],
            {"train": {None: 1}, "valid": {None: 1}},
        ),
        (
            [*inside("set-1/images/train"), *inside("set-1/images/test")],
            {"train": BOTH, "test": BOTH},
        ),
        # STL-10 as pictures, in two usual ways
        (
            [*inside("train"), *inside("test"), "unlabeled/{5,6,7}.png"],
            {"train": BOTH, "test": BOTH, "unlabeled": {None: 3}},
        ),
        (
            ["train_images/1.png", "test_images/2.png", "unlabeled_images/3.png"],
            {"train": {None: 1}, "test": {None: 1}, "unlabeled": {None: 1}},
        ),
        (
            [*inside("training_set/training_set"), *inside("test_set/test_set")],
            {"training": BOTH, "test": BOTH},
        ),
        # ImageNet as unpacked
        (
            [*inside("ILSVRC/Data/CLS-LOC/train"), "ILSVRC/Data/CLS-LOC/val/1.JPEG"],
            {"train": BOTH, "val": {None: 1}},
        ),
        # A split's word within the name; but these are classes
        (
            ["cars_train/1.png", "cars_test/2.png"],
            {"train": {None: 1}, "test": {None: 1}},
        ),
        (
            ["DIV2K_train_HR/1.png", "DIV2K_valid_HR/2.png"],
            {"train": {None: 1}, "valid": {None: 1}},
        ),
        (
            ["freight_train/1.png", "bullet_train/2.png", "crash_test/3.png"],
            {"train": {"freight_train": 1, "bullet_train": 1, "crash_test": 1}},
        ),
        (
            ["bus/1.png", "freight_train/2.png", "test_tube/3.png"],
            {"train": {"bus": 1, "freight_train": 1, "test_tube": 1}},
        ),
        (["train/images/cat/1.png"], {"train": {"cat": 1}}),
        # Wrappers of classes, wrappers within classes, masks beside
        (inside("photos"), {"train": BOTH}),
        (
            ["cat/images/{1,2}.png", "dog/images/{3,4}.png"],
            {"train": BOTH},
        ),
        (
            [*inside("images"), "masks/1.png", "segmentations/2.png"],
            {"train": BOTH},
        ),
        # "train" is a class here, and a class's folder may hold folders
        (
            ["bus/1.png", "car/2.png", "train/3.png"],
            {"train": {"bus": 1, "car": 1, "train": 1}},
        ),
        (["cat/a/b/1.png", "cat/2.png", "dog/3.png"], {"train": {"cat": 2, "dog": 1}}),
        (["val/a/1.png", "val/b/2.png"], {"val": {"a": 1, "b": 1}}),
    ],
)
def test_usual_layouts_are_read_as_meant(files, splits):
    layout = understood(files)
    assert counted(layout) == splits and not lost(layout)


TINY = [
    "t/train/n1/images/n1_{0,1}.JPEG",
    "t/train/n1/n1_boxes.txt",
    "t/train/n2/images/n2_{0,1}.JPEG",
    "t/val/images/val_{0,1}.JPEG",
    "t/val/val_annotations.txt",
    "t/test/images/test_0.JPEG",
    "t/wnids.txt",
]


def test_tiny_imagenet():
    rows = "val_0.JPEG\tn2\t0\t0\t9\t9\nval_1.JPEG\tn1\t0\t0\t9\t9\n"
    layout = understood(TINY, {"t/val/val_annotations.txt": rows})
    assert counted(layout) == {
        "train": {"n1": 2, "n2": 2},
        "val": {"n2": 1, "n1": 1},
        "test": {None: 1},
    }
    assert layout.splits["val"]["t/val/images/val_0.JPEG"] == "n2" and not lost(layout)


def test_tiny_imagenets_list_that_does_not_fit_loses_pictures():
    rows = "val_0.JPEG\tn2\t0\t0\t9\t9\nval_7.JPEG\tn1\t0\t0\t9\t9\n\n"
    layout = understood(TINY, {"t/val/val_annotations.txt": rows})
    assert counted(layout)["val"] == {"n2": 1}
    assert lost(layout) == ["t/val/images/val_1.JPEG", "t/val/images/val_7.JPEG"]


@pytest.mark.parametrize(
    ("files", "splits", "missed"),
    [
        ([*CLASSES, "overview.png"], {"train": BOTH}, ["overview.png"]),
        (
            [*inside("train"), *inside("valid"), "train/x.png", "y.png"],
            {"train": BOTH, "valid": BOTH},
            ["train/x.png", "y.png"],
        ),
        (
            [*inside("train"), *inside("test"), "pool/1.png", "annotations/2.png"],
            {"train": BOTH, "test": BOTH},
            ["pool/1.png"],
        ),
        ([*inside("photos"), "x.png"], {"train": BOTH}, ["x.png"]),
        ([*inside("train"), "pool/1.png"], {"train": BOTH}, ["pool/1.png"]),
    ],
)
def test_a_stray_picture_is_lost_and_not_the_classes(files, splits, missed):
    layout = understood(files)
    assert counted(layout) == splits and lost(layout) == missed


def test_folders_that_hold_the_smaller_part_are_no_classes():
    layout = understood(["{1,2,3,4,5}.png", "a/1.png", "b/2.png"])
    assert counted(layout) == {"train": {None: 7}}
    assert any("no classes" in remark for remark in layout.remarks)


def test_what_splits_do_not_share_is_said():
    layout = understood(
        ["train/{a,b}/1.png", "val/{b,c}/1.png", "test/1.png"], folders=["train/d"]
    )
    assert layout.classes() == ["a", "b", "c"]
    text = "\n".join(layout.remarks)
    assert "train has no picture of 1 class(es): c" in text
    assert "val has no picture of 1 class(es): a" in text
    assert "without classes, label -1: test" in text
    assert ("train/d", "no picture in it: no class", False) in layout.left_out


def test_an_empty_split_is_said():
    layout = understood([*inside("train"), "x.txt"], folders=["test"])
    assert ("test", "no picture in it: no split", False) in layout.left_out


def test_class_names_are_text():
    layout = understood(["caf\udce9/1.png", "two\nlines/2.png"])
    assert layout.classes() == [r"caf\xe9", r"two\nlines"]
    with pytest.raises(PrepareError, match="the same name as text"):
        understood(["caf\udce9/1.png", r"caf\xe9/2.png"])


def test_the_table_counts_classes_and_reasons():
    found = Found(pictures={f"{c}/{i}.png": 1 for c in range(30) for i in range(c + 1)})
    found.pictures["stray.png"] = 1
    found.others = ["list.csv"]
    text = describe(read_layout(found, str), found)
    assert "| train |      465 |      30 |" in text
    assert "and 10 more classes of" in text
    assert "| beside the class folders |      1 |" in text and "list.csv" in text
    assert "1 of 466 count as unreadable" in text
