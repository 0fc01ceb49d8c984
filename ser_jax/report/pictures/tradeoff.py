"""Equivariance against accuracy: a point a checkpoint."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from etils import epath

from ser_jax.evaluate.pictures import figures
from ser_jax.evaluate.pictures.figures import COLORS
from ser_jax.storage.files import PathLike


class Tradeoff(NamedTuple):
    """Where a checkpoint stands.

    Attributes:
        by_layer: Layer -> equivariance there, 0 at chance, 1 exact; the layers shown.
        accuracy: Top-1, in [0, 1].
    """

    by_layer: Mapping[int, float]
    accuracy: float


def tradeoff_picture(
    path: PathLike, checkpoints: Mapping[str, Tradeoff], *, accuracy: str
) -> epath.Path:
    """Path of a PNG: equivariance at each of the layers shown against accuracy.

    Args:
        path: The file; replaced as a whole.
        checkpoints: Name -> where it stands; a panel for each layer that one has.
        accuracy: What accuracy is of, for the axis.

    Returns:
        The path.
    """
    layers = sorted({layer for of in checkpoints.values() for layer in of.by_layer})
    figure = figures.Figure(figsize=(3.6 * len(layers), 3.2), layout="constrained")
    axes = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    colors = dict(zip(checkpoints, itertools.cycle(COLORS), strict=False))
    for ax, layer in zip(axes, layers, strict=True):
        for name, of in checkpoints.items():
            if layer in of.by_layer:
                place = (of.by_layer[layer], of.accuracy)
                ax.scatter(*place, color=colors[name], s=36)
                ax.annotate(
                    name, place, xytext=(5, 4), textcoords="offset points", fontsize=8
                )
        figures.tidy(ax, f"layer {layer}")
        ax.set_xlabel("equivariance to rotations, 0: chance", fontsize=9)
        ax.margins(0.25)
    axes[0].set_ylabel(accuracy, fontsize=9)
    return figures.save(figure, path)
