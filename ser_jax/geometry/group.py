"""The group SER acts with: the eight symmetries of the square, times a rescaling.

An element says how a square picture (or its token grid) becomes a view: first one of
the eight elements of D4, then a resize to `grid_shape` tokens. Resizing with half-pixel
centres commutes with flips and transposes, so every chain of turns, flips and resizes
has this form. D4 elements are numbered `4 * transpose + 2 * flip_rows + flip_cols`,
meaning: transpose first, then reverse the order of the rows, then of the columns.
"""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

IDENTITY = 0
HFLIP = 1  # left-right: columns reversed
ROT180 = 3
QUARTER_TURNS = (0, 6, 3, 5)  # k counter-clockwise quarter turns, as numpy.rot90


def _compose(g: int, h: int) -> int:
    """D4 product, `h` first."""
    g_transpose, g_rows, g_cols = g >> 2, g >> 1 & 1, g & 1
    h_transpose, h_rows, h_cols = h >> 2, h >> 1 & 1, h & 1
    if g_transpose:  # a row flip followed by a transpose is a column flip
        h_rows, h_cols = h_cols, h_rows
    return 4 * (g_transpose ^ h_transpose) + 2 * (g_rows ^ h_rows) + (g_cols ^ h_cols)


_PRODUCT = np.array([[_compose(g, h) for h in range(8)] for g in range(8)], np.int32)
_INVERSE = np.argmax(_PRODUCT == IDENTITY, axis=1).astype(np.int32)


def compose(g: jax.Array, h: jax.Array) -> jax.Array:
    """D4 product of element numbers: `h` acts first, then `g`.

    Args:
        g: Element numbers, `[...]`, int32 in 0..7.
        h: Element numbers, same shape as `g`.

    Returns:
        Element numbers of the products, `[...]`, int32.
    """
    return jnp.asarray(_PRODUCT)[g, h]


def inverse(g: jax.Array) -> jax.Array:
    """D4 inverse of element numbers.

    Args:
        g: Element numbers, `[...]`, int32 in 0..7.

    Returns:
        Element numbers of the inverses, `[...]`, int32.
    """
    return jnp.asarray(_INVERSE)[g]


@flax.struct.dataclass
class Element:
    """Per-image group elements: a D4 element, then a resize to `grid_shape`.

    Attributes:
        d4: Element number of D4, `[b]`, int32 in 0..7.
        grid_shape: Token grid of the result as (rows, columns), `[b, 2]`, int32.
    """

    d4: jax.Array
    grid_shape: jax.Array


def relative(destination: Element, source: Element) -> Element:
    """The element that carries the view made by `source` onto that by `destination`.

    Args:
        destination: Element of the view to land on, `[b]`.
        source: Element of the view to start from, `[b]`.

    Returns:
        `destination` after the inverse of `source`, `[b]`. It resizes straight from one
        grid to the other, not by way of the original picture.
    """
    return Element(
        d4=compose(destination.d4, inverse(source.d4)),
        grid_shape=destination.grid_shape,
    )


def resized_grid(area: jax.Array, aspect: jax.Array) -> jax.Array:
    """Grid of about `area` tokens with `rows / cols` of about `aspect`.

    Args:
        area: Wanted number of tokens, `[...]`, float32 > 0.
        aspect: Wanted ratio of rows to columns, `[...]`, float32 > 0.

    Returns:
        (rows, columns), `[..., 2]`, float32, not yet rounded.
    """
    return jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)], axis=-1)


@dataclasses.dataclass(frozen=True)
class Group:
    """Which elements are drawn, and the static sizes that hold every one of them.

    Attributes:
        base_side: Tokens a side of the untouched square picture.
        area_range: Range of the resized grid's area, as a fraction of the base grid's.
        aspect_range: Range of rows / columns, drawn log-uniformly.
        rotations: Whether quarter turns are drawn.
        flips: Whether left-right flips are drawn.
        sampling: "independent": every image and view draws its own element from the
            whole group. "release": as the authors' code, one grid shape and number of
            quarter turns per view for the whole batch, and 180-degree turn and flip per
            image, complementary between the two views; the relative element is then
            always one of the four reflections. It draws from the whole group.

    Raises:
        ValueError: If a range is not positive and increasing, a name is unknown, or
            "release" is asked of a part of the group.
    """

    base_side: int
    area_range: tuple[float, float] = (0.7, 1.3)
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3)
    rotations: bool = True
    flips: bool = True
    sampling: str = "independent"

    def __post_init__(self):
        """Checks the fields."""
        for name in ("area_range", "aspect_range"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be 0 < low <= high, got {(low, high)}.")
        if self.sampling not in ("independent", "release"):
            raise ValueError(
                f"sampling must be 'independent' or 'release', got {self.sampling!r}."
            )
        if self.sampling == "release" and not (self.rotations and self.flips):
            raise ValueError(
                "sampling 'release' draws rotations and flips as one; to leave one of "
                "them out use sampling 'independent'."
            )

    @property
    def num_slots(self) -> int:
        """Token slots that hold the largest grid, a multiple of 8 (256 for 14 x 14)."""
        largest = math.floor(self.area_range[1] * self.base_side**2)
        return max(8 * math.ceil(largest / 8), self.base_side**2)

    @property
    def max_side(self) -> int:
        """Longest side of any grid, in tokens (18 for 14 x 14)."""
        stretch = max(self.aspect_range[1], 1 / self.aspect_range[0])
        side = round(self.base_side * math.sqrt(self.area_range[1] * stretch))
        return max(side, self.base_side)

    def sample_grid_shape(self, rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draws token grids.

        Args:
            rng: Key.
            shape: Leading shape of the draws.

        Returns:
            (rows, columns), `[*shape, 2]`, int32. Sides are rounded to the nearest
            integer, as the reference does, except where that would overfill
            `num_slots`: there they are rounded down, which cannot.
        """
        area_rng, aspect_rng = jax.random.split(rng)
        low, high = self.area_range
        area = jax.random.uniform(area_rng, shape, minval=low, maxval=high)
        low, high = (math.log(value) for value in self.aspect_range)
        aspect = jnp.exp(jax.random.uniform(aspect_rng, shape, minval=low, maxval=high))
        sides = resized_grid(area * self.base_side**2, aspect)
        nearest = jnp.maximum(jnp.round(sides), 1)
        overfull = jnp.prod(nearest, axis=-1, keepdims=True) > self.num_slots
        return jnp.where(overfull, jnp.floor(sides), nearest).astype(jnp.int32)

    def sample_pair(self, rng: jax.Array, batch: int) -> tuple[Element, Element]:
        """Draws the elements of the two views of each image.

        Args:
            rng: Key.
            batch: Number of images, b.

        Returns:
            Elements of view 0 and of view 1, each `[b]`.

        Reference:
            SER (arXiv 2603.06693), Sec. 3 and the released sampling code.
        """
        if self.sampling == "release":
            return self._sample_release(rng, batch)
        views = []
        for view_rng in jax.random.split(rng):
            d4_rng, grid_rng = jax.random.split(view_rng)
            chosen = jnp.asarray(self._drawn_d4)
            d4 = chosen[jax.random.randint(d4_rng, (batch,), 0, len(chosen))]
            views.append(Element(d4, self.sample_grid_shape(grid_rng, (batch,))))
        return views[0], views[1]

    @property
    def _drawn_d4(self) -> tuple[int, ...]:
        """Elements of D4 that are drawn: a subgroup."""
        turns = QUARTER_TURNS if self.rotations else (IDENTITY,)
        flips = (IDENTITY, HFLIP) if self.flips else (IDENTITY,)
        return tuple(sorted(_compose(turn, flip) for turn in turns for flip in flips))

    def _sample_release(self, rng: jax.Array, batch: int) -> tuple[Element, Element]:
        flag_rng, *view_rngs = jax.random.split(rng, 3)
        turned, flipped = jax.random.bernoulli(flag_rng, shape=(2, batch))
        views = []
        for view, view_rng in enumerate(view_rngs):
            grid_rng, turn_rng = jax.random.split(view_rng)
            views.append(
                release_element(
                    rot180=turned ^ bool(view),
                    hflip=flipped ^ bool(view),
                    grid_shape=self.sample_grid_shape(grid_rng, ()),
                    quarter_turns=jax.random.randint(turn_rng, (), 0, 4),
                )
            )
        return views[0], views[1]


def release_element(
    *,
    rot180: jax.Array,
    hflip: jax.Array,
    grid_shape: jax.Array,
    quarter_turns: jax.Array,
) -> Element:
    """The element of the released code's view: turn and flip, resize, quarter turns.

    Args:
        rot180: Whether each image is turned by 180 degrees, `[b]`, bool.
        hflip: Whether each image is then flipped left-right, `[b]`, bool.
        grid_shape: (rows, columns) of the resize, `[2]`, int32, shared by the batch.
        quarter_turns: Counter-clockwise quarter turns after the resize, `[]`, int32.

    Returns:
        Elements in this package's form (D4 first, then resize), `[b]`.
    """
    image_d4 = compose(
        jnp.where(hflip, HFLIP, IDENTITY), jnp.where(rot180, ROT180, IDENTITY)
    )
    turns = jnp.broadcast_to(jnp.asarray(QUARTER_TURNS)[quarter_turns], image_d4.shape)
    grid_shape = jnp.where(quarter_turns % 2 == 1, grid_shape[::-1], grid_shape)
    return Element(
        d4=compose(turns, image_d4),
        grid_shape=jnp.broadcast_to(grid_shape, (*image_d4.shape, 2)),
    )
