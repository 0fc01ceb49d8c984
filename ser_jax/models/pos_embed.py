"""Position tables and their resampling to other token grids."""

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.geometry.action import cubic_kernel, resize_operator

# DINO and the SER release ask for a grid 0.1 larger than wanted, and torch lets that
# 0.1 enter the sampling coordinates. Checkpoints trained that way need it.
_EXTRA = 0.1

# Whose way a table is resampled.
RESAMPLING = ("dino", "hf", "timm")


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
    table: jax.Array, grid_shape: jax.Array, max_side: int, resample: str = "dino"
) -> jax.Array:
    """Positions of token grids of other shapes, bicubically from a square table.

    Args:
        table: `[side * side, d]`, row-major.
        grid_shape: (rows, columns), `[b, 2]`, int32, at most `max_side`. A grid of the
            table's own shape gets the table itself, bit for bit.
        max_side: Static side of the canvas.
        resample: Whose way: "dino" (SER's and DINOv2's, too) lets 0.1 enter the
            coordinates; "hf" (Hugging Face) does not; "timm" averages over what falls
            into a cell of a smaller grid (antialiasing), by a kernel with a = -0.5.

    Returns:
        Canvas with the grid in its top left corner, `[b, max_side, max_side, d]`,
        float32.

    Reference:
        DINO (arXiv 2104.14294), released `interpolate_pos_encoding`; timm,
        `resample_abs_pos_embed`; Hugging Face transformers, the ViT of that name.
    """
    side = round(table.shape[0] ** 0.5)
    same = jnp.all(grid_shape == side, axis=-1, keepdims=True)  # [b, 1]
    extra = _EXTRA if resample == "dino" else 0.0
    step = jnp.where(same, 1.0, side / (grid_shape + extra))  # [b, 2]
    operator = _averaging_operator if resample == "timm" else resize_operator
    row_op, col_op = (
        operator(side, grid_shape[:, i], side, max_side, step=step[:, i])
        for i in (0, 1)
    )  # [b, max_side, side]
    grid = table.reshape(side, side, -1).astype(jnp.float32)  # [h, w, d]
    # Rows and columns past the grid are zero in the operators, so they are here too.
    return jnp.einsum("brh,bcw,hwd->brcd", row_op, col_op, grid, precision="highest")


def _averaging_operator(
    num_in: int, num_out: jax.Array, max_in: int, max_out: int, *, step: jax.Array
) -> jax.Array:
    """As `resize_operator`, by PyTorch's bicubic mode with antialiasing.

    The kernel is as wide as a cell of the result if that is larger than one before, and
    cells past the border are left out, not repeated.
    """
    num_out, step = num_out[:, None, None], step[:, None, None]  # [b, 1, 1]
    out, cell = jnp.arange(max_out)[None, :, None], jnp.arange(max_in)[None, None]
    distance = cell + 0.5 - (out + 0.5) * step  # [b, max_out, max_in]
    weights = cubic_kernel(distance / jnp.maximum(1.0, step), a=-0.5)
    # Rows past the grid, which may have no weight at all, are not read.
    weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return jnp.where(out < num_out, weights, 0.0)
