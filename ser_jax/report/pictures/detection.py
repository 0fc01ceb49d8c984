"""AP of detection over sizes of objects, runs side by side."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from ser_jax.evaluate.pictures import figures
from ser_jax.evaluate.pictures.figures import COLORS
from ser_jax.storage.files import PathLike

_SHOWN = {  # figure -> below its bars
    "AP": "all",
    "AP50": "all, IoU .5",
    "AP75": "all, IoU .75",
    "APs": "small\nbelow 32² px",
    "APm": "medium",
    "APl": "large\nabove 96² px",
}


def detection_picture(
    path: PathLike, results: Mapping[str, Mapping[str, Any]]
) -> epath.Path:
    """Path of a PNG: bars of AP by IoU and size, a dot a head, the spread of heads.

    Args:
        path: The file; replaced as a whole.
        results: Name of a checkpoint -> its results of detection: figures, means over
            heads, their "<figure>_std", and figures by seed in "seeds". One without any
            is left out, and the others keep their colours.

    Returns:
        The path.
    """
    figure = figures.Figure(figsize=(10, 3.6), layout="constrained")
    ax = figure.subplots()
    colors = dict(zip(results, itertools.cycle(COLORS), strict=False))
    shown = {checkpoint: of for checkpoint, of in results.items() if of}
    width = 0.8 / len(shown)
    for i, (checkpoint, of) in enumerate(shown.items()):
        places = np.arange(len(_SHOWN)) + (i + 0.5) * width - 0.4
        ax.bar(
            places,
            _values(of, ""),
            0.92 * width,
            yerr=_values(of, "_std"),
            color=colors[checkpoint],
            error_kw={"elinewidth": 1.2, "capsize": 3, "ecolor": "0.2"},
            label=checkpoint,
        )
        for head in of.get("seeds", {}).values():
            ax.scatter(
                places, _values(head, ""), 7, "white", zorder=3, lw=0.6, ec="0.2"
            )
    figures.tidy(ax, "AP")
    ax.grid(visible=False, axis="x")
    ax.set_xticks(range(len(_SHOWN)), list(_SHOWN.values()))
    ax.set(xlim=(-0.6, len(_SHOWN) - 0.4))
    ax.set_ylim(bottom=0)
    figure.legend(loc="outside lower left", frameon=False, ncols=4)
    return figures.save(figure, path)


def _values(of: Mapping[str, Any], suffix: str) -> np.ndarray:
    """The figures that are shown, NaN where there is none."""
    return np.array([of.get(f"{name}{suffix}") for name in _SHOWN], np.float64)
