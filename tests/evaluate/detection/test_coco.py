"""Sets in COCO's format: where they may be, what they may lack, what is said of it."""

import json
import logging
import pickle
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.coco_files import (
    CLASSES,
    content,
    encode,
    paint,
    shapes,
    write_set,
    write_split,
)

from ser_jax.data.decode import decode_image
from ser_jax.data.prepare import write
from ser_jax.data.sources import UnreadableRecordError
from ser_jax.evaluate.detection.coco import open_coco

MADE = shapes(5)


def box(image_id=1, category_id=1, bbox=(1, 2, 3, 4), **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox} | more


def open_with(folder, change, split="train2017"):
    """The splits, once one of them says something else; `change` edits its json."""
    write_set(folder)
    said = content(MADE)
    write_split(folder, split, MADE, change(said) or said)
    return open_coco(folder)


def test_what_is_read_is_what_is_written(tmp_path):
    """Red if a box, a class, a size or a crowd is another's; ids have gaps."""
    said = content(MADE)
    said["annotations"][2]["iscrowd"] = 1
    del said["annotations"][1]["area"], said["annotations"][1]["iscrowd"]
    rng = np.random.default_rng(0)
    rng.shuffle(said["annotations"])
    split, _ = open_with(tmp_path, lambda _: said)
    assert split.categories == ((1, 3, 90), ("red", "green", "blue"))
    truth = split.ground_truth()
    assert truth["images"] == said["images"]
    assert truth["categories"] == said["categories"]

    def seen(one):
        w, h = one["bbox"][2:]
        area = one.get("area", w * h)
        crowd = one.get("iscrowd", 0)
        return (one["image_id"], one["category_id"], *one["bbox"], area, crowd)

    assert sorted(map(seen, truth["annotations"])) == sorted(
        map(seen, said["annotations"])
    )
    assert [one["id"] for one in truth["annotations"]] == list(
        range(1, len(said["annotations"]) + 1)
    )
    assert json.loads(json.dumps(truth)) == truth
    assert not split.left_out
    for i, one in enumerate(MADE):
        np.testing.assert_array_equal(decode_image(split.read(i)), one["image"])
        rows = slice(split.starts[i], split.starts[i + 1])
        assert sorted(split.boxes[rows].tolist()) == sorted(one["boxes"])


def test_places(tmp_path):
    """The published layout, other names, a json anywhere with its pictures."""
    write_set(tmp_path)
    train, val = open_coco(tmp_path)
    assert (train.name, val.name, len(train), len(val)) == (
        "train2017",
        "val2017",
        6,
        4,
    )
    (tmp_path / "val2017").rename(tmp_path / "mine")
    where = tmp_path / "annotations"
    (where / "instances_val2017.json").rename(where / "instances_mine.json")
    _, mine = open_coco(tmp_path, eval="mine")
    assert mine.name == "mine"
    assert mine.fingerprint["annotations"] == val.fingerprint["annotations"]
    assert mine.fingerprint["annotations"] != train.fingerprint["annotations"]

    other = tmp_path / "other" / "mine.json"  # beside a folder of its name
    other.parent.mkdir()
    (where / "instances_mine.json").rename(other)
    (tmp_path / "mine").rename(other.parent / "mine")
    for said in (str(other), "other/mine.json"):
        _, found = open_coco(tmp_path, eval=said)
        assert found.name == "mine" and found.read(3)
    said = json.loads(other.read_text())  # where its file_name says
    for image in said["images"]:
        image["file_name"] = f"deep/er/{image['file_name']}"
    other.write_text(json.dumps(said))
    (tmp_path / "deep").mkdir()
    (other.parent / "mine").rename(tmp_path / "deep" / "er")
    _, found = open_coco(tmp_path, eval=str(other))
    assert found.read(3)


def test_one_split_for_both(tmp_path):
    write_set(tmp_path)
    train, same = open_coco(tmp_path, eval="train2017")
    assert train is same


def test_a_set_that_tfds_prepared(tmp_path):
    """Red if boxes are not in pixels, or a split's name is not understood."""
    write_set(tmp_path / "json")
    there = dict(
        zip(("train", "validation"), open_coco(tmp_path / "json"), strict=True)
    )
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "image/id": np.int64,
            "objects": tfds.features.Sequence(
                {
                    "area": np.int64,
                    "bbox": tfds.features.BBoxFeature(),
                    "id": np.int64,
                    "is_crowd": np.bool_,
                    "label": tfds.features.ClassLabel(names=list(CLASSES.values())),
                }
            ),
        }
    )

    def example(split, i):
        height, width = split.sizes[i]
        rows = range(split.starts[i], split.starts[i + 1]) if i else ()  # 0: no boxes
        objects = []
        for row in rows:
            x, y, w, h = split.boxes[row]
            edges = y / height, x / width, (y + h) / height, (x + w) / width
            objects.append(
                {
                    "area": int(split.areas[row]),
                    "bbox": tfds.features.BBox(*edges),
                    "id": row,
                    "is_crowd": False,
                    "label": int(split.labels[row]),
                }
            )
        return {
            "image": split.read(i),
            "image/filename": split.file_names[i],
            "image/id": split.image_ids[i],
            "objects": objects,
        }

    with write.staged(tmp_path / "tfds" / "2017" / "1.1.0") as directory:
        write.write_splits(
            directory,
            "coco",
            "1.1.0",
            features,
            {
                name: write.Split([(str(i), example(one, i)) for i in range(len(one))])
                for name, one in there.items()
            },
        )
    folder = tmp_path / "data" / "coco"
    folder.parent.mkdir()
    (tmp_path / "tfds").rename(folder)
    for given in (folder.parent, folder, folder / "2017", folder / "2017" / "1.1.0"):
        for found, want in zip(open_coco(given), there.values(), strict=True):
            assert found.categories == ((1, 2, 3), tuple(CLASSES.values()))
            back = [want.image_ids.tolist().index(i) for i in found.image_ids]
            want = want.subset(back)
            assert found.file_names == want.file_names
            np.testing.assert_array_equal(found.sizes, want.sizes)
            is_left = np.repeat(want.image_ids, np.diff(want.starts)) != 1
            np.testing.assert_allclose(found.boxes, want.boxes[is_left], atol=1e-4)
            np.testing.assert_array_equal(found.labels, want.labels[is_left])
            assert found.read(2) == want.read(2)
            assert not found.left_out
    train, _ = open_coco(folder, train="train[:2]")
    assert len(train) == 2
    with pytest.raises(ValueError, match="has no split 'other'; it has train"):
        open_coco(folder, train="other")


def without(name):
    return lambda said: said.pop(name) and None


def first(where, /, **values):
    return lambda said: said[where][0].update(values)


def lacking(name, key):
    return lambda said: said[name][0].pop(key) and None


def repeated(where, /, **values):
    return lambda said: said[where].append(said[where][0] | values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("images"), "has no list 'images', expected as in COCO's json"),
        (without("annotations"), "has no list 'annotations'"),
        (without("categories"), "has no list 'categories'"),
        (lambda said: said.update(images={}), "has no list 'images'"),
        (lambda said: said.update(images=[]), "lists no images"),
        (lambda said: said.update(categories=[]), "lists no categories"),
        (lambda said: said["images"].append(7), "entry 5 of 'images' is 7"),
        (lambda said: [1], r"damaged: not an object in braces but \[1\]"),
        (lacking("images", "width"), "entry 0 of 'images' has no 'width'; it has 'f"),
        (lacking("images", "id"), "entry 0 of 'images' has no 'id'"),
        (lacking("images", "file_name"), "has no 'file_name'"),
        (lacking("annotations", "bbox"), "entry 0 of 'annotations' has no 'bbox'"),
        (lacking("annotations", "image_id"), "'annotations' has no 'image_id'"),
        (lacking("annotations", "category_id"), "has no 'category_id'"),
        (lacking("categories", "name"), "entry 0 of 'categories' has no 'name'"),
        (first("images", id="a1"), "'images' has id 'a1', expected a whole number"),
        (first("images", id=10**30), r"has id 1e\+30, expected a whole number"),
        (first("images", id=None), "has id None, expected a whole number"),
        (first("annotations", image_id=1.5), "has image_id 1.5, expected a whole"),
        (first("images", height=0), r"image 1 has height 0 and width \d+, expected"),
        (first("images", height=2**31), "height 2147483648 and width"),
        (repeated("images", file_name="b"), r"id 1 to several images \(1.png, b\)"),
        (repeated("categories", name="x"), "id 1 to two classes, 'red' and 'x'"),
        (first("categories", name="x"), "class 1 is 'x' in .* and 'red' in .*val2017"),
        (lambda said: said["annotations"].clear(), "no boxes that can be used, of 0"),
        (
            lambda said: (
                [a.update(bbox=[0, 0, 0, 5]) for a in said["annotations"]] and None
            ),
            r"\(left out: \d+ of no area; crowds: 0\): nothing can be learnt",
        ),
        (
            lambda said: [a.update(iscrowd=1) for a in said["annotations"]] and None,
            r"\(left out: none; crowds: [1-9]",
        ),
    ],
)
def test_what_is_not_coco_is_refused(tmp_path, change, message):
    """Red if it passes, ends in a KeyError, or the file is not named."""
    with pytest.raises(ValueError, match=message) as error:
        open_with(tmp_path, change)
    assert "\n" not in str(error.value)
    assert "instances_train2017.json" in str(error.value)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_json_cut_off(tmp_path, keep):
    write_set(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="val2017.json is damaged: not JSON") as error:
        open_coco(tmp_path)
    assert "\n" not in str(error.value) and "download" in str(error.value)


def test_what_is_not_there(tmp_path):
    """No folder, no split, no json, no pictures: each says what was expected."""
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere.*--coco"):
        open_coco(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="Found: no annotations/.*coco_train"):
        open_coco(tmp_path)
    write_set(tmp_path)
    found = "Found: annotations/instances_train2017.json, .*--coco_eval"
    with pytest.raises(FileNotFoundError, match=found):
        open_coco(tmp_path, eval="val2014")
    with pytest.raises(FileNotFoundError, match="expected .*a.json"):
        open_coco(tmp_path, eval="a.json")
    shutil.rmtree(tmp_path / "val2017")
    with pytest.raises(FileNotFoundError, match="no pictures: expected 1.png .*val"):
        open_coco(tmp_path)


NAN = float("nan")


@pytest.mark.parametrize(
    ("added", "reason"),
    [
        (box(image_id=99), "of a picture that is not listed"),
        (box(image_id=-99), "of a picture that is not listed"),
        (box(category_id=2), "of a class that is not listed"),
        (box(bbox=[1, NAN, 3, 4]), "not four finite numbers"),
        (box(bbox=[1, 2, float("inf"), 4]), "not four finite numbers"),
        (box(bbox=[-1e300, -1e300, 1e301, 1e301]), "not four finite numbers"),
        (box(bbox=[1, 2, 3]), "not four finite numbers"),
        (box(bbox=[1, 2, 3, "x"]), "not four finite numbers"),
        (box(bbox=None), "not four finite numbers"),
        (box(bbox=[1, 2, 0, 4]), "of no area"),
        (box(bbox=[1, 2, 3, -4]), "of no area"),
        (box(bbox=[1000, 2, 3, 4]), "outside the picture"),
        (box(bbox=[-5, 2, 5, 4]), "outside the picture"),
        (box(bbox=[1, -4, 5, 4]), "outside the picture"),
        (content(MADE)["annotations"][0], "given twice"),
    ],
)
def test_boxes_that_are_left_out(tmp_path, added, reason, caplog):
    """Red if one is kept, takes others along, or is not told."""
    caplog.set_level(logging.WARNING)
    plain, _ = open_with(tmp_path / "a", lambda said: None)
    split, _ = open_with(tmp_path / "b", lambda said: said["annotations"].append(added))
    assert [(key, found.number) for key, found in split.left_out.items()] == [
        (reason, 1)
    ]
    (example,) = split.left_out[reason].examples
    assert f"of picture {added['image_id']}, class" in example
    assert f"left out 1 boxes {reason}: {example}" in caplog.text
    np.testing.assert_array_equal(split.boxes, plain.boxes)
    np.testing.assert_array_equal(split.starts, plain.starts)


@pytest.mark.parametrize(
    "added",
    [
        box(bbox=[-5, -5, 500, 500], id=9),
        box(bbox=[1, 2, 3, 4], id=1),  # its id is another's, which says nothing
        box(bbox=[1, 2, 3, 4], id="a", area="b"),
        box(bbox=[1, 2, 3, 4], area=NAN),
        box(bbox=[1, 2, 3, 4], area=-7),
        box(bbox=[1, 2, 3, 4], area=float("inf")),
        box(image_id=1.0),
    ],
)
def test_boxes_that_stay(tmp_path, added):
    plain, _ = open_with(tmp_path / "a", lambda said: None)
    split, _ = open_with(tmp_path / "b", lambda said: said["annotations"].append(added))
    assert not split.left_out and len(split.boxes) == len(plain.boxes) + 1
    assert list(added["bbox"]) in split.boxes[: split.starts[1]].tolist()
    last = split.areas[split.starts[1] - 1]
    assert last == added["bbox"][2] * added["bbox"][3]


def test_pictures_without_boxes_and_many_boxes(tmp_path):
    def change(said):
        said["annotations"] = [
            *(box(3, bbox=[i % 30, i // 1000, 1, 1]) for i in range(10_000)),
            box(5),
        ]

    split, _ = open_with(tmp_path, change)
    assert np.diff(split.starts).tolist() == [0, 0, 10_000, 0, 1]


def test_a_class_of_one_split_alone(tmp_path, caplog):
    """Red if it is lost, or labels differ between the splits."""
    caplog.set_level(logging.WARNING)

    def change(said):
        said["categories"].insert(0, {"id": 2, "name": "new"})
        said["annotations"].append(box(category_id=2))

    train, val = open_with(tmp_path, change, "val2017")
    assert train.categories is val.categories
    assert val.categories == ((1, 2, 3, 90), ("red", "new", "green", "blue"))
    assert set(train.labels) <= {0, 2, 3} and 1 in val.labels
    told = r"1 classes have boxes in 'val2017' and none in 'train2017' (new)"
    assert told in caplog.text and "cannot be learnt" in caplog.text


def test_a_part(tmp_path):
    """Red if boxes, files or the ground truth are those of other pictures."""
    write_set(tmp_path)
    split, _ = open_coco(tmp_path)
    part = split.subset([4, 1])
    assert part.image_ids.tolist() == [5, 2] and part.file_names == ("5.png", "2.png")
    for i, j in enumerate([4, 1]):
        np.testing.assert_array_equal(
            part.boxes[part.starts[i] : part.starts[i + 1]],
            split.boxes[split.starts[j] : split.starts[j + 1]],
        )
        assert part.read(i) == split.read(j)
    assert {a["image_id"] for a in part.ground_truth()["annotations"]} == {5, 2}
    assert part.fingerprint != split.fingerprint
    assert part.fingerprint != split.subset([4, 2]).fingerprint
    assert part.subset([1]).read(0) == split.read(1)
    assert pickle.loads(pickle.dumps(part)).read(1) == split.read(1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "No such file"),
        (b"", "the file is empty"),
        (b"no picture", "by its first bytes none of JPEG"),
        (encode(np.zeros((9, 64, 3), np.uint8)), "it has 9 x 64 pixels .height, width"),
    ],
)
def test_pictures_that_cannot_be_read(tmp_path, data, why):
    """Red if the file is not named, or boxes are laid on a picture of other shape."""
    write_set(tmp_path)
    path = tmp_path / "train2017" / "2.png"
    path.unlink() if data is None else path.write_bytes(data)
    split, _ = open_coco(tmp_path)
    with pytest.raises(UnreadableRecordError, match=rf"2\.png cannot be read: {why}"):
        split.read(1)
    assert split.read(0)


def test_a_file_of_another_size_but_the_same_shape(tmp_path):
    made = [{"image": paint(30, 40, [], []), "boxes": [], "classes": []}, *MADE[1:]]
    write_set(tmp_path)
    write_split(tmp_path, "train2017", made)
    path = tmp_path / "train2017" / "1.png"
    for height, width in [(15, 20), (14, 20), (60, 80), (45, 61)]:
        path.write_bytes(encode(paint(height, width, [], [])))
        assert open_coco(tmp_path)[0].read(0)
    path.write_bytes(encode(paint(40, 30, [], [])))
    with pytest.raises(UnreadableRecordError, match="has 40 x 30 .* say 30 x 40"):
        open_coco(tmp_path)[0].read(0)


@pytest.mark.parametrize(
    "part, ids",
    [("[:2]", [1, 2]), ("[4:]", [5, 6]), ("[50%:]", [4, 5, 6]), ("[-1:]", [6])],
)
def test_a_part_of_a_split(tmp_path, part, ids):
    write_set(tmp_path)
    whole, _ = open_coco(tmp_path)
    train, held_out = open_coco(tmp_path, f"train2017{part}", "train2017")
    assert train.image_ids.tolist() == ids
    assert len(held_out) == 6
    assert train.fingerprint != whole.fingerprint
    chosen = [box for box in whole.ground_truth()["annotations"]]
    count = sum(box["image_id"] in ids for box in chosen)
    assert len(train.boxes) == count > 0


@pytest.mark.parametrize(
    "part, message",
    [("[2]", "is no part of a split"), ("[a:]", "is no part"), ("[9:]", "no boxes")],
)
def test_a_part_that_is_none(tmp_path, part, message):
    write_set(tmp_path)
    with pytest.raises(ValueError, match=message):
        open_coco(tmp_path, f"train2017{part}")
