"""COCO's figures: against COCOeval's, and by hand."""

import json
import os
import pathlib
import sys

import numpy as np
import pytest
from helpers import ROOT

from ser_jax.evaluate.detection.metrics import (
    FIGURES,
    CocoMetrics,
    coco_detections,
    coco_metrics,
    missing,
    over_seeds,
    write_detections,
)

GOLDEN_DIR = pathlib.Path(os.environ.get("SER_GOLDEN_DIR") or ROOT / "tests/golden")
BOX = [10, 10, 50, 50]
ELSEWHERE = [200, 200, 50, 50]


def golden_json(name):
    return json.loads((GOLDEN_DIR / f"{name}.json").read_text())


@pytest.fixture
def recorded():
    """Ground truth and detections whose figures are recorded."""
    return golden_json("detection_gt"), golden_json("detection_det")


def truth(*boxes, classes=("cat", "dog"), num_images=1):
    """Ground truth; a box is its class's id and what differs from `BOX` in image 1."""
    annotations = [
        {"id": 0, "image_id": 1, "category_id": k, "bbox": BOX, "iscrowd": 0, **more}
        for k, more in boxes
    ]
    for box in annotations:
        box.setdefault("area", box["bbox"][2] * box["bbox"][3])
    return {
        "images": [{"id": i} for i in range(1, 1 + num_images)],
        "annotations": annotations,
        "categories": [{"id": i, "name": k} for i, k in enumerate(classes, 1)],
    }


def found(k, score, bbox=BOX, image_id=1):
    return {"image_id": image_id, "category_id": k, "bbox": bbox, "score": score}


def row(n):
    """Boxes side by side, none on another."""
    return [[60 * i, 0, 50, 50] for i in range(n)]


def test_figures_are_cocoevals(recorded):
    expected = golden_json("detection")["pycocotools_stats_bbox"]
    figures = coco_metrics(*recorded).figures
    names = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()
    assert list(figures) == names
    for name, value in zip(names, expected, strict=True):
        assert figures[name] == pytest.approx(value, rel=0, abs=1e-9), name


def test_ground_truth_found_again_is_perfect(recorded):
    gt, _ = recorded
    again = [
        {k: box[k] for k in ("image_id", "category_id", "bbox")} | {"score": 1.0}
        for box in gt["annotations"]
        if not box["iscrowd"]
    ]
    metrics = coco_metrics(gt, again)
    for name in ("AP", "AP50", "AP75", "AR100"):
        assert metrics.figures[name] == pytest.approx(1, abs=1e-12)


def test_nothing_found_is_nought(recorded):
    metrics = coco_metrics(recorded[0], [])
    assert set(metrics.figures.values()) == {0.0}
    assert not metrics.precision.any()


@pytest.mark.parametrize("absent", ["annotations", "images", "categories"])
def test_where_nothing_is_there_is_no_figure(recorded, absent):
    """Red if COCOeval's -1 passes for a figure."""
    gt, detections = recorded
    empty = gt | {"annotations": [], absent: []}
    metrics = coco_metrics(empty, detections if absent == "annotations" else [])
    assert metrics.figures == dict.fromkeys(FIGURES)
    assert set(metrics.per_class.values()) <= {None}
    assert np.isnan(metrics.precision).all()


def test_ap_by_class():
    """By hand; ids have gaps and come in no order, a class of one split is None."""
    gt = truth((90, {}), (3, {"bbox": ELSEWHERE}))
    names = {90: "zebra", 7: "absent", 3: "cat"}
    gt["categories"] = [{"id": i, "name": name} for i, name in names.items()]
    false, late = found(3, 0.9), found(3, 0.5, ELSEWHERE)
    metrics = coco_metrics(gt, [found(90, 0.3), false, late])
    assert list(metrics.per_class) == ["cat", "absent", "zebra"]
    assert metrics.per_class == pytest.approx({"cat": 0.5, "absent": None, "zebra": 1})
    assert metrics.figures["AP"] == pytest.approx(0.75)
    assert metrics.precision.shape == (10, 101, 3)
    np.testing.assert_allclose(metrics.precision[..., 0], 0.5)
    assert np.isnan(metrics.precision[..., 1]).all()


def test_classes_of_one_name_are_told_apart_by_their_ids():
    gt = truth((1, {}), classes=("bat", "bat", "cat"))
    assert coco_metrics(gt, []).per_class == {"bat 1": 0, "bat 2": None, "cat": None}


def test_sizes_without_objects_have_no_figure():
    figures = coco_metrics(truth((1, {})), [found(1, 0.5)]).figures
    assert (figures["APs"], figures["APm"], figures["APl"]) == (None, 1, None)


def test_recall_of_one_ten_and_a_hundred():
    """Red if more than 100 detections count, or fewer."""
    boxes = row(12)
    gt = truth(*((1, {"bbox": bbox}) for bbox in boxes))
    figures = coco_metrics(gt, [found(1, 0.5, bbox) for bbox in boxes]).figures
    recalls = [figures[name] for name in ("AR1", "AR10", "AR100")]
    assert recalls == pytest.approx([1 / 12, 10 / 12, 1])
    for num_false, recall in ((99, 1), (100, 0)):
        false = [found(1, 0.9, bbox) for bbox in row(num_false)]
        gt = truth((1, {"bbox": [0, 300, 50, 50]}))
        figures = coco_metrics(gt, [*false, found(1, 0.1, [0, 300, 50, 50])]).figures
        assert figures["AR100"] == recall
        assert figures["AP"] == pytest.approx(recall / 100)


def test_what_is_found_in_a_crowd_does_not_count():
    crowd = {"bbox": [100, 100, 300, 300], "iscrowd": 1}
    detections = [
        found(1, 0.1),
        *(found(1, 0.9, [100 + i, 150, 40, 80]) for i in range(3)),
    ]
    assert coco_metrics(truth((1, {}), (1, crowd)), detections).figures["AP"] == 1
    alone = crowd | {"iscrowd": 0}
    assert coco_metrics(truth((1, {}), (1, alone)), detections).figures["AP"] < 0.5


def test_ids_of_annotations_do_not_matter(recorded):
    """Red if an object of id 0, or of one that another has, counts as not found."""
    gt, detections = recorded
    same = gt | {"annotations": [box | {"id": 0} for box in gt["annotations"]]}
    expected = coco_metrics(gt, detections).figures
    assert coco_metrics(same, detections).figures == expected


def test_it_says_nothing_and_leaves_what_it_is_given(recorded, capfd, caplog):
    """Red if areas and ids are written into what goes to the file."""
    caplog.set_level("INFO")
    before = json.dumps(recorded)
    coco_metrics(*recorded)
    assert json.dumps(recorded) == before
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_without_the_package(monkeypatch, recorded):
    assert missing() is None
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert 'pip install -e ".[detection]"' in missing()
    with pytest.raises(ImportError, match=r"faster-coco-eval.*\.\[detection\]"):
        coco_metrics(*recorded)


def converted(boxes, scores, labels, **more):
    about = {
        "image_ids": [7, 9],
        "scales": np.array([0.5, 2.0], np.float32),
        "sizes": np.array([[40, 60], [480, 640]]),
        "category_ids": (3, 90),
    }
    arrays = np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels)
    return coco_detections(*arrays, **(about | more))


BOXES = [[[1, 2, 11, 7], [-4, 5, 99, 99]], [[0, 0, 0, 0], [10, 20, 31.111, 40]]]
SCORES = [[0.25, 0.123456], [0, 0.75]]


def test_detections_are_on_the_pictures_in_cocos_words():
    """By hand: scaled back, cut off at the picture, rounded; no box, no entry."""
    assert converted(BOXES, SCORES, [[0, 1], [-1, 0]]) == [
        {"image_id": 7, "category_id": 3, "bbox": [2, 4, 20, 10], "score": 0.25},
        {"image_id": 7, "category_id": 90, "bbox": [0, 10, 60, 30], "score": 0.12346},
        {"image_id": 9, "category_id": 3, "bbox": [5, 10, 10.56, 10], "score": 0.75},
    ]
    first = converted(BOXES, [[0.25, 0.5], [0, 0.75]], [[0, 1], [-1, 0]])[0]
    assert first["score"] == 0.5, "by falling score"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_detections_that_are_not_finite_are_refused(value):
    with pytest.raises(FloatingPointError, match="has diverged"):
        converted(BOXES, [[0.25, value], [0, 0.75]], [[0, 1], [-1, 0]])
    boxes = [BOXES[0], [BOXES[1][0], [0, 0, value, 1]]]
    with pytest.raises(FloatingPointError, match="has diverged"):
        converted(boxes, SCORES, [[0, 1], [-1, 0]])
    boxes = [BOXES[0], [[0, 0, value, 1], BOXES[1][1]]]
    assert len(converted(boxes, SCORES, [[0, 1], [-1, 0]])) == 3, "that is no box"


def test_what_is_written_gives_the_same_figures(tmp_path, recorded):
    gt, detections = recorded
    path = write_detections(tmp_path / "d.json", detections)
    again = json.loads(path.read_text())
    assert again == detections
    assert coco_metrics(gt, again).figures == coco_metrics(gt, detections).figures
    assert json.loads(write_detections(path, []).read_text()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["d.json"]


def metrics(ap, small=None):
    figures = dict.fromkeys(FIGURES, ap) | {"APs": small}
    per_class = {"cat": ap / 2, "dog": None}
    return CocoMetrics(figures, per_class, np.zeros((10, 101, 2)))


def test_over_seeds():
    """By hand: mean and standard deviation of the sample."""
    results = over_seeds({0: metrics(0.25), 5: metrics(0.5), 7: metrics(0.75)})
    assert (results["AP"], results["AP_std"]) == pytest.approx((0.5, 0.25))
    assert results["APs"] is None and results["APs_std"] is None
    assert results["per_class"] == {"cat": 0.25, "dog": None}
    assert list(results["seeds"]) == ["0", "5", "7"]
    assert results["seeds"]["5"] == metrics(0.5).figures
    one = over_seeds({3: metrics(0.25, small=0.125)})
    assert (one["AP"], one["AP_std"], one["APs"]) == (0.25, None, 0.125)
    json.dumps(results, allow_nan=False)
