"""What all pictures share: colours, panels without axes, files."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ser_jax.storage.files import PathLike, as_path, whole_file

COLORS = (  # Of runs, in order, in all pictures.
    *("#1b4f8a", "#d1603d", "#3a8f5c", "#8757a0"),
    *("#c79a1d", "#4fa6b8", "#a8455f", "#666666"),
)


def panels(
    num_rows: int, num_cols: int, *, side: float = 1.25
) -> tuple[Figure, np.ndarray]:
    """A figure of square panels without axes.

    Args:
        num_rows: Rows of panels.
        num_cols: Columns of panels.
        side: Inches a side of a panel.

    Returns:
        The figure and its axes, `[num_rows, num_cols]`.
    """
    size = (side * num_cols + 0.4, side * num_rows + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(num_rows, num_cols, squeeze=False)
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure, axes


def show(ax: Axes, cells: np.ndarray, extent: Sequence[int], **look: Any) -> Any:
    """Draws cells as crisp squares.

    Args:
        ax: Where.
        cells: `[rows, cols]` or `[rows, cols, 3]`.
        extent: (rows, columns) that the cells cover, in units of the panel.
        **look: For `Axes.imshow`.

    Returns:
        Matplotlib's image.
    """
    rows, cols = extent
    return ax.imshow(cells, interpolation="nearest", extent=(0, cols, rows, 0), **look)


def tidy(ax: Axes, title: str) -> None:
    """Gives a plot its title, on the left, and a quiet frame.

    Args:
        ax: The plot.
        title: Its title.
    """
    ax.set_title(title, loc="left", fontsize=10)
    ax.tick_params(labelsize=8)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: PathLike) -> epath.Path:
    """Path of a figure as a PNG file.

    Args:
        figure: The figure.
        path: The file; replaced as a whole.

    Returns:
        The path.
    """
    with whole_file(path) as stream:
        figure.savefig(stream, format="png", dpi=130)
    return as_path(path)
