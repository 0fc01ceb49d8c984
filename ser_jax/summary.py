"""The end of a run: one JSON file, one table, one page of curves."""

import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ser_jax.metric_writer import read_metrics

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
    Panel("k-NN accuracy", {"knn_accuracy": "k-NN"}, is_noisy=False),
    Panel("contrastive accuracy", {"contrastive_accuracy": "contrastive"}),
    Panel("standard deviation of the embedding", {"embedding_std": "embedding"}),
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
_COLORS = ("#1b4f8a", "#d1603d", "#3a8f5c")
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
    partial = path.with_suffix(".tmp")
    content = _plain({**summary, "config": config})
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
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
    rows = [("metric", "value"), *_flat(summary)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"| {name:<{widths[0]}} | {text:>{widths[1]}} |" for name, text in rows]
    lines.insert(1, f"|{'-' * (widths[0] + 2)}|{'-' * (widths[1] + 1)}:|")
    return "\n".join(lines)


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
    from matplotlib.figure import Figure  # Slow to import, and needed once.

    curves = _read_curves(workdir)
    panels = [panel for panel in PANELS if panel.labels.keys() & curves.keys()]
    if not panels:
        raise ValueError(
            f"nothing to plot in {workdir}: metrics.jsonl is missing or holds none of "
            f"{[name for panel in PANELS for name in panel.labels]}"
        )
    num_columns = min(_NUM_COLUMNS, len(panels))
    num_rows = math.ceil(len(panels) / num_columns)
    figure = Figure(figsize=(4.2 * num_columns, 2.9 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for ax, panel in zip(axes, panels, strict=False):
        _draw(ax, panel, curves)
    for ax in axes[len(panels) :]:
        ax.remove()
    path = pathlib.Path(workdir) / "curves.png"
    partial = path.with_suffix(".tmp")
    figure.savefig(partial, format="png", dpi=130)
    return partial.replace(path)


def _read_curves(workdir: str | os.PathLike[str]) -> Curves:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in read_metrics(workdir):
        for name, value in row.items():
            if math.isfinite(value):
                points.setdefault(name, []).append((row["step"], value))
    return {name: np.array(pairs) for name, pairs in points.items()}


def _draw(ax: "Axes", panel: Panel, curves: Curves) -> None:
    from matplotlib import ticker

    for color, (name, label) in zip(_COLORS, panel.labels.items(), strict=False):
        points = curves.get(name, np.zeros((0, 2)))
        if panel.scale == "log":
            points = points[points[:, 1] > 0]
        if panel.is_noisy and len(points) >= _SMOOTH_FROM_POINTS:
            ax.plot(*points.T, color=color, linewidth=0.6, alpha=0.25)
            points = _running_mean(points)
        marker = "o" if len(points) <= _MARKED_UP_TO_POINTS else ""
        if len(points):
            ax.plot(
                *points.T,
                color=color,
                linewidth=1.4,
                label=label,
                marker=marker,
                markersize=3.5,
            )
    ax.set_yscale(panel.scale)
    ax.set_xlim(left=0, right=1.02 * max(c[-1, 0] for c in curves.values()))
    if panel.starts_at_zero:
        ax.set_ylim(bottom=0)
    ax.set_title(panel.title, loc="left", fontsize=10)
    ax.set_xlabel("step", fontsize=9)
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    ax.tick_params(labelsize=8)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if len(ax.get_legend_handles_labels()[0]) > 1:
        ax.legend(fontsize=8, frameon=False)


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


def _flat(summary: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    return f"{value:.5g}" if isinstance(value, float) else str(value)
