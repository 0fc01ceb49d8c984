"""The end of a run: one JSON file, one table, one page of curves."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ser_jax.storage.metrics import read_metrics
from ser_jax.storage.tables import flatten, table, to_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Curves = dict[str, np.ndarray]  # Metric to its finite (step, value) pairs, `[n, 2]`.


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
COLORS = (  # Of runs, in order, in all pictures.
    *("#1b4f8a", "#d1603d", "#3a8f5c", "#8757a0"),
    *("#c79a1d", "#4fa6b8", "#a8455f", "#666666"),
)
_LINE_STYLES = ("-", "--", ":", "-.")  # one after the other, once all colours are used
_SMOOTH_FROM_POINTS = 200
_MARKED_UP_TO_POINTS = 30


def write_summary(
    workdir: str | os.PathLike[str],
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
) -> pathlib.Path:
    """Path of `summary.json`: the summary and, under "config", what produced it.

    Args:
        workdir: The run's directory.
        summary: Name to number, text, or a mapping of these. NaN and infinity, which
            JSON lacks, become null.
        config: The resolved config, as plain dictionaries.

    Returns:
        The path; the file is replaced as a whole.
    """
    path = pathlib.Path(workdir) / "summary.json"
    return write_json(path, {**summary, "config": config})


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> pathlib.Path:
    """Path of a JSON file.

    Args:
        path: The file; replaced as a whole.
        content: As `summary` of `write_summary`, lists allowed.

    Returns:
        The path.
    """
    text = json.dumps(_plain(content), indent=2, allow_nan=False)
    return write_text(path, text)


def write_text(path: pathlib.Path, text: str) -> pathlib.Path:
    """Path of a text file.

    Args:
        path: The file; replaced as a whole.
        text: Its content; a line break is added.

    Returns:
        The path.
    """
    partial = path.with_suffix(".tmp")
    partial.write_text(text + "\n", encoding="utf-8")
    return partial.replace(path)


def read_summary(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_summary` wrote.

    Args:
        workdir: The run's directory.

    Returns:
        The summary, with the config under "config".
    """
    return json.loads((pathlib.Path(workdir) / "summary.json").read_text())


def final_table(summary: Mapping[str, Any]) -> str:
    """A summary as a Markdown table that is also aligned as plain text.

    Args:
        summary: As for `write_summary`.

    Returns:
        Lines joined by line breaks; nested names are joined by "/".
    """
    rows = [(name, to_text(value)) for name, value in flatten(summary).items()]
    return table([("metric", "value"), *rows])


def plot_curves(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Path of `curves.png`: small multiples of what `metrics.jsonl` holds.

    Long curves are drawn faintly, with their running mean on top.

    Args:
        workdir: The run's directory.

    Returns:
        The path; the file is replaced as a whole.

    Raises:
        ValueError: If no metric of any panel has been written.
    """
    curves = read_curves(workdir)
    panels = [panel for panel in PANELS if panel.labels.keys() & curves.keys()]
    if not panels:
        raise ValueError(
            f"nothing to plot in {workdir}: metrics.jsonl is missing or holds none of "
            f"{[name for panel in PANELS for name in panel.labels]}"
        )
    path = pathlib.Path(workdir) / "curves.png"
    return draw_panels(path, [(panel, curves) for panel in panels])


def draw_panels(
    path: pathlib.Path,
    drawings: Sequence[tuple[Panel, Curves]],
    *,
    shared_legend: bool = False,
) -> pathlib.Path:
    """Small multiples over the same steps, as a PNG file.

    Args:
        path: The file; replaced as a whole.
        drawings: Panels, each with the curves that its labels name.
        shared_legend: Whether one legend below serves all panels, which then have the
            same labels; else each panel of several lines has its own.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure  # Slow to import, and needed once.

    num_columns = min(_NUM_COLUMNS, len(drawings))
    num_rows = math.ceil(len(drawings) / num_columns)
    figure = Figure(figsize=(4.2 * num_columns, 2.9 * num_rows), layout="constrained")
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
    partial = path.with_suffix(".tmp")
    figure.savefig(partial, format="png", dpi=130)
    return partial.replace(path)


def read_curves(workdir: str | os.PathLike[str]) -> Curves:
    """A run's metrics by name, each as its finite `(step, value)` pairs, `[n, 2]`.

    Args:
        workdir: The run's directory.

    Returns:
        The curves; a metric that was never finite is absent.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for row in read_metrics(workdir):
        for name, value in row.items():
            if math.isfinite(value):
                points.setdefault(name, []).append((row["step"], value))
    return {name: np.array(pairs) for name, pairs in points.items()}


def _draw(ax: "Axes", panel: Panel, curves: Curves) -> None:
    from matplotlib import colormaps, ticker

    last = sum(name in curves for name in panel.labels) - 1
    for i, (name, label) in enumerate(panel.labels.items()):
        style, color = divmod(i, len(COLORS))
        look: dict[str, Any] = {
            "color": COLORS[color],
            "linestyle": _LINE_STYLES[style % len(_LINE_STYLES)],
        }
        if panel.is_graded:
            look = {"color": colormaps["viridis"](0.9 * i / max(last, 1))}
            label = label if i in (0, last) else "_unnamed"  # Matplotlib leaves it out.
        points = curves.get(name, np.zeros((0, 2)))
        if panel.scale == "log":
            points = points[points[:, 1] > 0]
        if panel.is_noisy and len(points) >= _SMOOTH_FROM_POINTS:
            ax.plot(*points.T, **look, linewidth=0.6, alpha=0.25)
            points = _running_mean(points)
        marker = "o" if len(points) <= _MARKED_UP_TO_POINTS else ""
        if len(points):
            ax.plot(
                *points.T,
                **look,
                linewidth=1.4,
                label=label,
                marker=marker,
                markersize=3.5,
            )
    ax.set_yscale(panel.scale)
    if panel.starts_at_zero:
        ax.set_ylim(bottom=0)
    ax.set_title(panel.title, loc="left", fontsize=10)
    ax.set_xlabel("step", fontsize=9)
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    ax.tick_params(which="both", labelsize=8)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _running_mean(points: np.ndarray) -> np.ndarray:
    """Values averaged over a fiftieth of the curve, less at its ends, `[n, 2]`."""
    steps, values = points.T
    indices = np.arange(len(points))
    first = np.maximum(indices - len(points) // 100, 0)
    last = np.minimum(indices + len(points) // 100 + 1, len(points))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.stack([steps, (sums[last] - sums[first]) / (last - first)], axis=1)


def _plain(value: Any) -> Any:
    """What JSON can hold: no arrays of one number, no NaN, no infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item"):  # A NumPy or JAX scalar.
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
