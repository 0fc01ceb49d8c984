"""Pictures and boxes on an image of fixed size: they agree, and batches can be told."""

import itertools
import logging

import jax
import numpy as np
import pytest
from helpers.coco_files import COLOURS, content, encode, paint, write_set, write_split

from ser_jax.data.sources import UnreadableRecordError
from ser_jax.data.unreadable import Unreadable
from ser_jax.evaluate.detection.coco import open_coco
from ser_jax.evaluate.detection.examples import (
    Jitter,
    Letterbox,
    eval_examples,
    num_beyond,
    train_examples,
)
from ser_jax.evaluate.detection.placing import fitting, scaled

SAME = jax.tree_util.Partial(np.testing.assert_array_equal)


def one_picture(folder, image, boxes, classes, **more):
    """A split whose first picture is this one."""
    made = [{"image": image, "boxes": boxes, "classes": classes}]
    said = content(made)
    for annotation in said["annotations"]:
        annotation |= more
    said["annotations"].append(said["annotations"][0] | {"iscrowd": 0, "image_id": 2})
    said["images"].append(said["images"][0] | {"id": 2, "file_name": "other.png"})
    write_split(folder, "a", made, said)
    return open_coco(folder, "a", "a")[0]


def painted(folder, height=48, width=80):
    """The smaller box comes first."""
    boxes, classes = [[60, 30, 12, 14], [8, 10, 40, 24]], [90, 1]
    image = paint(height, width, boxes, classes)
    return one_picture(folder, image, boxes, classes)


def where_it_is(image, key):
    """x0, y0, x1, y1 of what has a class's colour, [4], to half a pixel at best."""
    colour = np.array(COLOURS[key])
    share = (image.astype(float) - 128) @ (colour - 128) / ((colour - 128) ** 2).sum()
    other = np.array(COLOURS[91 - key])
    is_other = (image.astype(float) - 128) @ (other - 128) > 0.5 * (
        (other - 128) ** 2
    ).sum()
    rows, columns = np.nonzero((share > 0.5) & ~is_other)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def boxes_of(example):
    there = example["labels"] >= 0
    return dict(
        zip(example["labels"][there].tolist(), example["boxes"][there], strict=True)
    )


@pytest.mark.parametrize("size_px", [40, 64, 96])
def test_letterbox(tmp_path, size_px):
    """Red if boxes lie elsewhere than what is painted, or what pads is not black."""
    split = painted(tmp_path)
    example = Letterbox(split, size_px, 5).map(split.source[0])
    height = int(48 * size_px / 80)
    assert example["pad"].tolist() == [height, size_px]
    assert example["scale"] == np.float32(size_px / 80)
    assert example["image"].shape == (size_px, size_px, 3)
    assert example["image"][:height].min() > 0 and not example["image"][height:].any()
    assert example["labels"].tolist() == [0, 2, -1, -1, -1]
    assert not example["boxes"][2:].any()
    for label, box in boxes_of(example).items():
        found = where_it_is(example["image"], split.categories.ids[label])
        np.testing.assert_allclose(found, box, atol=1.01)
    np.testing.assert_allclose(
        example["boxes"][0], np.array([8, 10, 48, 34]) * size_px / 80
    )
    assert example["image_id"] == 1 and example["index"] == 0
    assert example["valid"] and example["readable"]
    kinds = {key: (value.dtype, value.shape) for key, value in example.items()}
    assert kinds == {
        "image": (np.uint8, (size_px, size_px, 3)),
        "pad": (np.int32, (2,)),
        "extent": (np.float32, (2,)),
        "boxes": (np.float32, (5, 4)),
        "labels": (np.int32, (5,)),
        "scale": (np.float32, ()),
        "image_id": (np.int64, ()),
        "index": (np.int64, ()),
        "valid": (np.bool_, ()),
        "readable": (np.bool_, ()),
    }


def test_the_scale_is_exact_to_the_last_pixel(tmp_path):
    """Red if the short side's rounding moves what is far from the corner."""
    boxes = [[940, 560, 40, 60]]
    split = one_picture(tmp_path, paint(667, 1000, boxes, [1]), boxes, [1])
    example = Letterbox(split, 100).map(split.source[0])
    assert example["pad"].tolist() == [66, 100]
    np.testing.assert_allclose(example["extent"], [66.7, 100])
    image = example["image"].astype(float)
    share = (image[..., 0] - 128) / (220 - 128)  # of each pixel that is red
    np.testing.assert_allclose(share[:66].sum(), 4 * 6, rtol=0.02)
    rows = np.arange(66) + 0.5
    centre = (share[:66].sum(1) * rows).sum() / share[:66].sum()
    np.testing.assert_allclose(centre, 59, atol=0.03)


def test_jitter(tmp_path):
    """Red if boxes and pixels part when scaled, cut, padded or mirrored."""
    split = painted(tmp_path)
    jitter = Jitter(split, 64, 5)
    flipped = cut = padded = lost = 0
    for seed in range(200):
        example = jitter.random_map(split.source[0], np.random.default_rng(seed))
        height, width = example["pad"]
        assert not example["image"][height:].any()
        assert not example["image"][:, width:].any()
        assert example["image"][:height, :width].min() > 0
        assert 0.5 * 64 / 80 <= example["scale"] <= 1.5 * 64 / 80
        boxes = boxes_of(example)
        for label, key in ((0, 1), (2, 90)):
            found = where_it_is(example["image"], key)
            if label in boxes:
                np.testing.assert_allclose(found, boxes[label], atol=1.01)
                x0, y0, x1, y1 = boxes[label]
                assert 0 <= x0 < x1 < width + 1 and 0 <= y0 < y1 < height + 1
                assert max(x1, y1) <= 64
            else:
                lost += 1
                assert found is None or (found[2:] - found[:2]).min() <= 2
        padded += width < 64
        cut += example["scale"] > 64 / 80
        if 0 in boxes and 2 in boxes:
            flipped += boxes[0][0] > boxes[2][0]
    assert 60 < flipped < 120 and 60 < cut < 140 and padded > 60 and lost


def test_without_jitter_it_is_the_letterbox(tmp_path):
    split = painted(tmp_path)
    plain = Jitter(split, 64, scale=(1.0, 1.0), flip_prob=0.0)
    example = plain.random_map(split.source[0], np.random.default_rng(0))
    want = Letterbox(split, 64).map(split.source[0])
    assert want.pop("readable") and want.pop("extent").max() == 64
    jax.tree.map(SAME, example, want)


def test_crowds_are_not_learnt(tmp_path):
    split = one_picture(
        tmp_path, paint(32, 32, [[1, 1, 9, 9]], [1]), [[1, 1, 9, 9]], [1], iscrowd=1
    )
    assert Letterbox(split, 32).map(split.source[0])["labels"].max() == -1
    assert split.ground_truth()["annotations"][0]["iscrowd"] == 1


def test_boxes_reach_no_further_than_the_picture(tmp_path):
    split = one_picture(
        tmp_path, paint(30, 40, [], []), [[-10, -10, 100, 100], [35, 5, 10, 10]], [1, 3]
    )
    example = Letterbox(split, 40).map(split.source[0])
    assert example["boxes"][:2].tolist() == [[0, 0, 40, 30], [35, 5, 40, 15]]


def test_a_box_at_the_edge_comes_back_whole(tmp_path):
    """Red if the last fraction of a pixel is cut from boxes that reach the edge."""
    boxes = [[980, 640, 20, 27]]
    split = one_picture(tmp_path, paint(667, 1000, boxes, [1]), boxes, [1])
    example = Letterbox(split, 300).map(split.source[0])
    x0, y0, x1, y1 = example["boxes"][0] / example["scale"]
    np.testing.assert_allclose([x0, y0, x1 - x0, y1 - y0], boxes[0], rtol=1e-4)


def test_the_largest_of_ten_thousand_are_kept(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    image = paint(200, 200, [], [])
    rng = np.random.default_rng(0)
    sides = rng.permutation(10_000) / 100 + 1
    boxes = [[0, 0, side, side] for side in sides]
    made = [{"image": image, "boxes": boxes, "classes": [1] * len(boxes)}]
    write_split(tmp_path, "a", made)
    split, _ = open_coco(tmp_path, "a", "a")
    example = Letterbox(split, 200, 100).map(split.source[0])
    want = np.sort(sides)[::-1][:100]
    np.testing.assert_allclose(example["boxes"][:, 2], want, rtol=1e-6)
    assert num_beyond(split, 100) == 9_900 and num_beyond(split, 10_000) == 0
    options = {"batch_size": 2, "seed": 0, "num_threads": 1}
    stream = train_examples(split, Jitter(split, 32), **options)
    assert next(stream)["boxes"].shape == (2, 100, 4)
    stream.close()
    assert "the smallest 9900 in all are not learnt from" in caplog.text


def test_the_long_side_fills_the_image():
    """Red if a product that is a little too small is rounded down."""
    for side in range(1, 1000):
        size = np.array([1, side])
        assert scaled(size, fitting(size, 256))[1] == 256


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_tiny_pictures(tmp_path, height, width):
    split = one_picture(
        tmp_path, paint(height, width, [], []), [[0, 0, width, height]], [1]
    )
    example = Letterbox(split, 50).map(split.source[0])
    pad = [max(1, 50 * side // max(height, width)) for side in (height, width)]
    assert example["pad"].tolist() == pad
    assert (example["image"][: pad[0], : pad[1]] == 128).all()
    if min(height, width) > 1 or height == width:
        np.testing.assert_allclose(example["boxes"][0], [0, 0, *pad[::-1]], atol=1)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        example = Jitter(split, 50).random_map(split.source[0], rng)
        height_px, width_px = example["pad"]
        assert (example["image"][:height_px, :width_px] == 128).all()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "L"), ("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "P"), ("PNG", "RGBA")],
)
def test_pictures_of_other_colours(tmp_path, kind, mode):
    split = painted(tmp_path)
    want = Letterbox(split, 80).map(split.source[0])
    image = paint(48, 80, [[8, 10, 40, 24], [60, 30, 12, 14]], [1, 90])
    (tmp_path / "a" / "1.png").write_bytes(encode(image, kind, mode))
    example = Letterbox(split, 80).map(split.source[0])
    if mode == "L":
        assert np.ptp(example["image"], axis=-1).max() == 0
    elif mode != "CMYK":
        SAME(example["image"], want["image"])
    assert example["readable"] and example["image"][0, 0, 0] in range(120, 137)
    SAME(example["boxes"], want["boxes"])


def test_a_file_of_another_size_has_its_boxes_where_they_are(tmp_path):
    """Red if boxes, said for one size, are laid on pixels of another."""
    split = painted(tmp_path)
    want = Letterbox(split, 64).map(split.source[0])
    twice = paint(96, 160, [[16, 20, 80, 48], [120, 60, 24, 28]], [1, 90])
    (tmp_path / "a" / "1.png").write_bytes(encode(twice))
    example = Letterbox(split, 64).map(split.source[0])
    SAME(example["boxes"], want["boxes"])
    assert example["scale"] == want["scale"]
    for label, box in boxes_of(example).items():
        found = where_it_is(example["image"], split.categories.ids[label])
        np.testing.assert_allclose(found, box, atol=1.01)


def test_a_part_of_a_file_of_another_size(tmp_path):
    """Red if a crop is cut where it would be in a file of the stated size."""
    split = painted(tmp_path)
    twice = paint(96, 160, [[16, 20, 80, 48], [120, 60, 24, 28]], [1, 90])
    (tmp_path / "a" / "1.png").write_bytes(encode(twice))
    jitter = Jitter(split, 64, scale=(1.5, 1.5))
    for seed in range(20):
        example = jitter.random_map(split.source[0], np.random.default_rng(seed))
        box = boxes_of(example)[0]
        found = where_it_is(example["image"], 1)
        np.testing.assert_allclose(found, box, atol=1.01)


@pytest.fixture
def splits(tmp_path):
    write_set(tmp_path, 10, 7)
    return open_coco(tmp_path)


def hurt(split):
    """Pictures 2 and 5 are unreadable: one is not there, one is cut off."""
    files, _ = split.source.stored(0)
    files.path(2).unlink()
    files.path(5).write_bytes(files.path(5).read_bytes()[:-40])


def batches(split, count=6, **options):
    options = {"num_threads": 2, "seed": 3} | options
    stream = train_examples(split, Jitter(split, 32, 4), batch_size=4, **options)
    taken = list(itertools.islice(stream, count))
    stream.close()
    return taken


def test_batches_are_told_by_seed_and_step(splits):
    """Red if threads, processes or the step it begins at change a batch."""
    train, _ = splits
    whole = batches(train)
    assert {k: v.shape for k, v in whole[0].items()} == {
        **{"image": (4, 32, 32, 3), "pad": (4, 2), "boxes": (4, 4, 4)},
        **{"labels": (4, 4), "scale": (4,), "image_id": (4,), "index": (4,)},
        **{"valid": (4,), "asked": (4,)},
    }
    assert whole[0]["valid"].all()
    seen = np.concatenate([batch["image_id"] for batch in whole])[:10]
    assert sorted(seen) == list(range(1, 11))
    jax.tree.map(SAME, batches(train, num_threads=1), whole)
    jax.tree.map(SAME, batches(train, 3, start_step=3), whole[3:])
    for process in range(2):
        part = batches(train, process_index=process, process_count=2)
        rows = slice(2 * process, 2 * process + 2)
        mine = jax.tree.map(lambda x, rows=rows: x[rows], whole)
        jax.tree.map(SAME, part, mine)
    assert (batches(train, 1, seed=4)[0]["image"] != whole[0]["image"]).any()


@pytest.mark.slow
def test_workers_make_the_same_batches(splits):
    train, _ = splits
    jax.tree.map(SAME, batches(train, num_workers=2), batches(train))


def test_another_stands_in_to_train(splits):
    """Red if one is not counted, or its boxes are laid on another's picture."""
    train, _ = splits
    hurt(train)
    unreadable = Unreadable(train.source, 0.2, "--max_bad_frac")
    for batch in batches(train):
        unreadable.note(batch)
        assert not set(batch["index"]) & {2, 5}
        SAME(batch["image_id"], train.image_ids[batch["index"]])
        for row, index in enumerate(batch["index"]):
            there = set(batch["labels"][row]) - {-1}
            rows = slice(train.starts[index], train.starts[index + 1])
            assert there <= set(train.labels[rows])
    assert unreadable.indices == {2, 5}
    too_many = Unreadable(train.source, 0.1, "--max_bad_frac")
    where = r"train2017/(3|6)\.png cannot be read: .* raise --max_bad_frac, now 0.1"
    with pytest.raises(UnreadableRecordError, match=where) as error:
        for batch in batches(train):
            too_many.note(batch)
    assert "\n" not in str(error.value)


def evaluated(split, share=1.0, **options):
    unreadable = Unreadable(split.source, share, "--max_bad_frac")
    options = {"batch_size": 4, "num_threads": 2} | options
    stream = eval_examples(
        split, Letterbox(split, 32, 4), unreadable=unreadable, **options
    )
    return list(stream), unreadable.indices


def test_every_picture_once(splits):
    _, val = splits
    found, bad = evaluated(val)
    assert not bad and [len(batch["image"]) for batch in found] == [4, 4]
    valid = np.concatenate([batch["valid"] for batch in found])
    assert valid.tolist() == [True] * 7 + [False]
    ids = np.concatenate([batch["image_id"] for batch in found])
    SAME(ids[:7], val.image_ids)
    for process in range(2):
        part, _ = evaluated(val, process_index=process, process_count=2)
        mine = jax.tree.map(lambda x, process=process: x[process::2], found)
        jax.tree.map(SAME, part, mine)


def test_what_cannot_be_evaluated_is_told(splits, caplog):
    """Red if it counts as a picture without detections, or ends all."""
    caplog.set_level(logging.WARNING)
    _, val = splits
    whole, _ = evaluated(val)
    hurt(val)
    found, bad = evaluated(val)
    assert bad == {2, 5} and caplog.text.count("cannot be read") == 2
    valid = np.concatenate([batch["valid"] for batch in found])
    assert np.flatnonzero(valid).tolist() == [0, 1, 3, 4, 6]
    for one, other in zip(found, whole, strict=True):
        SAME(one["image"][one["valid"]], other["image"][one["valid"]])
        assert not one["image"][~one["valid"] & other["valid"]].any()
    where = r"val2017/(3|6)\.png cannot be read: .* raise --max_bad_frac, now 0.2"
    with pytest.raises(UnreadableRecordError, match=where):
        evaluated(val, 0.2)
