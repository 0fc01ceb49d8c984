"""How closely the token grids of a frozen encoder move with the image.

For a transform g, the tokens of the moved image, F(gx), are compared with those of
the image itself carried along, rho_g F(x). A cosine alone says little: tokens of any
two places point much the same way, more so in deeper layers, trained or not. So each
comes with the cosine of unrelated tokens, and with measures that a common direction
cannot raise.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.layers.transforms import (
    DEFAULT_TRANSFORMS,
    Encode,
    Transform,
    encoded_pairs,
)
from ser_jax.models.normalize import l2_normalize
from ser_jax.models.outputs import TokenGrid


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Mean cosine of features that belong together, and of some that do not.

    Attributes:
        value: Of a feature and its counterpart.
        random: Of a feature and one of another image.
    """

    value: float
    random: float

    @property
    def corrected(self) -> float:
        """1 if counterparts agree, 0 if no better than strangers; NaN if all do."""
        if self.random == 1:
            return float("nan")
        return (self.value - self.random) / (1 - self.random)


@dataclasses.dataclass(frozen=True)
class Scores:
    """One layer under one transform.

    Attributes:
        tokens: Equivariance: cosine of rho_g F(x) and F(gx), place by place.
        unmoved: Of F(x) and F(gx), cell by cell of the grid: high where tokens say
            more of their place, or of nothing, than of the image. NaN if g changes
            the grid's shape. As in EquiMod, `tokens.value - unmoved` is what carrying
            gains, (1 - unmoved) / (1 - tokens.value) its ratio.
        error: Normalised error, |rho_g F(x) - F(gx)|^2 over the two maps' squared
            distance from their common mean: 0 is exact, 1 is uncorrelated. NaN if the
            tokens are all the same.
        top1: How often, among the tokens of F(gx) of its image, the nearest to a token
            of rho_g F(x) (cosine, common mean subtracted) is the one at its place.
        top1_chance: The same by guessing, 1 / number of tokens.
        pooled: Invariance: cosine of the mean tokens of x and gx.
        cls: The same of the encoder's class token, whatever the layer.
    """

    tokens: Cosine
    unmoved: float
    error: float
    top1: float
    top1_chance: float
    pooled: Cosine
    cls: Cosine


class _Sums(NamedTuple):
    """Sums over one batch; the mean is kept apart, for precision."""

    num_images: jax.Array
    num_tokens: jax.Array
    tokens: tuple[jax.Array, jax.Array]  # cosines of counterparts, of strangers
    unmoved: jax.Array  # cosines of the same cell; NaN if the grids differ in shape
    mean: jax.Array  # of both maps' tokens, [d]
    spread: jax.Array  # squared distance of both maps' tokens from it
    difference: jax.Array  # squared distance between the maps
    matches: jax.Array
    pooled: tuple[jax.Array, jax.Array]
    cls: tuple[jax.Array, jax.Array]


def equivariance_scores(
    encode: Encode,
    images: np.ndarray,
    *,
    patch_size: int,
    layers: tuple[int, ...],
    seed: int,
    transforms: Mapping[str, Transform] = DEFAULT_TRANSFORMS,
    batch_size: int = 64,
) -> dict[int, dict[str, Scores]]:
    """Scores of every layer under every transform.

    Args:
        encode: `(canvases, grid_shape [b, 2], num_slots) -> EncoderOutput`, as the
            encoders take them, with the grids of `layers`. Jit it, `num_slots` static:
            it compiles once for all reshapes and once for all translations.
        images: Square images, `[n, s, s, c]`, float, normalised; n >= 2.
        patch_size: Pixels a side of a patch; a divisor of s.
        layers: Layers whose token grids are scored.
        seed: Of the random pairs; one seed gives all layers and transforms the same.
        transforms: By name; those that this grid cannot show are left out, see
            `encoded_pairs`.
        batch_size: Images encoded at a time, >= 2; more than there are is allowed.

    Returns:
        Layer -> name of the transform -> scores.

    Raises:
        ValueError: If the images are not square or do not divide into patches, or
            there are too few of them to pair.

    Reference:
        The definitions are this package's own. SER (arXiv 2603.06693) reports an
        equivariance score without a formula; do not compare the numbers with it.
    """
    n, height, width, _ = images.shape
    if height != width or height % patch_size:
        raise ValueError(
            f"images of {height} x {width} px must be square and divide into patches "
            f"of {patch_size} px; crop or resize them."
        )
    b = min(batch_size, n)
    if b < 2:
        raise ValueError(
            f"{n} images in batches of {batch_size}: random pairs need two images in a "
            "batch."
        )
    sums: dict[int, dict[str, list[_Sums]]] = {layer: {} for layer in layers}
    for start in range(0, n, b):
        # The last batch reaches back for images: one shape, and strangers to pair with.
        first = min(start, n - b)
        fresh = jnp.arange(first, first + b) >= start
        batch = jnp.asarray(images[first : first + b])
        rng = jax.random.fold_in(jax.random.key(seed), start)
        for name, still, moved, carry in encoded_pairs(
            encode, batch, transforms, patch_size
        ):
            for layer in layers:
                grid, moved_grid = still.grids[layer], moved.grids[layer]
                cls = (still.cls, moved.cls)
                part = _tally(grid, moved_grid, *carry(grid), cls, fresh, rng)
                sums[layer].setdefault(name, []).append(part)
    return {
        layer: {name: _scores(jax.device_get(by_name[name])) for name in by_name}
        for layer, by_name in sums.items()
    }


@jax.jit
def _tally(
    still: TokenGrid,
    moved: TokenGrid,
    carried: jax.Array,
    valid: jax.Array,
    cls: tuple[jax.Array, jax.Array],
    fresh: jax.Array,
    rng: jax.Array,
) -> _Sums:
    """Sums over the tokens that `carried` [b, n, d] has at `valid` [b, n].

    Images that are not `fresh` [b] do not count, but lend tokens to the random pairs.
    """
    b, n, _ = carried.shape
    counts = valid & fresh[:, None]  # [b, n]
    a = moved.tokens  # [b, n, d]; whatever is in padding slots, no sum below reads them
    # fp32: all of this
    num_tokens = jnp.sum(counts)
    mean = jnp.sum(a + carried, axis=(0, 1), where=counts[..., None]) / (2 * num_tokens)
    centred, carried_centred = a - mean[None, None], carried - mean[None, None]
    spread = jnp.square(centred) + jnp.square(carried_centred)

    image_rng, place_rng = jax.random.split(rng)
    other = (jnp.arange(b) + jax.random.randint(image_rng, (b,), 1, b)) % b
    # The valid slots are the same in every image.
    place = jax.random.choice(place_rng, n, (b, n), p=valid[0] / jnp.sum(valid[0]))
    strangers = carried[other[:, None], place]  # [b, n, d]

    def matches(image: tuple[jax.Array, ...]) -> jax.Array:
        queries, keys, present, counted = image
        similarity = jnp.matmul(queries, keys.T, precision="highest")  # [n, n]
        nearest = jnp.argmax(jnp.where(present[None], similarity, -jnp.inf), axis=1)
        return jnp.sum((nearest == jnp.arange(n)) & counted)

    # An image at a time: a ResNet's early grids have thousands of cells.
    images = (l2_normalize(carried_centred), l2_normalize(centred), valid, counts)

    def cosines(x: jax.Array, y: jax.Array, z: jax.Array, where: jax.Array):
        x, y, z = l2_normalize(x), l2_normalize(y), l2_normalize(z)
        pair = (jnp.sum(x * y, axis=-1), jnp.sum(x * z, axis=-1))
        return tuple(jnp.sum(cosine, where=where) for cosine in pair)

    pooled, moved_pooled = (
        # a sum: of a mean, too, only the direction counts
        jnp.sum(grid.tokens, axis=1, where=grid.valid[..., None])
        for grid in (still, moved)
    )
    same_shape = jnp.all(still.grid_shape == moved.grid_shape)
    unmoved = jnp.sum(l2_normalize(a) * l2_normalize(still.tokens), axis=-1)  # [b, n]
    return _Sums(
        num_images=jnp.sum(fresh),
        num_tokens=num_tokens,
        tokens=cosines(a, carried, strangers, counts),
        unmoved=jnp.where(same_shape, jnp.sum(unmoved, where=counts), jnp.nan),
        mean=mean,
        spread=jnp.sum(spread, where=counts[..., None]),
        difference=jnp.sum(jnp.square(a - carried), where=counts[..., None]),
        matches=jnp.sum(jax.lax.map(matches, images)),
        pooled=cosines(moved_pooled, pooled, pooled[other], fresh),
        cls=cosines(cls[1], cls[0], cls[0][other], fresh),
    )


def _scores(batches: list[_Sums]) -> Scores:
    """Scores from the sums of all batches."""
    s = jax.tree.map(lambda *x: np.stack(x).astype(np.float64), *batches)
    num_images, num_tokens = s.num_images.sum(), s.num_tokens.sum()
    weights = 2 * s.num_tokens[:, None]  # two maps
    mean = np.sum(weights * s.mean, axis=0) / weights.sum()
    spread = s.spread.sum() + np.sum(weights * np.square(s.mean - mean))
    rounding = 1e-10 * weights.sum() * np.sum(mean**2)  # of equal tokens' mean
    return Scores(
        tokens=Cosine(*(float(x.sum() / num_tokens) for x in s.tokens)),
        unmoved=float(s.unmoved.sum() / num_tokens),
        error=float(s.difference.sum() / spread) if spread > rounding else float("nan"),
        top1=float(s.matches.sum() / num_tokens),
        top1_chance=float(num_images / num_tokens),
        pooled=Cosine(*(float(x.sum() / num_images) for x in s.pooled)),
        cls=Cosine(*(float(x.sum() / num_images) for x in s.cls)),
    )
