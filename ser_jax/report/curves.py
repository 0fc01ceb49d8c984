"""Training curves: of one run, and of several side by side."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib import colormaps, ticker
from matplotlib.axes import Axes

from ser_jax.evaluate.pictures import figures
from ser_jax.evaluate.pictures.figures import COLORS
from ser_jax.storage.files import PathLike
from ser_jax.storage.metrics import Curves, read_curves
from ser_jax.storage.runs import RunRecord


class Panel(NamedTuple):
    """One set of axes: metrics by name, with the label each gets in the legend."""

    title: str
    labels: dict[str, str]
    scale: str = "linear"
    starts_at_zero: bool = False
    is_noisy: bool = True
    is_graded: bool = False  # Lines in order: colours by place, first and last named.


PANELS = (
    Panel(
        "loss",
        {"loss": "total", "loss_inv": "invariance", "loss_equiv": "equivariance"},
    ),
    Panel(
        "gradient norm",
        {"grad_norm": "total", "grad_norm_equiv": "equivariance"},
        scale="log",
    ),
    Panel(
        "gradient norm by block",
        {f"grad_norm_block_{i:02d}": f"block {i}" for i in range(1, 49)},
        scale="log",
        is_graded=True,
    ),
    Panel("k-NN accuracy", {"knn_accuracy": "k-NN"}, is_noisy=False),
    Panel("RankMe", {"rankme": "features"}, is_noisy=False),
    Panel("contrastive accuracy", {"contrastive_accuracy": "contrastive"}),
    Panel("rotation accuracy", {"rotation_accuracy": "rotation"}),
    Panel("standard deviation of the embedding", {"embedding_std": "embedding"}),
    Panel("standard deviation of the class token", {"cls_std": "class token"}),
    Panel("entropy of the teacher", {"teacher_entropy": "teacher"}),
    Panel("correlation of the views", {"mean_correlation": "views"}),
    Panel("learning rate", {"lr": "learning rate"}, is_noisy=False),
    Panel("EMA momentum of the target", {"ema_momentum": "EMA"}, is_noisy=False),
    Panel("images per second", {"images_per_s": "images"}, starts_at_zero=True),
    Panel(
        "fraction of time spent waiting for data",
        {"data_wait_frac": "waiting"},
        starts_at_zero=True,
    ),
)
_NUM_COLUMNS = 3
_LINE_STYLES = ("-", "--", ":", "-.")  # one after the other, once all colours are used
_SMOOTH_FROM_POINTS = 200
_MARKED_UP_TO_POINTS = 30
COMPARED_METRICS = (
    *("knn_accuracy", "rankme", "loss", "loss_inv", "loss_equiv", "grad_norm_equiv"),
    *("embedding_std", "cls_std", "teacher_entropy", "contrastive_accuracy"),
    *("rotation_accuracy", "mean_correlation"),
)


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
    path = epath.Path(workdir) / "curves.png"
    if not draw_run(path, read_curves(workdir)):
        raise ValueError(
            f"nothing to plot in {workdir}: metrics.jsonl is missing or holds none of "
            f"{[name for panel in PANELS for name in panel.labels]}"
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
    panels = [panel for panel in PANELS if panel.labels.keys() & curves.keys()]
    if panels:
        _draw_panels(path, [(panel, curves) for panel in panels])
    return bool(panels)


def draw_runs(path: PathLike, runs: Sequence[RunRecord]) -> bool:
    """Draws the curves of several runs as a PNG file, a panel a metric, a line a run.

    Args:
        path: The file; replaced as a whole.
        runs: Runs.

    Returns:
        Whether there was anything to draw.
    """
    drawings = []
    for metric in COMPARED_METRICS:
        curves = {r.name: r.curves[metric] for r in runs if metric in r.curves}
        if metric.endswith("_equiv"):  # 0 throughout where there is no such term
            curves = {name: c for name, c in curves.items() if c[:, 1].any()}
        if curves:
            drawings.append((_panel(metric, runs), curves))
    if drawings:
        _draw_panels(path, drawings, shared_legend=True)
    return bool(drawings)


def _panel(metric: str, runs: Sequence[RunRecord]) -> Panel:
    """The panel that has this metric, with a line for each run instead."""
    own = next(panel for panel in PANELS if metric in panel.labels)
    title = own.title
    if len(own.labels) > 1:
        title += f", {own.labels[metric]}"
    return own._replace(title=title, labels={run.name: run.name for run in runs})


def _draw_panels(
    path: PathLike,
    drawings: Sequence[tuple[Panel, Curves]],
    *,
    shared_legend: bool = False,
) -> None:
    """Draws panels over the same steps, each with the curves that its labels name.

    With a shared legend, one below serves all panels, which then have the same labels.
    """
    num_columns = min(_NUM_COLUMNS, len(drawings))
    num_rows = math.ceil(len(drawings) / num_columns)
    size = (4.2 * num_columns, 2.9 * num_rows)
    figure = figures.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    last_step = max(c[-1, 0] for _, curves in drawings for c in curves.values())
    lines: dict[str, Any] = {}
    for ax, (panel, curves) in zip(axes, drawings, strict=False):
        _draw(ax, panel, curves)
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


def _draw(ax: Axes, panel: Panel, curves: Curves) -> None:
    shown = sum(name in curves for name in panel.labels)
    for i, (name, label) in enumerate(panel.labels.items()):
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
