"""Transformed versus recomputed: rho_g F(x) beside F(gx), token by token."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from matplotlib import colormaps

from ser_jax.evaluate.layers.transforms import (
    DEFAULT_TRANSFORMS,
    Encode,
    Transform,
    encoded_pairs,
)
from ser_jax.evaluate.pictures import figures
from ser_jax.evaluate.pictures.patches import TokenColors
from ser_jax.geometry.action import canvas_to_slots, slot_cells
from ser_jax.models.outputs import EncoderOutput, TokenGrid

SHOWN_TRANSFORMS: Mapping[str, Transform] = {
    name: DEFAULT_TRANSFORMS[name]
    for name in ("rotation/90", "flip/horizontal", "scale/0.8", "translation/down")
}
_ABSENT = 0.85  # grey
_DISTANCE = colormaps["viridis"].with_extremes(bad=(_ABSENT,) * 3)
_PIXELS = 0  # the grid of a picture's own patches; an encoder's layers start at 1


@dataclasses.dataclass(frozen=True)
class TokenMap:
    """One picture under one transform.

    Attributes:
        name: Of the transform.
        image: x, normalised, `[h, w, 3]`.
        moved_image: gx, of its own size, `[h, w, 3]`.
        tokens: F(x), `[rows, cols, d]`.
        carried: rho_g F(x), on the grid of gx, `[rows, cols, d]`.
        moved: F(gx), `[rows, cols, d]`.
        valid: Where rho_g F(x) has a token, `[rows, cols]`, bool.
    """

    name: str
    image: np.ndarray
    moved_image: np.ndarray
    tokens: np.ndarray
    carried: np.ndarray
    moved: np.ndarray
    valid: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """1 - cosine of rho_g F(x) and F(gx), `[rows, cols]`; NaN where not valid."""
        dot = np.sum(self.carried * self.moved, axis=-1)
        norms = np.linalg.norm(self.carried, axis=-1) * np.linalg.norm(
            self.moved, axis=-1
        )
        return np.where(self.valid, 1 - dot / np.maximum(norms, 1e-12), np.nan)


def token_maps(
    encode: Encode,
    images: np.ndarray,
    transforms: Mapping[str, Transform],
    patch_size: int,
    layer: int,
) -> list[TokenMap]:
    """Token grids before and after each transform.

    Args:
        encode: As `equivariance_scores` takes it, with the grid of `layer`.
        images: Square pictures, `[b, s, s, 3]`, float, normalised.
        transforms: By name; those that the grid cannot show are left out, see
            `encoded_pairs`.
        patch_size: Pixels a side of a patch; a divisor of s.
        layer: Whose grid F is, >= 1.

    Returns:
        One a transform and picture: all transforms of the first picture, then of the
        next.
    """

    def with_pixels(
        canvas: jax.Array, grid_shape: jax.Array, num_slots: int
    ) -> EncoderOutput:
        """The patches ride along as a grid, so that gx is known where F(gx) is."""
        out = encode(canvas, grid_shape, num_slots)
        pixels = _pixels(canvas, grid_shape, num_slots, patch_size)
        return dataclasses.replace(out, grids={**out.grids, _PIXELS: pixels})

    maps: list[list[TokenMap]] = [[] for _ in images]
    pairs = encoded_pairs(with_pixels, jnp.asarray(images), transforms, patch_size)
    for name, still, moved, carry in pairs:
        carried, valid = jax.device_get(carry(still.grids[layer]))
        before, after = jax.device_get((still.grids, moved.grids))
        for i, of_image in enumerate(maps):
            shape = after[layer].grid_shape[i]
            of_image.append(
                TokenMap(
                    name,
                    _picture(before[_PIXELS], i, patch_size),
                    _picture(after[_PIXELS], i, patch_size),
                    tokens=_grid(before[layer].tokens[i], before[layer].grid_shape[i]),
                    carried=_grid(carried[i], shape),
                    moved=_grid(after[layer].tokens[i], shape),
                    valid=_grid(valid[i], shape),
                )
            )
    return [row for of_image in maps for row in of_image]


def token_maps_picture(
    path: epath.Path,
    maps: Sequence[TokenMap],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> epath.Path:
    """Path of a PNG, one row a map: x, gx, F(x), rho_g F(x), F(gx), their distance.

    Tokens are coloured by principal components of all the rows' F(x), so F(gx) looks
    like rho_g F(x) only where it is. Distances are 1 - cosine, drawn from 0 to 1.

    Args:
        path: The file; replaced as a whole.
        maps: At least one.
        mean: That the pictures were normalised with, by channel.
        std: The same.

    Returns:
        The path.
    """
    d = maps[0].tokens.shape[-1]
    colors = TokenColors.fit(np.concatenate([m.tokens.reshape(-1, d) for m in maps]))
    figure, axes = figures.panels(len(maps), 6)
    titles = ("$x$", "$gx$", "$F(x)$", r"$\rho_g F(x)$", "$F(gx)$", r"$1 - \cos$")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=10)
    for row, m in zip(axes, maps, strict=True):
        row[0].set_ylabel(m.name, fontsize=8)
        before, after = m.tokens.shape[:2], m.moved.shape[:2]
        carried = np.where(m.valid[..., None], colors(m.carried), _ABSENT)
        cells = (
            (_displayed(m.image, mean, std), before),
            (_displayed(m.moved_image, mean, std), after),
            (colors(m.tokens), before),
            (carried, after),
            (colors(m.moved), after),
        )
        for ax, (cell, extent) in zip(row[:5], cells, strict=True):
            figures.show(ax, cell, extent)
        error = np.ma.masked_invalid(m.error)
        heat = figures.show(row[5], error, after, cmap=_DISTANCE, vmin=0, vmax=1)
        row[5].set_xlabel(f"mean {error.mean():.2f}", fontsize=8)
        side = max(*before, *after)  # one scale in a row: a smaller gx looks smaller
        for ax in row:
            ax.set(xlim=(0, side), ylim=(side, 0))
    bar = figure.colorbar(heat, ax=axes[:, 5], shrink=min(1, 3 / len(maps)))
    bar.ax.tick_params(labelsize=8)
    return figures.save(figure, path)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _pixels(
    canvas: jax.Array, grid_shape: jax.Array, num_slots: int, patch_size: int
) -> TokenGrid:
    """The patches of pictures on canvases, their pixels as tokens."""
    b, side = len(canvas), canvas.shape[1] // patch_size
    patches = canvas.reshape(b, side, patch_size, side, -1).swapaxes(2, 3)
    patches = patches.reshape(b, side, side, -1)  # [b, rows, cols, p * p * c]
    tokens = canvas_to_slots(patches, grid_shape, num_slots)
    return TokenGrid(tokens, grid_shape, slot_cells(grid_shape, num_slots)[2])


def _grid(slots: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """`[n, ...]` -> `[rows, cols, ...]`."""
    rows, cols = (int(x) for x in shape)
    return slots[: rows * cols].reshape(rows, cols, *slots.shape[1:])


def _picture(grid: TokenGrid, i: int, patch_size: int) -> np.ndarray:
    """The picture that patches are of, `[h, w, 3]`."""
    patches = _grid(np.asarray(grid.tokens)[i], np.asarray(grid.grid_shape)[i])
    rows, cols, _ = patches.shape
    pixels = patches.reshape(rows, cols, patch_size, patch_size, -1).swapaxes(1, 2)
    return pixels.reshape(rows * patch_size, cols * patch_size, -1)


def _displayed(
    image: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    return np.clip(image * np.asarray(std) + np.asarray(mean), 0, 1)
