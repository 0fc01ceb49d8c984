"""Transforms of an image and what a frozen encoder makes of it before and after."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.geometry.action import act_on_grid, act_on_image, slot_cells
from ser_jax.geometry.group import HFLIP, IDENTITY, QUARTER_TURNS, Element
from ser_jax.models.outputs import EncoderOutput, TokenGrid

VFLIP = 2  # upside down: rows reversed

Encode = Callable[[jax.Array, jax.Array, int], EncoderOutput]
# Encodings of an image and of the moved one, and what carries a grid of the first to
# its place in the second: tokens `[b, n, d]`, and which of them are there, `[b, n]`.
Carry = Callable[[TokenGrid], tuple[jax.Array, jax.Array]]
Pair = tuple[str, EncoderOutput, EncoderOutput, Carry]


@dataclasses.dataclass(frozen=True)
class Reshape:
    """A symmetry of the square, then a resize.

    Attributes:
        d4: Element number of D4, see `ser_jax.geometry.group`.
        area: Area of the resized grid over the base grid's.
        aspect: Its rows / columns.
    """

    d4: int = IDENTITY
    area: float = 1.0
    aspect: float = 1.0

    def grid_shape(self, side: int) -> tuple[int, int]:
        """(rows, columns) that a grid of `side` x `side` becomes, whole and >= 1."""
        rows = side * np.sqrt(self.area * self.aspect)
        cols = side * np.sqrt(self.area / self.aspect)
        return max(1, round(rows)), max(1, round(cols))


@dataclasses.dataclass(frozen=True)
class Translation:
    """A window on the image, one patch short of it a side, that moves by one patch.

    Both windows show real pixels, and places seen in one of them alone do not count.

    Attributes:
        down: Patches that the window moves down, 0 or 1.
        right: Patches that it moves right, 0 or 1.

    Raises:
        ValueError: If it moves by anything else: the window would leave the image.
    """

    down: int = 0
    right: int = 0

    def __post_init__(self):
        """Checks the attributes."""
        if not {self.down, self.right} <= {0, 1}:
            raise ValueError(
                "a translation moves by 0 or 1 patches down and right, got "
                f"{(self.down, self.right)}."
            )


Transform = Reshape | Translation

# What stands before the slash is the kind.
DEFAULT_TRANSFORMS: Mapping[str, Transform] = MappingProxyType(
    {
        "rotation/90": Reshape(QUARTER_TURNS[1]),
        "rotation/180": Reshape(QUARTER_TURNS[2]),
        "rotation/270": Reshape(QUARTER_TURNS[3]),
        "flip/horizontal": Reshape(HFLIP),
        "flip/vertical": Reshape(VFLIP),
        "scale/0.8": Reshape(area=0.8),
        "scale/1.25": Reshape(area=1.25),
        "aspect/0.75": Reshape(aspect=3 / 4),
        "aspect/1.33": Reshape(aspect=4 / 3),
        "translation/down": Translation(down=1),
        "translation/right": Translation(right=1),
    }
)


def encoded_pairs(
    encode: Encode,
    images: jax.Array,
    transforms: Mapping[str, Transform],
    patch_size: int,
) -> Iterator[Pair]:
    """Encodings of the images before and after each transform, and its rho_g.

    Args:
        encode: `(canvases, grid_shape [b, 2], num_slots) -> EncoderOutput`. It gets
            one shape for all reshapes and one for all translations.
        images: Square images, `[b, s, s, c]`, float.
        transforms: By name. Those that do nothing on this grid are left out, as a
            resize that rounds to the same size, and so are translations that leave no
            place in common.
        patch_size: Pixels a side of a patch; a divisor of s.

    Yields:
        Name of the transform, F(x), F(gx) and the function that carries a token grid.
    """
    return itertools.chain(
        _reshaped(encode, images, transforms, patch_size),
        _translated(encode, images, transforms, patch_size),
    )


def _reshaped(
    encode: Encode,
    images: jax.Array,
    transforms: Mapping[str, Transform],
    patch_size: int,
) -> Iterator[Pair]:
    """Encodings before and after each reshape, all on canvases of one size."""
    b, side = len(images), images.shape[1] // patch_size
    chosen = {
        name: (move.d4, move.grid_shape(side))
        for name, move in transforms.items()
        if isinstance(move, Reshape)
    }
    untouched = (IDENTITY, (side, side))
    shapes = [shape for _, shape in (untouched, *chosen.values())]
    max_side = max(max(shape) for shape in shapes)
    num_slots = max(rows * cols for rows, cols in shapes)

    def encoded(element: Element) -> EncoderOutput:
        canvas = _canvas(images, element, patch_size=patch_size, max_side=max_side)
        return encode(canvas, element.grid_shape, num_slots)

    still = None
    for name, (d4, shape) in chosen.items():
        if (d4, shape) == untouched:
            continue
        if still is None:
            still = encoded(_element(b, *untouched))
        element = _element(b, d4, shape)
        carry = functools.partial(_reshape_grid, element=element, max_side=max_side)
        yield name, still, encoded(element), carry


def _element(b: int, d4: int, shape: tuple[int, int]) -> Element:
    """The same element for each of `b` images."""
    return Element(jnp.full(b, d4), jnp.broadcast_to(jnp.array(shape), (b, 2)))


_canvas = jax.jit(act_on_image, static_argnames=("patch_size", "max_side"))


@functools.partial(jax.jit, static_argnames="max_side")
def _reshape_grid(grid: TokenGrid, *, element: Element, max_side: int):
    """rho_g of a reshape."""
    cells = element.grid_shape * grid.scale
    tokens = act_on_grid(
        jnp.where(grid.valid[..., None], grid.tokens, 0.0),
        grid.grid_shape,
        Element(element.d4, cells),
        max_side=max_side * grid.scale,
    )
    return tokens, slot_cells(cells, tokens.shape[1])[2]


def _translated(
    encode: Encode,
    images: jax.Array,
    transforms: Mapping[str, Transform],
    patch_size: int,
) -> Iterator[Pair]:
    """Encodings of the window before and after each translation."""
    b, side = len(images), images.shape[1] // patch_size - 1
    if side < 2:
        return
    shape = jnp.full((b, 2), side)

    def encoded(offset: jax.Array) -> EncoderOutput:
        window = _window(images, offset * patch_size, side_px=side * patch_size)
        return encode(window, shape, side**2)

    still = None
    for name, move in transforms.items():
        if not isinstance(move, Translation) or move == Translation():
            continue
        if still is None:
            still = encoded(jnp.zeros(2, jnp.int32))
        offset = jnp.array([move.down, move.right])
        carry = functools.partial(_translate_grid, offset=offset)
        yield name, still, encoded(offset), carry


@functools.partial(jax.jit, static_argnames="side_px")
def _window(images: jax.Array, corner_px: jax.Array, *, side_px: int) -> jax.Array:
    """Square windows of all images with one top left corner, `[b, p, p, c]`."""
    b, *_, c = images.shape
    start = (0, corner_px[0], corner_px[1], 0)
    return jax.lax.dynamic_slice(images, start, (b, side_px, side_px, c))


@jax.jit
def _translate_grid(grid: TokenGrid, *, offset: jax.Array):
    """rho_g of a translation; what leaves the window comes back in, but is not valid.

    The window fills its grid: every slot is a cell.
    """
    rows, cols = grid.grid_shape[:, :1], grid.grid_shape[:, 1:]  # [b, 1]
    down, right = offset[0] * grid.scale, offset[1] * grid.scale
    row, col, valid = slot_cells(grid.grid_shape, grid.tokens.shape[1])
    source = (row + down) % rows * cols + (col + right) % cols  # [b, n]
    tokens = jnp.take_along_axis(grid.tokens, source[..., None], axis=1)
    return tokens, valid & (row + down < rows) & (col + right < cols)
