"""Equivariance over depth, one line a checkpoint."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib import ticker

from ser_jax.evaluate.pictures import figures
from ser_jax.evaluate.pictures.figures import COLORS
from ser_jax.storage.files import PathLike

# One layer's results: name of a transform, as "rotation/90", -> metric -> value.
Layers = Mapping[str, Mapping[str, Mapping[str, Any]]]


class DepthCurves(NamedTuple):
    """What is known of a checkpoint's layers.

    Attributes:
        equivariance: "layer_<k>" -> transform -> metrics; {} if not measured.
        seis: The same of SEIS.
        marked_layers: The layers that were regularized.
    """

    equivariance: Layers
    seis: Layers
    marked_layers: tuple[int, ...] = ()


class _Metric(NamedTuple):
    """A row of panels."""

    task: str
    name: str
    title: str
    chance: float | str  # what chance gives: a number, or the metric that holds it


_METRICS = (
    _Metric("equivariance", "corrected", "token cosine, corrected", 0.0),
    _Metric("equivariance", "error", "error (0 is best)", 1.0),
    _Metric("equivariance", "top1", "matching patches, top-1", "top1_chance"),
    _Metric("seis", "equivariance", "SEIS equivariance", "chance"),
)


def kind_curves(layers: Layers, metric: str) -> dict[str, np.ndarray]:
    """A metric over depth by kind of transform, means over a kind's transforms.

    Args:
        layers: "layer_<k>" -> transform -> metrics. Other names than "layer_<k>" are
            passed over, and so are absent and non-finite values.
        metric: Its name.

    Returns:
        Kind ("rotation", "flip", ...) -> (layer, value) pairs, `[n, 2]`.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for name, transforms in layers.items():
        if not name.startswith("layer_"):
            continue
        values: dict[str, list[float]] = {}
        for transform, metrics in transforms.items():
            value = metrics.get(metric)
            if value is not None and math.isfinite(value):
                values.setdefault(transform.partition("/")[0], []).append(value)
        for kind, members in values.items():
            point = (int(name.removeprefix("layer_")), float(np.mean(members)))
            points.setdefault(kind, []).append(point)
    return {kind: np.array(sorted(pairs)) for kind, pairs in points.items()}


def depth_picture(path: PathLike, checkpoints: Mapping[str, DepthCurves]) -> epath.Path:
    """Path of a PNG: a row a metric, a column a kind of transform, a line a checkpoint.

    A grey dotted line is what chance gives; a faint vertical one marks a layer that a
    checkpoint's training regularized.

    Args:
        path: The file; replaced as a whole.
        checkpoints: By the name in the legend.

    Returns:
        The path.

    Raises:
        ValueError: If no layer of any has been measured.
    """
    curves = {
        metric: {
            name: kind_curves(getattr(checkpoint, metric.task), metric.name)
            for name, checkpoint in checkpoints.items()
        }
        for metric in _METRICS
    }
    rows = [metric for metric in _METRICS if any(curves[metric].values())]
    if not rows:
        raise ValueError("no checkpoint has results of equivariance or seis to draw.")
    kinds = list(
        dict.fromkeys(k for row in rows for c in curves[row].values() for k in c)
    )
    figure = figures.Figure(
        figsize=(2.2 * len(kinds) + 0.6, 2.0 * len(rows) + 0.6), layout="constrained"
    )
    axes = figure.subplots(len(rows), len(kinds), squeeze=False, sharey="row")
    lines: dict[str, Any] = {}
    for metric, row in zip(rows, axes, strict=True):
        row[0].set_ylabel(metric.title, fontsize=9)
        for kind, ax in zip(kinds, row, strict=True):
            figures.tidy(ax, kind)
            ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
            for color, (name, checkpoint) in zip(
                itertools.cycle(COLORS), checkpoints.items(), strict=False
            ):
                curve = curves[metric][name].get(kind)
                if curve is None:
                    continue
                for layer in checkpoint.marked_layers:
                    ax.axvline(layer, color=color, alpha=0.35)
                chance = _chance(checkpoint, metric, kind, curve)
                (lines["chance"],) = ax.plot(*chance.T, color="0.5", linestyle=":")
                (lines[name],) = ax.plot(*curve.T, color=color, marker="o", ms=3)
    for ax in axes[-1]:
        ax.set_xlabel("layer", fontsize=9)
    chance = lines.pop("chance")
    names = [*lines, "chance"]
    figure.legend(
        [*lines.values(), chance],
        names,
        loc="outside lower left",
        frameon=False,
        ncols=4,
    )
    return figures.save(figure, path)


def _chance(
    checkpoint: DepthCurves, metric: _Metric, kind: str, curve: np.ndarray
) -> np.ndarray:
    """What chance gives at the layers of a curve, `[n, 2]`."""
    if isinstance(metric.chance, float):
        return np.stack([curve[:, 0], np.full(len(curve), metric.chance)], axis=1)
    layers = getattr(checkpoint, metric.task)
    return kind_curves(layers, metric.chance).get(kind, np.zeros((0, 2)))
