"""Pictures of detections: what is drawn where, on boxes that are known."""

import numpy as np
import pytest
from matplotlib import image as png

from ser_jax.evaluate.detection.metrics import CocoMetrics
from ser_jax.evaluate.detection.pictures import (
    Shown,
    detections_picture,
    precision_recall_picture,
)

NAMES = {3: "cat", 90: "dog"}


def picture(height=60, width=80):
    return np.full((height, width, 3), 128, np.uint8)


def box(k, bbox, **more):
    return {"category_id": k, "bbox": bbox, **more}


def drawn(ax):
    """Boxes of a panel, and its texts."""
    corners = [(*p.get_xy(), p.get_width(), p.get_height()) for p in ax.patches]
    return corners, [text.get_text() for text in ax.texts]


def test_detections_beside_the_ground_truth(tmp_path, figures):
    """Red if the sides change places, a class its colour, or a weak one is shown."""
    truth = [
        box(3, [10, 20, 30, 20]),
        box(90, [5, 5, 70, 50], iscrowd=1),
        box(3, [70, 50, 2, 2]),
    ]
    found = [
        box(90, [6, 7, 60, 40], score=0.5),
        box(3, [1, 2, 30, 40], score=0.29),
        box(3, [12, 21, 30, 20], score=1.0),
    ]
    shown = [Shown(picture(), truth, found, (60, 80))]
    detections_picture(tmp_path / "d.png", shown, NAMES, least_score=0.3)
    left, right = figures[0].axes
    assert drawn(left) == (
        [(5, 5, 70, 50), (10, 20, 30, 20), (70, 50, 2, 2)],  # large ones first
        ["dog", "cat"],  # a small one has no name
    )
    assert drawn(right) == ([(6, 7, 60, 40), (12, 21, 30, 20)], ["dog .50", "cat 1.00"])
    dog, cat, small = (patch.get_edgecolor() for patch in left.patches)
    assert [patch.get_edgecolor() for patch in right.patches] == [dog, cat]
    assert cat == small != dog
    assert [patch.get_linestyle() for patch in left.patches] == ["--", "-", "-"]
    assert left.get_title() == "ground truth: 3"
    assert right.get_title() == "found, score 0.3 or more: 2"
    assert left.images[0].get_extent() == [0, 80, 60, 0]


def test_a_file_of_another_size_than_the_boxes_are_of(tmp_path, figures):
    """Red if boxes in pixels of the large picture are drawn in those of a small one."""
    shown = [Shown(picture(30, 40), [box(3, [10, 20, 30, 20])], [], (60, 80))]
    detections_picture(tmp_path / "d.png", shown, NAMES)
    left, right = figures[0].axes
    assert drawn(left) == ([(10, 20, 30, 20)], ["cat"])
    for ax in left, right:
        assert ax.images[0].get_extent() == [0, 80, 60, 0]


def test_boxes_lie_on_what_they_are_of(tmp_path, figures):
    """Red in the file if boxes are stretched, or x and y exchanged."""
    image = picture(200, 100)
    image[120:160, 20:80] = 255
    shown = [Shown(image, [box(3, [20, 120, 60, 40])], [], (200, 100))]
    path = detections_picture(tmp_path / "d.png", shown, NAMES)
    pixels, ax = png.imread(path), figures[0].axes[0]
    to_pixels = ax.transData.transform
    for x, y, is_edge in ((20, 140, True), (50, 160, True), (50, 140, False)):
        column, row = to_pixels((x, y)) * (130 / figures[0].dpi)
        color = pixels[round(len(pixels) - row), round(column), :3]
        assert (np.ptp(color) > 0.3) == is_edge, (x, y, color)


@pytest.mark.parametrize("num_shown, num_panels", [(1, 2), (2, 4), (3, 8)])
def test_pictures_of_any_number_and_shape(tmp_path, figures, num_shown, num_panels):
    """Red if one has no panel, or what is left over has a frame."""
    shapes = [(2, 900), (1, 1), (900, 2)]
    shown = [Shown(picture(*shape), [], [], shape) for shape in shapes[:num_shown]]
    path = detections_picture(tmp_path / "d.png", shown, NAMES)
    axes = figures[0].axes
    assert len(axes) == num_panels
    assert sum(ax.get_visible() for ax in axes) == 2 * num_shown
    assert png.imread(path).shape[0] > 60


def metrics(**by_class):
    """Precision of classes by IoU, the same at all recalls; None: no ground truth."""
    of = {k: [np.nan] * 10 if x is None else x for k, x in by_class.items()}
    precision = np.stack([np.array(x)[:, None] * np.ones(101) for x in of.values()], -1)
    ap = {k: None if x is None else np.mean(x) for k, x in by_class.items()}
    return CocoMetrics({}, ap, precision)


def levels(ax):
    return [line.get_ydata().mean() for line in ax.lines]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_precision_over_recall(tmp_path, figures):
    """Red if an IoU is another's, or a class without ground truth counts as nought."""
    falling = [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    precision_recall_picture(
        tmp_path / "pr.png", metrics(cat=falling, bird=None, dog=[0.0] * 10)
    )
    mean, by_class = figures[0].axes
    np.testing.assert_allclose(levels(mean), [0.5, 0.25, 0.275])
    assert legend(mean) == ["0.500 IoU .5", "0.250 IoU .75", "0.275 mean over IoUs"]
    assert legend(by_class) == ["0.550 cat", "0.000 dog"]
    assert by_class.get_title(loc="left").endswith("1 of 2 at 0")
    np.testing.assert_allclose(mean.lines[0].get_xdata()[[0, 50, 100]], [0, 0.5, 1])


def test_the_best_and_the_worst_classes_are_named(tmp_path, figures):
    aps = {f"c{i}": [i / 10] * 10 for i in (4, 9, 0, 2, 7, 5, 1)}
    precision_recall_picture(tmp_path / "pr.png", metrics(**aps), num_named=2)
    ax = figures[0].axes[1]
    assert legend(ax) == ["0.900 c9", "0.700 c7", "0.100 c1", "0.000 c0"]
    np.testing.assert_allclose(levels(ax), [0.5, 0.4, 0.2, 0.9, 0.7, 0.1, 0])
    assert len({line.get_color() for line in ax.lines}) == 5
    precision_recall_picture(tmp_path / "one.png", metrics(only=[0.5] * 10))
    assert legend(figures[1].axes[1]) == ["0.500 only"]


def test_no_curves_without_ground_truth(tmp_path):
    with pytest.raises(ValueError, match="no class has ground truth"):
        precision_recall_picture(tmp_path / "pr.png", metrics(cat=None))
    assert not list(tmp_path.iterdir())
