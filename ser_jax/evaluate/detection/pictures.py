"""Pictures of detections: boxes on pictures, precision over recall."""

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.patches import Rectangle

from ser_jax.evaluate.detection.metrics import CocoMetrics
from ser_jax.evaluate.pictures import figures
from ser_jax.storage.files import PathLike

_PAIRS_A_ROW = 2
_SIDE_INCHES = 2.9  # of a picture
_TITLE_INCHES = 0.25
_GOLDEN = 0.618034  # of a turn: hues in this step stay far apart
_LEAST_LABELLED_FRAC = 0.035  # of a picture's height and width; names hide lesser boxes
_LABEL_FRAC = 0.06  # of a picture's height
_LUMINANCE = (0.3, 0.6, 0.1)
_CURVES = (("IoU .5", 0, "#9db8d6"), ("IoU .75", 5, "#5b86b8"))
_MEAN_COLOR = "#1b4f8a"
_BEST_COLORS = ("#1d6b3f", "#3a8f5c", "#7fbf97")
_WORST_COLORS = ("#8c2f10", "#d1603d", "#e5a38e")


class Shown(NamedTuple):
    """A picture and its boxes, as COCO's json has them.

    Attributes:
        image: `[h, w, 3]`, uint8, of any size.
        truth: Annotations: "category_id", "bbox" (x, y, width, height in pixels) and
            "iscrowd".
        detections: "category_id", "bbox" and "score".
        size: Height and width that the boxes are of, px: the image may be a larger or
            a smaller copy.
    """

    image: np.ndarray
    truth: Sequence[Mapping[str, Any]]
    detections: Sequence[Mapping[str, Any]]
    size: Sequence[int]


def detections_picture(
    path: PathLike,
    shown: Sequence[Shown],
    names: Mapping[int, str],
    *,
    least_score: float = 0.3,
) -> epath.Path:
    """Path of a PNG: pictures with what is there, beside what was found.

    A class has one colour throughout; a crowd's box is dashed. Small boxes have no
    names.

    Args:
        path: The file; replaced as a whole.
        shown: At least one.
        names: COCO's id of a class -> its name.
        least_score: Of the detections that are drawn.

    Returns:
        The path.
    """
    found = [
        [box for box in of.detections if box["score"] >= least_score] for of in shown
    ]
    boxes = itertools.chain.from_iterable([*(of.truth for of in shown), *found])
    colors = _class_colors(boxes)
    num_cols = 2 * min(len(shown), _PAIRS_A_ROW)
    shapes = [_clipped_aspect(of.image) for of in shown]
    starts = range(0, len(shown), _PAIRS_A_ROW)
    heights = [max(shapes[i : i + _PAIRS_A_ROW]) for i in starts]
    figure, axes = figures.panels(len(heights), num_cols, side=_SIDE_INCHES)
    axes[0, 0].get_gridspec().set_height_ratios(heights)
    figure.set_figheight(_SIDE_INCHES * sum(heights) + _TITLE_INCHES * len(heights))
    pairs = axes.reshape(-1, 2)
    for (left, right), of, detections in zip(pairs, shown, found, strict=False):
        _draw(left, of, of.truth, names, colors)
        _draw(right, of, detections, names, colors)
        left.set_title(f"ground truth: {len(of.truth)}", fontsize=8)
        title = f"found, score {least_score:g} or more: {len(detections)}"
        right.set_title(title, fontsize=8)
        left.set_anchor("NE")  # both at the gap between them, whatever their shape
        right.set_anchor("NW")
    for ax in pairs[len(shown) :].ravel():
        ax.set_visible(False)
    return figures.save(figure, path)


def precision_recall_picture(
    path: PathLike, metrics: CocoMetrics, *, num_named: int = 3
) -> epath.Path:
    """Path of a PNG: precision over recall, of all classes and of each.

    On the left the mean over classes at IoU .5, at .75 and over all ten IoUs. On the
    right each class over all IoUs, the best and worst in colour. The area below a curve
    is its AP.

    Args:
        path: The file; replaced as a whole.
        metrics: Of some detections.
        num_named: Most classes named as the best, and as the worst.

    Returns:
        The path.

    Raises:
        ValueError: If no class has ground truth.
    """
    by_class = {
        name: metrics.precision[:, :, i]
        for i, (name, ap) in enumerate(metrics.per_class.items())
        if ap is not None
    }
    if not by_class:
        raise ValueError("no class has ground truth: there are no curves to draw.")
    recall = np.linspace(0, 1, metrics.precision.shape[1])
    mean = np.mean(list(by_class.values()), axis=0)  # [10, 101]
    figure = figures.Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, iou, color in _CURVES:
        _curve(left, recall, mean[iou], name, color=color)
    _curve(
        left,
        recall,
        mean.mean(axis=0),
        "mean over IoUs",
        color=_MEAN_COLOR,
        linewidth=2.5,
    )
    figures.tidy(left, f"mean over {len(by_class)} classes")

    curves = {name: of.mean(axis=0) for name, of in by_class.items()}
    ranked = sorted(curves, key=lambda name: -curves[name].mean())
    num_best = min(num_named, -(-len(ranked) // 2))
    num_worst = min(num_named, len(ranked) - num_best)
    best, worst = ranked[:num_best], ranked[len(ranked) - num_worst :]
    for name in ranked[num_best : len(ranked) - num_worst]:
        right.plot(recall, curves[name], color="0.8", linewidth=0.7)
    colors = [*_BEST_COLORS[:num_best], *_WORST_COLORS[:num_worst][::-1]]
    for name, color in zip([*best, *worst], colors, strict=True):
        _curve(right, recall, curves[name], name, color=color)
    num_lost = sum(not of.any() for of in curves.values())
    figures.tidy(right, f"by class, mean over IoUs; {num_lost} of {len(curves)} at 0")

    left.set_ylabel("precision", fontsize=9)
    for ax in (left, right):
        ax.set(xlim=(0, 1), ylim=(0, 1.02))
        ax.set_xlabel("recall", fontsize=9)
        ax.legend(
            loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8
        ).set_title("AP", {"size": 8})
    return figures.save(figure, path)


def losses_picture(
    path: PathLike, rows: Sequence[Mapping[str, float]], seeds: Sequence[int]
) -> epath.Path:
    """Path of a PNG: the losses of detectors over the steps of their training.

    On the left that of each seed, on the right its terms, means over seeds.

    Args:
        path: The file; replaced as a whole.
        rows: Of `train_detectors`' metrics: "step", "loss_seed<seed>" and the terms.
        seeds: Of the detectors.

    Returns:
        The path.
    """
    figure = figures.Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [row["step"] for row in rows]
    of_each = {f"seed {seed}": f"loss_seed{seed}" for seed in seeds}
    for ax, title, curves in (
        (left, "loss", of_each),
        (right, "its terms", {name: name for name in ("class", "box", "centerness")}),
    ):
        for (label, name), color in zip(
            curves.items(), itertools.cycle(figures.COLORS), strict=False
        ):
            values = [row.get(name, np.nan) for row in rows]
            ax.plot(steps, values, color=color, linewidth=1, label=label)
        figures.tidy(ax, title)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("step", fontsize=9)
        ax.legend(frameon=False, fontsize=8)
    return figures.save(figure, path)


def _clipped_aspect(image: np.ndarray) -> float:
    """Height of its panel over the width, not too flat for its title."""
    return float(np.clip(image.shape[0] / image.shape[1], 0.25, 1))


def _curve(ax: Axes, recall: np.ndarray, precision: np.ndarray, name: str, **look: Any):
    ax.plot(recall, precision, label=f"{precision.mean():.3f} {name}", **look)


def _class_colors(boxes: Iterable[Mapping[str, Any]]) -> dict[int, Any]:
    """A colour for each class; the most frequent ones differ most."""
    counts = collections.Counter(box["category_id"] for box in boxes)
    return {
        k: hsv_to_rgb((i * _GOLDEN % 1, 0.9, 0.8 if i % 2 else 0.95))
        for i, (k, _) in enumerate(counts.most_common())
    }


def _draw(
    ax: Axes,
    of: Shown,
    boxes: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    colors: Mapping[int, Any],
) -> None:
    """A picture and its boxes, the large ones first."""
    height, width = of.size
    ax.imshow(of.image, extent=(0, width, height, 0))
    halo = [patheffects.withStroke(linewidth=2.6, foreground="white")]
    order = sorted(boxes, key=lambda box: -box["bbox"][2] * box["bbox"][3])
    for box in order:
        x, y, w, h = box["bbox"]
        color = colors[box["category_id"]]
        style = "--" if box.get("iscrowd") else "-"
        look = {"fill": False, "edgecolor": color, "linewidth": 1.4, "linestyle": style}
        ax.add_patch(Rectangle((x, y), w, h, path_effects=halo, **look))
    for box in order:
        x, y, w, h = box["bbox"]
        if min(h / height, w / width) < _LEAST_LABELLED_FRAC:
            continue
        score = f" {box['score']:.2f}".replace(" 0.", " .") if "score" in box else ""
        color = colors[box["category_id"]]
        has_room_above = y > _LABEL_FRAC * height
        ax.text(
            *(max(x, 0), max(y, 0)),
            f"{names[box['category_id']]}{score}",
            fontsize=5.5,
            color="white" if np.dot(color, _LUMINANCE) < 0.55 else "black",
            va="bottom" if has_room_above else "top",
            clip_on=True,
            bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8},
        )
