"""What a sweep found: mean and 95 % interval over seeds, as table, JSON and plot."""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from scipy import stats

from ser_jax.evaluate.pictures import figures
from ser_jax.storage.files import write_json, write_text
from ser_jax.storage.tables import table, to_text
from ser_jax.sweep.grid import SweepRun
from ser_jax.sweep.records import Record

_COLOR, _DOT_COLOR = figures.COLORS[:2]
_LOG_FROM_RATIO = 10  # An axis of values this far apart is logarithmic.


class Interval(NamedTuple):
    """A mean and its 95 % interval, mean +- half_width.

    Attributes:
        mean: Mean; None without values.
        half_width: Half the interval's width; None with fewer than two values.
    """

    mean: float | None
    half_width: float | None

    def __str__(self) -> str:
        """Its ends; "-" where there are none."""
        if self.mean is None or self.half_width is None:
            return "-"
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return f"{to_text(low)} to {to_text(high)}"


@dataclasses.dataclass(frozen=True)
class CellResult:
    """A metric of one cell's runs.

    Attributes:
        cell: Name of the cell.
        settings: Axis -> value, as written.
        values: Seed -> the metric at the end of the run, of runs that are done.
        interval: Of the mean over seeds.
        difference: Of the mean over seeds of this cell's value less the first cell's.
    """

    cell: str
    settings: dict[str, str]
    values: dict[int, float]
    interval: Interval
    difference: Interval


def t_interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval (Student's t).

    Args:
        values: Independent measurements.

    Returns:
        Both, of as many values as they need.
    """
    n = len(values)
    if n < 2:
        return Interval(values[0] if n else None, None)
    error = np.std(values, ddof=1) / math.sqrt(n)
    half_width = float(stats.t.ppf(0.975, n - 1) * error)
    return Interval(float(np.mean(values)), half_width)


def collect(
    runs: Sequence[SweepRun], records: Sequence[Record], metric: str
) -> list[CellResult]:
    """A metric of every cell, from the runs that are done.

    Args:
        runs: All runs of a sweep, cell by cell.
        records: Of those that are done.
        metric: A name in the records' values.

    Returns:
        One result a cell.

    Raises:
        ValueError: If runs are done but none has the metric.
    """
    known = dict.fromkeys(name for record in records for name in record.values)
    if known and metric not in known:
        close = difflib.get_close_matches(metric, known, n=5, cutoff=0.4)
        raise ValueError(
            f"no run has a metric {metric!r}. Give another one by --metric, like "
            f"{', '.join(close or known)}: what is done is not done again."
        )
    cells = {run.cell: run.settings for run in runs}
    values = {
        cell: {
            record.seed: record.values[metric]
            for record in records
            if record.cell == cell and metric in record.values
        }
        for cell in cells
    }
    first = values[runs[0].cell]
    return [
        CellResult(
            cell,
            settings,
            values[cell],
            t_interval(list(values[cell].values())),
            t_interval([x - first[k] for k, x in values[cell].items() if k in first]),
        )
        for cell, settings in cells.items()
    ]


def write_report(
    folder: epath.Path,
    results: Mapping[str, Sequence[CellResult]],
    about: Mapping[str, str],
    num_seeds: int,
) -> str:
    """Writes `sweep.md`, `sweep.json` and, with any value, `sweep.png`.

    Args:
        folder: The sweep's workdir.
        results: Metric -> one result a cell.
        about: What the reader should know of the sweep, by name.
        num_seeds: Runs of each cell when all are done.

    Returns:
        The text of `sweep.md`.
    """
    lines = ["# Sweep", "", *(f"- {name}: {text}" for name, text in about.items())]
    every = [result for cells in results.values() for result in cells]
    if any(len(result.values) == 1 for result in every):
        lines.append("- one run has no interval: give three seeds or more")
    for metric, cells in results.items():
        lines += ["", f"## {metric}"] if len(results) > 1 else []
        lines += ["", _table(metric, cells, num_seeds)]
    text = "\n".join(lines)
    write_text(folder / "sweep.md", text)
    as_json = {
        metric: [_plain(result) for result in cells]
        for metric, cells in results.items()
    }
    write_json(folder / "sweep.json", {**about, "metrics": as_json})
    if any(result.values for result in every):
        _plot(folder / "sweep.png", results)
    return text


def _table(metric: str, cells: Sequence[CellResult], num_seeds: int) -> str:
    head = ["cell", "runs", f"mean {metric}", "95 % interval", "by seed"]
    rows = [
        [
            cell.cell,
            f"{len(cell.values)}/{num_seeds}",
            "-" if cell.interval.mean is None else to_text(cell.interval.mean),
            str(cell.interval),
            ", ".join(map(to_text, cell.values.values())) or "-",
        ]
        for cell in cells
    ]
    if len(cells) > 1:
        head += [f"less {cells[0].cell}", "95 % interval"]
        rows[0] += ["-", "-"]
        for row, cell in zip(rows[1:], cells[1:], strict=True):
            mean = cell.difference.mean
            row += ["-" if mean is None else f"{mean:+.5g}", str(cell.difference)]
    return table([head, *rows])


def _plain(result: CellResult) -> dict[str, Any]:
    return {
        "cell": result.cell,
        "settings": result.settings,
        "values": result.values,
        **result.interval._asdict(),
        "difference": result.difference._asdict(),
    }


def _plot(path: epath.Path, results: Mapping[str, Sequence[CellResult]]) -> None:
    """Means with intervals, and each run as a small dot; a panel a metric."""
    shown = {
        metric: [result for result in cells if result.values]
        for metric, cells in results.items()
    }
    shown = {metric: cells for metric, cells in shown.items() if cells}
    some = next(iter(shown.values()))
    if _numeric_axis(some) is None:
        height = 1.2 + (0.2 + 0.18 * len(some[0].settings)) * len(some)
        size, share_cells = (7.0 + 4.0 * (len(shown) - 1), height), True
    else:
        size, share_cells = (6.0 + 5.0 * (len(shown) - 1), 3.8), False
    figure = figures.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False, sharey=share_cells)[0]
    for ax, (metric, cells) in zip(axes, shown.items(), strict=True):
        numbers = _numeric_axis(cells)
        if numbers is None:
            _draw_cells(ax, cells, metric)
        else:
            (key,) = cells[0].settings
            _draw_axis(ax, cells, numbers, key, metric)
        figures.tidy(ax, "")
    title = "mean and 95 % interval over seeds; dots: runs"
    if all(r.interval.half_width is None for cells in shown.values() for r in cells):
        title = "one run a cell: no interval"
    figure.suptitle(title, fontsize=10)
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
    return [r.interval.mean for r in results if r.interval.mean is not None]


def _half_widths(results: Sequence[CellResult]) -> list[float]:
    return [result.interval.half_width or 0.0 for result in results]


def _bars() -> dict[str, Any]:
    return {"color": _COLOR, "marker": "o", "markersize": 5, "capsize": 3}
