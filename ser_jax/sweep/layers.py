"""Equivariance against accuracy, layer by layer: a line a cell."""

import itertools
import re
from collections.abc import Sequence

import numpy as np
from etils import epath

from ser_jax.evaluate.pictures import figures
from ser_jax.sweep.records import EVALUATED, Record

_KIND = "rotation"
_ACCURACY = re.compile(rf"{EVALUATED}/layer_knn/layer_(\d+)/top1")
_EQUIVARIANCE = re.compile(
    rf"{EVALUATED}/equivariance/layer_(\d+)/{_KIND}/[^/]+/corrected"
)


def layers_picture(path: epath.Path, records: Sequence[Record]) -> epath.Path | None:
    """Path of a PNG: how equivariant each layer is, and what k-NN reads off it.

    Args:
        path: The file; replaced as a whole.
        records: Of the runs that are done, of all cells.

    Returns:
        The path; None where no run was evaluated by "layer_knn" and "equivariance".
    """
    lines = {
        cell: by_layer([record for record in records if record.cell == cell])
        for cell in dict.fromkeys(record.cell for record in records)
    }
    lines = {cell: line for cell, line in lines.items() if len(line)}
    if not lines:
        return None
    figure = figures.Figure(figsize=(7.0, 4.6), layout="constrained")
    ax = figure.subplots()
    for color, (cell, line) in zip(
        itertools.cycle(figures.COLORS), lines.items(), strict=False
    ):
        ax.plot(*line.T[1:], color=color, marker="o", ms=4, label=cell)
        for k, x, y in line:
            ax.annotate(
                f"{k:.0f}",
                (x, y),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=7,
                color=color,
            )
    figures.tidy(ax, "mean over seeds; numbers: layers")
    ax.set_xlabel("equivariance to rotations (corrected token cosine, 0: chance)")
    ax.set_ylabel("k-NN top-1 of the mean patch token")
    figure.legend(loc="outside lower left", frameon=False, ncols=2, fontsize=8)
    return figures.save(figure, path)


def by_layer(records: Sequence[Record]) -> np.ndarray:
    """Means over runs, layer by layer.

    Args:
        records: Runs of one cell.

    Returns:
        Rows (layer, equivariance to rotations, accuracy) in order of the layers,
        `[layers, 3]`; `[0, 3]` where one of the two was not measured.
    """
    equivariance, accuracy = (
        _means(records, pattern) for pattern in (_EQUIVARIANCE, _ACCURACY)
    )
    rows = [
        (layer, equivariance[layer], accuracy[layer])
        for layer in sorted(equivariance.keys() & accuracy.keys())
    ]
    return np.array(rows).reshape(-1, 3)


def _means(records: Sequence[Record], pattern: re.Pattern[str]) -> dict[int, float]:
    """Layer -> mean of the values whose names fit."""
    values: dict[int, list[float]] = {}
    for record in records:
        for name, value in record.values.items():
            if match := pattern.fullmatch(name):
                values.setdefault(int(match[1]), []).append(value)
    return {layer: float(np.mean(of)) for layer, of in values.items()}
