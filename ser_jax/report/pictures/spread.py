"""A run's curves over those of reference runs."""

import math
from collections.abc import Mapping

import numpy as np
from etils import epath
from matplotlib import ticker
from matplotlib.axes import Axes

from ser_jax.evaluate.pictures import figures
from ser_jax.report.spread import Windows
from ser_jax.storage.files import PathLike

_NUM_COLUMNS = 3
_RUN, _OUTSIDE = figures.COLORS[0], "#c81e1e"


def spread_picture(
    path: PathLike,
    windows: Mapping[str, Windows],
    num_steps: float,
    scales: Mapping[str, str],
) -> epath.Path:
    """Path of a PNG: a panel a metric, a run's averages over the reference's.

    Args:
        path: The file; replaced as a whole.
        windows: Name of a metric -> its averages; one or more.
        num_steps: Length of the run.
        scales: Name of a metric -> "linear" or "log".

    Returns:
        The path.
    """
    num_columns = min(_NUM_COLUMNS, len(windows))
    num_rows = math.ceil(len(windows) / num_columns)
    size = (4.2 * num_columns, 2.9 * num_rows)
    figure = figures.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for ax, (name, of) in zip(axes, windows.items(), strict=False):
        _draw(ax, of, num_steps)
        if scales[name] == "log":
            ax.set_yscale("log")
        else:  # a band may be far wider than all runs
            drawn = np.append(of.seeds, of.run)
            margin = 0.3 * np.ptp(drawn) or 1.0
            ax.set_ylim(drawn.min() - margin, drawn.max() + margin)
        figures.tidy(ax, name)
    for ax in axes[len(windows) :]:
        ax.remove()
    lines = axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    return figures.save(figure, path)


def _draw(ax: Axes, of: Windows, num_steps: float) -> None:
    steps, is_out = of.shares * num_steps, of.is_outside
    ax.fill_between(
        steps, of.low, of.high, color="0.88", linewidth=0, label="a further seed's"
    )
    for i, seed in enumerate(of.seeds):
        label = "reference runs" if i == 0 else "_unnamed"
        ax.plot(steps, seed, color="0.6", linewidth=0.7, label=label)
    mean = of.seeds.mean(axis=0)
    ax.plot(steps, mean, color="0.25", linewidth=1, linestyle="--", label="their mean")
    ax.plot(
        steps, of.run, color=_RUN, linewidth=1.6, marker="o", markersize=3, label="run"
    )
    ax.plot(steps[is_out], of.run[is_out], "o", color=_OUTSIDE, markersize=4, zorder=3)
    ax.set_xlim(0, 1.02 * num_steps)
    ax.set_xlabel("step", fontsize=9)
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
