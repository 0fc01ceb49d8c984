"""Position tables and their resampling to other token grids."""

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.geometry.action import resize_operator

# DINO and the SER release ask for a grid 0.1 larger than wanted, and torch lets that
# 0.1 enter the sampling coordinates. Checkpoints trained that way need it.
_EXTRA = 0.1


def sincos_table(side: int, width: int) -> np.ndarray:
    """Fixed 2-D sine-cosine position table of a square grid.

    Args:
        side: Tokens a side.
        width: Width d of the model, a multiple of 4.

    Returns:
        `[side * side, d]`, float32, row-major.

    Raises:
        ValueError: If the width is not a multiple of 4.

    Reference:
        MoCo v3 (arXiv 2104.02057), Sec. 4.
    """
    if width % 4:
        raise ValueError(f"sin-cos positions need a width of 4 x k, got {width}.")
    omega = 10000.0 ** (-np.arange(width // 4) / (width / 4))
    # The original crosses two aranges as matrix indices and names the first w: so the
    # leading half of the width encodes rows.
    cells = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    first, second = (cell.reshape(-1, 1) * omega for cell in cells)
    table = [np.sin(first), np.cos(first), np.sin(second), np.cos(second)]
    return np.concatenate(table, axis=1).astype(np.float32)


def resample_positions(
    table: jax.Array, grid_shape: jax.Array, max_side: int
) -> jax.Array:
    """Positions of token grids of other shapes, bicubically from a square table.

    Args:
        table: `[side * side, d]`, row-major.
        grid_shape: (rows, columns), `[b, 2]`, int32, at most `max_side`. A grid of the
            table's own shape gets the table itself, bit for bit.
        max_side: Static side of the canvas.

    Returns:
        Canvas with the grid in its top left corner, `[b, max_side, max_side, d]`,
        float32.

    Reference:
        DINO (arXiv 2104.14294), released `interpolate_pos_encoding`.
    """
    side = round(table.shape[0] ** 0.5)
    same = jnp.all(grid_shape == side, axis=-1, keepdims=True)  # [b, 1]
    step = jnp.where(same, 1.0, side / (grid_shape + _EXTRA))  # [b, 2]
    row_op, col_op = (
        resize_operator(side, grid_shape[:, i], side, max_side, step=step[:, i])
        for i in (0, 1)
    )  # [b, max_side, side]
    grid = table.reshape(side, side, -1).astype(jnp.float32)  # [h, w, d]
    # Rows and columns past the grid are zero in the operators, so they are here too.
    return jnp.einsum("brh,bcw,hwd->brcd", row_op, col_op, grid, precision="highest")
