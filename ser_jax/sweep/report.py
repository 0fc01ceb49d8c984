"""What a sweep found: mean and 95 % interval over seeds, as table, JSON and plot."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from scipy import stats

from ser_jax.evaluate.pictures import figures
from ser_jax.storage.files import write_json, write_text
from ser_jax.storage.metrics import read_curves
from ser_jax.storage.summary import read_summary
from ser_jax.storage.tables import flatten, table, to_text
from ser_jax.sweep.grid import SweepRun

_COLOR, _DOT_COLOR = figures.COLORS[:2]
_LOG_FROM_RATIO = 10  # An axis of values this far apart is logarithmic.


@dataclasses.dataclass(frozen=True)
class CellResult:
    """A metric of one cell's runs.

    Attributes:
        cell: Name of the cell.
        settings: Axis -> value, as written.
        values: Seed -> the metric at the end of the run, of runs that have ended.
        mean: Mean over seeds; None without values.
        half_width: The 95 % interval of the mean is mean +- half_width; None with fewer
            than two seeds.
    """

    cell: str
    settings: dict[str, str]
    values: dict[int, float]
    mean: float | None
    half_width: float | None


def t_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and half the width of its 95 % interval (Student's t).

    Args:
        values: Independent measurements.

    Returns:
        The mean, None of no values; the half width, None of fewer than two.
    """
    n = len(values)
    if n < 2:
        return (values[0] if n else None), None
    error = np.std(values, ddof=1) / math.sqrt(n)
    return float(np.mean(values)), float(stats.t.ppf(0.975, n - 1) * error)


def collect(runs: Sequence[SweepRun], metric: str) -> list[CellResult]:
    """A metric of every cell, from the runs that have ended.

    Args:
        runs: All runs of a sweep, cell by cell.
        metric: A name in `summary.json`, nested ones joined by "/", or in
            `metrics.jsonl`, of which the last value is taken.

    Returns:
        One result a cell.

    Raises:
        ValueError: If runs have ended but none has the metric.
    """
    cells: dict[str, tuple[dict[str, str], dict[int, float]]] = {}
    known: dict[str, float] = {}
    for run in runs:
        _, values = cells.setdefault(run.cell, (run.settings, {}))
        if run.is_finished():
            found = _final_values(run.workdir)
            known |= found
            if metric in found:
                values[run.seed] = found[metric]
    if known and metric not in known:
        raise ValueError(
            f"no run has a metric {metric!r}. Give one of these by --metric (finished "
            f"runs are not run again): {', '.join(sorted(known))}."
        )
    return [
        CellResult(cell, settings, values, *t_interval(list(values.values())))
        for cell, (settings, values) in cells.items()
    ]


def write_report(
    folder: epath.Path,
    results: Sequence[CellResult],
    metric: str,
    about: Mapping[str, str],
    num_seeds: int,
) -> str:
    """Writes `sweep.md`, `sweep.json` and, with any value, `sweep.png`.

    Args:
        folder: The sweep's workdir.
        results: One result a cell.
        metric: Its name.
        about: What the reader should know of the sweep, by name.
        num_seeds: Runs of each cell when all have ended.

    Returns:
        The text of `sweep.md`.
    """
    rows = [
        (
            result.cell,
            f"{len(result.values)}/{num_seeds}",
            "-" if result.mean is None else to_text(result.mean),
            _interval_text(result),
            ", ".join(map(to_text, result.values.values())) or "-",
        )
        for result in results
    ]
    head = ("cell", "runs", f"mean {metric}", "95 % interval", "by seed")
    lines = ["# Sweep", "", *(f"- {name}: {text}" for name, text in about.items())]
    if any(len(result.values) == 1 for result in results):
        lines.append("- one run has no interval: give three seeds or more")
    text = "\n".join([*lines, "", table([head, *rows])])
    write_text(folder / "sweep.md", text)
    cells = [dataclasses.asdict(result) for result in results]
    write_json(folder / "sweep.json", {**about, "metric": metric, "cells": cells})
    if any(result.values for result in results):
        _plot(folder / "sweep.png", results, metric)
    return text


def _final_values(workdir: epath.Path) -> dict[str, float]:
    """The numbers a run ended with, by name: its last metrics and its summary."""
    curves = read_curves(workdir)
    ended = read_summary(workdir) or {}
    ended.pop("config", None)
    return {name: float(curve[-1, 1]) for name, curve in curves.items()} | {
        name: float(value)
        for name, value in flatten(ended).items()
        if isinstance(value, int | float)
    }


def _interval_text(result: CellResult) -> str:
    if result.mean is None or result.half_width is None:
        return "-"
    low, high = result.mean - result.half_width, result.mean + result.half_width
    return f"{to_text(low)} to {to_text(high)}"


def _plot(path: epath.Path, results: Sequence[CellResult], metric: str) -> None:
    """Means with intervals, and each run as a small dot."""
    shown = [result for result in results if result.values]
    numbers = _numeric_axis(shown)
    if numbers is None:
        size = (7.0, 1.2 + (0.2 + 0.18 * len(shown[0].settings)) * len(shown))
    else:
        size = (6.0, 3.8)
    figure = figures.Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    if numbers is None:
        _draw_cells(ax, shown, metric)
    else:
        (key,) = shown[0].settings
        _draw_axis(ax, shown, numbers, key, metric)
    title = "mean and 95 % interval over seeds; dots: runs"
    if all(result.half_width is None for result in shown):
        title = "one run a cell: no interval"
    figures.tidy(ax, title)
    figures.save(figure, path)


def _numeric_axis(results: Sequence[CellResult]) -> list[float] | None:
    """The cells' positions on the only axis, if there is one and it is of numbers."""
    if len(results) < 2 or len(results[0].settings) != 1:
        return None
    try:
        return [float(*result.settings.values()) for result in results]
    except ValueError:
        return None


def _draw_axis(
    ax: Axes,
    results: Sequence[CellResult],
    numbers: Sequence[float],
    key: str,
    metric: str,
) -> None:
    order = np.argsort(numbers)
    x = np.array(numbers)[order]
    ordered = [results[i] for i in order]
    ax.errorbar(x, _means(ordered), _half_widths(ordered), **_bars(), linewidth=1.4)
    for at, result in zip(x, ordered, strict=True):
        dots = list(result.values.values())
        ax.plot([at] * len(dots), dots, ".", color=_DOT_COLOR, zorder=3)
    if x[0] > 0 and x[-1] >= _LOG_FROM_RATIO * x[0]:
        ax.set_xscale("log")
    ax.set_xticks(x, [r.settings[key] for r in ordered])
    ax.minorticks_off()
    ax.set_xlabel(key)
    ax.set_ylabel(metric)


def _draw_cells(ax: Axes, results: Sequence[CellResult], metric: str) -> None:
    y = np.arange(len(results))
    ax.errorbar(
        _means(results),
        y,
        xerr=_half_widths(results),
        **_bars(),
        linestyle="",
    )
    for at, result in zip(y, results, strict=True):
        dots = list(result.values.values())
        ax.plot(dots, [at] * len(dots), ".", color=_DOT_COLOR, zorder=3)
    settings = [result.settings.items() for result in results]
    names = ["\n".join(f"{k}={v}" for k, v in pairs) or "base" for pairs in settings]
    ax.set_yticks(y, names)
    ax.set_ylim(len(results) - 0.5, -0.5)  # the first cell on top
    ax.set_xlabel(metric)


def _means(results: Sequence[CellResult]) -> list[float]:
    return [result.mean for result in results if result.mean is not None]


def _half_widths(results: Sequence[CellResult]) -> list[float]:
    return [result.half_width or 0.0 for result in results]


def _bars() -> dict[str, Any]:
    return {"color": _COLOR, "marker": "o", "markersize": 5, "capsize": 3}
