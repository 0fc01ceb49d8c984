"""Errors on corrupted pictures, by corruption and by severity."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from matplotlib import ticker

from ser_jax.evaluate.pictures import figures
from ser_jax.evaluate.pictures.figures import COLORS
from ser_jax.storage.files import PathLike


def corruption_picture(
    path: PathLike, errors: Mapping[str, Mapping[str, Sequence[float]]]
) -> epath.Path:
    """Path of a PNG: bars by corruption (mean over severities), lines by severity.

    Args:
        path: The file; replaced as a whole.
        errors: Name of a checkpoint -> corruption -> top-1 error at severities 1, 2,
            ..., in [0, 1]. Corruptions that one lacks leave a gap in its bars; one
            without any is left out, and the others keep their colours.

    Returns:
        The path.
    """
    names = list(dict.fromkeys(name for of in errors.values() for name in of))
    figure = figures.Figure(figsize=(12, 3.6), layout="constrained")
    bars, lines = figure.subplots(1, 2, width_ratios=(3, 1), sharey=True)
    colors = dict(zip(errors, itertools.cycle(COLORS), strict=False))
    shown = {checkpoint: of for checkpoint, of in errors.items() if of}
    width = 0.8 / len(shown)
    for i, (checkpoint, of) in enumerate(shown.items()):
        color = colors[checkpoint]
        means = [float(np.mean(of[name])) if name in of else np.nan for name in names]
        places = np.arange(len(names)) + (i + 0.5) * width - 0.4
        bars.bar(places, means, width, color=color, label=checkpoint)
        by_severity = np.mean(list(of.values()), axis=0)
        severities = np.arange(1, 1 + len(by_severity))
        lines.plot(severities, by_severity, color=color, marker="o", markersize=4)
    figures.tidy(bars, "top-1 error by corruption, mean over severities")
    bars.grid(visible=False, axis="x")
    labels = [name.replace("_", " ") for name in names]
    bars.set_xticks(range(len(names)), labels, rotation=35, ha="right", fontsize=8)
    figures.tidy(lines, "by severity, mean over corruptions")
    lines.set_xlabel("severity", fontsize=9)
    lines.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    bars.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, 1))
    figure.legend(loc="outside lower left", frameon=False, ncols=4)
    return figures.save(figure, path)
