"""How group elements act on images and on token grids, with static shapes.

A grid of any shape sits in a fixed number of slots: slot t holds grid cell
(t // columns, t % columns), the rest is padding. An element acts on it by a row
operator and a column operator (small matrices: identity, reversal or bicubic resize)
and a transpose, so one compilation serves every element and each image may have its
own. D4 elements come out bitwise exact: their operators hold only zeros and ones.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.geometry.group import Element


def cubic_kernel(distance: jax.Array, a: float = -0.75) -> jax.Array:
    """Cubic convolution kernel.

    Args:
        distance: Distance from the sample in input cells, `[...]`, float32.
        a: Slope at distance 1.

    Returns:
        Weight of the sample, `[...]`, float32; exactly 1 at 0 and 0 at other integers.

    Reference:
        Keys, Cubic convolution interpolation for digital image processing, 1981, with
        the a of PyTorch's bicubic mode; -0.5 where that antialiases.
    """
    t = jnp.abs(distance)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return jnp.where(t <= 1, near, jnp.where(t < 2, far, 0.0))


def linear_kernel(distance: jax.Array) -> jax.Array:
    """Linear interpolation.

    Args:
        distance: Distance from the sample in input cells, `[...]`, float32.

    Returns:
        Weight of the sample, `[...]`, float32.
    """
    return jnp.maximum(1 - jnp.abs(distance), 0.0)


def nearest_kernel(distance: jax.Array) -> jax.Array:
    """Nearest cell; of two as near, the later one.

    Args:
        distance: Signed distance from the sample in input cells, `[...]`, float32.

    Returns:
        1 for the nearest sample, else 0, `[...]`, float32.
    """
    return ((distance >= -0.5) & (distance < 0.5)).astype(jnp.float32)


KERNELS = {
    "bicubic": cubic_kernel,
    "bilinear": linear_kernel,
    "nearest": nearest_kernel,
}


_TAPS = np.array([-1.0, 0.0, 1.0, 2.0], np.float32)  # samples around a point


def resize_operator(
    num_in: jax.Array | int,
    num_out: jax.Array | int,
    max_in: int,
    max_out: int,
    *,
    flip: jax.Array | bool = False,
    step: jax.Array | None = None,
    kernel: str = "bicubic",
) -> jax.Array:
    """Matrix that resizes one axis and, if asked, reverses it.

    Half-pixel centres, no antialiasing, border cells repeated: PyTorch's
    `interpolate(mode="bicubic", align_corners=False)`.

    Args:
        num_in: Cells of the axis before, `[...]`, int32, at most `max_in`.
        num_out: Cells of the axis after, `[...]`, int32, at most `max_out`.
        max_in: Static length of the axis before.
        max_out: Static length of the axis after.
        flip: Whether the result is reversed, `[...]`, bool.
        step: Input cells per output cell, `[...]`, float32; num_in / num_out if None.
        kernel: Name in `KERNELS`.

    Returns:
        `[..., max_out, max_in]`, float32. Rows past `num_out` and columns past `num_in`
        are zero.
    """
    if step is None:
        step = jnp.asarray(num_in, jnp.float32) / jnp.asarray(num_out, jnp.float32)
    num_in, num_out, flip, step = (
        x[..., None] for x in jnp.broadcast_arrays(num_in, num_out, flip, step)
    )  # [..., 1]
    out = jnp.arange(max_out).reshape((1,) * (num_in.ndim - 1) + (max_out,))
    cell = jnp.where(flip, num_out - 1 - out, out)  # [..., max_out]
    centre = (cell.astype(jnp.float32) + 0.5) * step - 0.5
    taps = jnp.floor(centre)[..., None] + _TAPS.reshape((1,) * centre.ndim + (4,))
    weights = KERNELS[kernel](centre[..., None] - taps)  # [..., max_out, 4]
    inside = jnp.clip(taps.astype(jnp.int32), 0, num_in[..., None] - 1)
    matrix = jnp.sum(jax.nn.one_hot(inside, max_in) * weights[..., None], axis=-2)
    return jnp.where((out < num_out)[..., None], matrix, 0.0)


def slot_cells(
    grid_shape: jax.Array, num_slots: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which grid cell each slot holds.

    Args:
        grid_shape: (rows, columns), `[b, 2]`, int32.
        num_slots: Static number of slots, n.

    Returns:
        Row and column of each slot, `[b, n]`, int32 (padding slots get cells outside
        the grid), and whether a slot is filled, `[b, n]`, bool.
    """
    rows, cols = grid_shape[:, :1], grid_shape[:, 1:]  # [b, 1]
    slot = jnp.arange(num_slots)[None]  # [1, n]
    return slot // cols, slot % cols, slot < rows * cols


def canvas_to_slots(
    canvas: jax.Array, grid_shape: jax.Array, num_slots: int
) -> jax.Array:
    """Reads grids that lie in the top left corner of a square canvas into slots.

    Args:
        canvas: Grids, `[b, s, s, d]`.
        grid_shape: (rows, columns) of each grid, `[b, 2]`, int32, at most s each.
        num_slots: Static number of slots, n.

    Returns:
        Tokens, `[b, n, d]`; padding slots are zero.
    """
    b, side, _, d = canvas.shape
    row, col, valid = slot_cells(grid_shape, num_slots)
    cells = jnp.where(valid, row * side + col, 0)  # [b, n]
    flat = canvas.reshape(b, side * side, d)
    tokens = jnp.take_along_axis(flat, cells[..., None], axis=1)  # [b, n, d]
    return jnp.where(valid[..., None], tokens, 0)


def slots_to_canvas(tokens: jax.Array, grid_shape: jax.Array, side: int) -> jax.Array:
    """Lays slots out on a square canvas: the reverse of `canvas_to_slots`.

    Args:
        tokens: Tokens, `[b, n, d]`.
        grid_shape: (rows, columns) of each grid, `[b, 2]`, int32.
        side: Static side of the canvas, s.

    Returns:
        Canvas, `[b, s, s, d]`; cells outside the grid hold an arbitrary token of it.
    """
    b, num_slots, d = tokens.shape
    cols = grid_shape[:, 1, None, None]  # [b, 1, 1]
    row, col = jnp.arange(side)[None, :, None], jnp.arange(side)[None, None]
    slots = jnp.minimum(row * cols + col, num_slots - 1).reshape(b, side * side)
    cells = jnp.take_along_axis(tokens, slots[..., None], axis=1)
    return cells.reshape(b, side, side, d)


def _act(
    canvas: jax.Array,
    in_shape: jax.Array,
    d4: jax.Array,
    out_shape: jax.Array,
    m: int,
    kernel: str,
) -> jax.Array:
    """Applies D4, then a resize, to pictures in the corner of `canvas` [b, h, w, d].

    Resize and flips run in the picture's own frame and the transpose, free on a square
    canvas, last: the same map, and it spares a second set of operators.
    """
    transpose, flip_rows, flip_cols = d4 >> 2 == 1, d4 >> 1 & 1 == 1, d4 & 1 == 1
    # Before the transpose, rows are what columns will be.
    rows_out = jnp.where(transpose, out_shape[:, 1], out_shape[:, 0])
    cols_out = jnp.where(transpose, out_shape[:, 0], out_shape[:, 1])
    flip_rows, flip_cols = (
        jnp.where(transpose, flip_cols, flip_rows),
        jnp.where(transpose, flip_rows, flip_cols),
    )
    max_rows, max_cols = canvas.shape[1:3]
    row_op = resize_operator(
        in_shape[:, 0], rows_out, max_rows, m, flip=flip_rows, kernel=kernel
    )
    col_op = resize_operator(
        in_shape[:, 1], cols_out, max_cols, m, flip=flip_cols, kernel=kernel
    )
    # fp32 at full precision: a resize is arithmetic on pixels, not a layer.
    canvas = canvas.astype(jnp.float32)
    canvas = jnp.einsum("brh,bhwd->brwd", row_op, canvas, precision="highest")
    canvas = jnp.einsum("bcw,brwd->brcd", col_op, canvas, precision="highest")
    return jnp.where(transpose[:, None, None, None], canvas.swapaxes(1, 2), canvas)


def act_on_image(
    images: jax.Array, element: Element, *, patch_size: int, max_side: int
) -> jax.Array:
    """Images moved by their group elements, in the corner of a fixed canvas.

    Args:
        images: `[b, h, w, c]`, float.
        element: One element an image, `[b]`; `grid_shape` counts patches.
        patch_size: Pixels a side of a patch.
        max_side: Longest grid side that any element may ask for, in patches.

    Returns:
        `[b, s, s, c]`, float32, s = max_side * patch_size; zero outside the picture.
        Not clipped: bicubic interpolation overshoots.

    Reference:
        SER (arXiv 2603.06693), Sec. 3: the geometric part of T_eq.
    """
    in_shape = jnp.broadcast_to(jnp.array(images.shape[1:3]), element.grid_shape.shape)
    out_shape = element.grid_shape * patch_size
    side = max_side * patch_size
    return _act(images, in_shape, element.d4, out_shape, side, "bicubic")


def act_on_grid(
    tokens: jax.Array,
    grid_shape: jax.Array,
    element: Element,
    *,
    max_side: int,
    kernel: str = "bicubic",
) -> jax.Array:
    """Token grids moved by their group elements: rho_g.

    Args:
        tokens: Tokens in slots, `[b, n, d]`, float.
        grid_shape: (rows, columns) of each grid before, `[b, 2]`, int32.
        element: One element an image, `[b]`.
        max_side: Longest side of any grid before or after, in tokens.
        kernel: How resizing interpolates, a name in `KERNELS`.

    Returns:
        Tokens in the slots of `element.grid_shape`, `[b, n, d]`, float32; padding slots
        are zero.

    Reference:
        SER (arXiv 2603.06693), Sec. 3: rho_g on the feature map.
    """
    canvas = slots_to_canvas(tokens, grid_shape, max_side)  # [b, s, s, d]
    canvas = _act(canvas, grid_shape, element.d4, element.grid_shape, max_side, kernel)
    return canvas_to_slots(canvas, element.grid_shape, tokens.shape[1])
