"""Training curves: of one run, and of several side by side."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib import colormaps, ticker
from matplotlib.axes import Axes

from ser_jax.evaluate.pictures import figures
from ser_jax.evaluate.pictures.figures import COLORS
from ser_jax.methods.metric import Metric, Panel
from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.methods.regularizers import REGULARIZERS
from ser_jax.methods.variables import CLS_STD, LOSSES
from ser_jax.storage.files import PathLike, as_path
from ser_jax.storage.metrics import Curves, read_curves
from ser_jax.storage.runs import RunRecord
from ser_jax.train.finite import SKIPPED
from ser_jax.train.health import PROBED
from ser_jax.train.lost import LOST
from ser_jax.train.memory import PEAKS
from ser_jax.train.progress import DATA_WAIT_FRAC, SPEEDS, UNREADABLE
from ser_jax.train.step import GRAD_NORMS, SCHEDULES

_NUM_COLUMNS = 3
_LINE_STYLES = ("-", "--", ":", "-.")  # one after the other, once all colours are used
_SMOOTH_FROM_POINTS = 200
_MARKED_UP_TO_POINTS = 30


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What is drawn in a panel.

    Attributes:
        panel: The panel.
        labels: Name of a curve -> its label in the legend, in order.
        curves: Curves by name; those without a label are not drawn.
    """

    panel: Panel
    labels: Mapping[str, str]
    curves: Curves


def declared_metrics() -> list[Metric]:
    """Every metric that a run may log, in the order in which they are drawn.

    Returns:
        Those of training and of all registered methods, each once.
    """
    declared = [*LOSSES, *GRAD_NORMS, *PROBED]
    for objective in OBJECTIVES.values():
        declared += objective.metrics
    for regularizer in REGULARIZERS.values():
        declared += regularizer.metrics
    speeds = (*SPEEDS, DATA_WAIT_FRAC, *LOST, *PEAKS)
    common = (CLS_STD, *SCHEDULES, *speeds, SKIPPED, UNREADABLE)
    return list(dict.fromkeys([*declared, *common]))


def compared_metrics() -> list[Metric]:
    """The metrics that runs are compared by, first what their encoders are worth."""
    compared = [metric for metric in declared_metrics() if metric.is_compared]
    return sorted(compared, key=lambda metric: metric not in PROBED)


def plot_curves(workdir: PathLike) -> epath.Path:
    """Path of `curves.png`: small multiples of what `metrics.jsonl` holds.

    Long curves are drawn faintly, with their running mean on top.

    Args:
        workdir: The run's directory.

    Returns:
        The path; the file is replaced as a whole.

    Raises:
        ValueError: If no metric of any panel has been written.
    """
    path = as_path(workdir) / "curves.png"
    if not draw_run(path, read_curves(workdir)):
        raise ValueError(
            f"nothing to plot in {workdir}: metrics.jsonl is missing or holds none of "
            f"{[metric.name for metric in declared_metrics()]}"
        )
    return path


def draw_run(path: PathLike, curves: Curves) -> bool:
    """Draws the curves of one run as a PNG file, a panel for metrics that go together.

    Args:
        path: The file; replaced as a whole.
        curves: The run's metrics.

    Returns:
        Whether there was anything to draw.
    """
    drawings = _drawings_of(curves)
    if drawings:
        _draw_panels(path, drawings)
    return bool(drawings)


def draw_runs(path: PathLike, runs: Sequence[RunRecord]) -> bool:
    """Draws the curves of several runs as a PNG file, a panel a metric, a line a run.

    Args:
        path: The file; replaced as a whole.
        runs: Runs.

    Returns:
        Whether there was anything to draw.
    """
    lines = Counter(metric.panel for metric in declared_metrics())
    labels = {run.name: run.name for run in runs}
    drawings = []
    for metric in compared_metrics():
        name, panel = metric.name, metric.panel
        curves = {run.name: run.curves[name] for run in runs if name in run.curves}
        if name.endswith("_equiv"):  # 0 throughout where there is no such term
            curves = {run: c for run, c in curves.items() if c[:, 1].any()}
        if lines[panel] > 1:
            panel = dataclasses.replace(panel, title=f"{panel.title}, {metric.label}")
        if curves:
            drawings.append(Drawing(panel, labels, curves))
    if drawings:
        _draw_panels(path, drawings, shared_legend=True)
    return bool(drawings)


def _drawings_of(curves: Curves) -> list[Drawing]:
    """The panels of one run: those that there is anything to draw in."""
    labels: dict[Panel, dict[str, str]] = {}
    for metric in declared_metrics():
        labels.setdefault(metric.panel, {})[metric.name] = metric.label
    drawings = []
    for panel, names in labels.items():
        own = {name: curves[name] for name in names if name in curves}
        varies = any(np.ptp(curve[:, 1]) > 0 for curve in own.values())
        if own and (varies or not panel.hides_constants):
            drawings.append(Drawing(panel, names, own))
    return drawings


def _draw_panels(
    path: PathLike,
    drawings: Sequence[Drawing],
    *,
    shared_legend: bool = False,
) -> None:
    """Draws panels over the same steps.

    With a shared legend, one below serves all panels, which then have the same labels.
    """
    num_columns = min(_NUM_COLUMNS, len(drawings))
    num_rows = math.ceil(len(drawings) / num_columns)
    size = (4.2 * num_columns, 2.9 * num_rows)
    figure = figures.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    last_step = max(c[-1, 0] for one in drawings for c in one.curves.values())
    lines: dict[str, Any] = {}
    for ax, drawing in zip(axes, drawings, strict=False):
        _draw(ax, drawing)
        ax.set_xlim(left=0, right=1.02 * last_step)
        handles, labels = ax.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
        if len(labels) > 1 and not shared_legend:
            ax.legend(fontsize=8, frameon=False)
    if shared_legend:
        figure.legend(
            lines.values(), lines.keys(), loc="outside lower left", frameon=False
        )
    for ax in axes[len(drawings) :]:
        ax.remove()
    figures.save(figure, path)


def _draw(ax: Axes, drawing: Drawing) -> None:
    panel, curves = drawing.panel, drawing.curves
    shown = sum(name in curves for name in drawing.labels)
    for i, (name, label) in enumerate(drawing.labels.items()):
        look = _look(i, shown, panel)
        if panel.is_graded and i not in (0, shown - 1):
            label = "_unnamed"  # Matplotlib leaves it out of the legend.
        points = curves.get(name, np.zeros((0, 2)))
        if panel.scale == "log":
            points = points[points[:, 1] > 0]
        if panel.is_noisy and len(points) >= _SMOOTH_FROM_POINTS:
            ax.plot(*points.T, **look, linewidth=0.6, alpha=0.25)
            points = _running_mean(points)
        look["marker"] = "o" if len(points) <= _MARKED_UP_TO_POINTS else ""
        if len(points):
            ax.plot(*points.T, **look, linewidth=1.4, label=label, markersize=3.5)
    ax.set_yscale(panel.scale)
    if panel.starts_at_zero:
        ax.set_ylim(bottom=0)
    figures.tidy(ax, panel.title)
    ax.tick_params(which="minor", labelsize=8)  # of a logarithmic axis
    ax.set_xlabel("step", fontsize=9)
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))


def _look(i: int, num_shown: int, panel: Panel) -> dict[str, Any]:
    """Colour and dashes of a panel's i-th line."""
    if panel.is_graded:
        return {"color": colormaps["viridis"](0.9 * i / max(num_shown - 1, 1))}
    style, color = divmod(i, len(COLORS))
    return {
        "color": COLORS[color],
        "linestyle": _LINE_STYLES[style % len(_LINE_STYLES)],
    }


def _running_mean(points: np.ndarray) -> np.ndarray:
    """Values averaged over a fiftieth of the curve, less at its ends, `[n, 2]`."""
    steps, values = points.T
    indices = np.arange(len(points))
    first = np.maximum(indices - len(points) // 100, 0)
    last = np.minimum(indices + len(points) // 100 + 1, len(points))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.stack([steps, (sums[last] - sums[first]) / (last - first)], axis=1)
