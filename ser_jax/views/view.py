"""What a view of an image is: the contract of data, objectives and regularizers."""

import dataclasses
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.geometry.group import Element, Group
from ser_jax.views.recipe import Photometry, Recipe


@dataclasses.dataclass(frozen=True)
class ViewSpec:
    """A view that an objective or a regularizer wants to see.

    Attributes:
        name: Its own: "global/0", "equiv/1" and the like. Nothing follows from it.
        photometry: How it is coloured, see `recipe`.
        crop: The host's crop it starts from; the one of the same name if empty.
        extends: If set, this view is made for the shared-crop share of the batch (b2)
            instead of the view named here, which then covers the rest (b1); together
            they are one view of the whole batch, b1 first.
        geometric: Whether it is moved by a group element of its own. Geometric views
            come in pairs: number 2i and 2i + 1 are two views of one picture.
        small: Whether its crop has the size of local crops.
        centre: Whether its crop is the central square of evaluation, not a random one.
        crop_scale: Area range of its crop if not the recipe's, as shares of the image.
        copy_of: If set, this view is the one of that name, turned.
        quarter_turns: Counter-clockwise quarter turns of such a copy.
        statistics_group: Views of one size that name the same group share statistics
            in an encoder's BatchNorm; one that names none has its own.
    """

    name: str
    photometry: Photometry
    crop: str = ""
    extends: str = ""
    geometric: bool = False
    small: bool = False
    centre: bool = False
    crop_scale: tuple[float, float] | tuple[()] = ()
    copy_of: str = ""
    quarter_turns: int = 0
    statistics_group: str = ""

    @property
    def source(self) -> str:
        """Name of the host's crop."""
        return self.crop or self.name


@flax.struct.dataclass
class AugmentParams:
    """What was done to each view of a batch; neutral values where nothing was.

    EquiMod, AugSelf and others read it.

    Attributes:
        crop: `[b, 7]`, float32, as the host reports it: top, left, height, width of the
            crop and height, width of its source in pixels; 1 if flipped left-right.
        jitter_on: `[b]`, bool.
        order: `[b, 4]`, int32: the operation done first, second, ...; 0 brightness,
            1 contrast, 2 saturation, 3 hue. 0, 1, 2, 3 where off.
        brightness: `[b]`, float32 factor; 1 where off.
        contrast: `[b]`, float32 factor; 1 where off.
        saturation: `[b]`, float32 factor; 1 where off.
        hue: `[b]`, float32 in turns; 0 where off.
        gray: `[b]`, bool.
        blur_on: `[b]`, bool.
        sigma: `[b]`, float32 in pixels; 0 where off.
        solarize_on: `[b]`, bool.
        solarize_threshold: `[b]`, float32; 1 where off.
        quarter_turns: `[b]`, int32 in 0..3, counter-clockwise; 0 where off.
    """

    crop: jax.Array
    jitter_on: jax.Array
    order: jax.Array
    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue: jax.Array
    gray: jax.Array
    blur_on: jax.Array
    sigma: jax.Array
    solarize_on: jax.Array
    solarize_threshold: jax.Array
    quarter_turns: jax.Array


@flax.struct.dataclass
class View:
    """One augmented view of some images.

    Attributes:
        images: `[b, h, w, 3]`, float32, normalised; for a geometric view, canvases with
            the picture in the top left corner.
        params: What the photometric augmentation did.
        recipe: What that was drawn from (static).
        element: Group elements of a geometric view, else None.
        group: The group they were drawn from (static: it sizes slots and canvases).
        active: Which rows of a geometric view take part in the term, `[b]`, bool.
        replaced: Size of b2, whose rows this view covers too but others stand in for:
            they are encoded with it and then not read (static).
        spread: If not 0, the number V of views that are encoded together, of which this
            is one: row V i + `number` of its `images` is the view of image i, and what
            the other rows hold is not meant. V such arrays become one without moving a
            row. All other fields hold a row an image (static).
        number: See `spread` (static).
    """

    images: jax.Array
    params: AugmentParams
    recipe: Recipe = flax.struct.field(pytree_node=False)
    element: Element | None = None
    group: Group | None = flax.struct.field(pytree_node=False, default=None)
    active: jax.Array | None = None
    replaced: int = flax.struct.field(pytree_node=False, default=0)
    spread: int = flax.struct.field(pytree_node=False, default=0)
    number: int = flax.struct.field(pytree_node=False, default=0)

    @property
    def num_images(self) -> int:
        """How many images it is of."""
        if self.spread and self.active is not None:
            return self.active.shape[0]
        return self.images.shape[0]

    @property
    def rows(self) -> slice:
        """Its own rows among those that are encoded together."""
        return slice(self.number, self.num_images * self.spread, self.spread)


def equiv_count(batch_size: int, share: float) -> int:
    """Number of images of the batch that share one crop and differ by a group element.

    Args:
        batch_size: Global batch size.
        share: Wanted share of the batch, in [0, 1].

    Returns:
        `share * batch_size` rounded up to a multiple of 8 (24 for 1 % of 2048, as the
        paper's 3 a GPU on 8 GPUs), at most half the batch. Zero only for share 0.

    Raises:
        ValueError: If the share is outside [0, 1] or the batch has fewer than 4 images.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}.")
    if share == 0:
        return 0
    if batch_size < 4:
        raise ValueError(
            "the equivariance term contrasts different images: it needs a batch_size "
            f"of at least 4, got {batch_size}."
        )
    return min(8 * math.ceil(share * batch_size / 8), batch_size // 2)


def split_rows(x: Any, num_equiv: int) -> tuple[Any, Any]:
    """Splits a batch into b1 (standard views) and b2 (shared crop).

    The rows of b2 are taken evenly from across the batch: on any number of devices that
    divides both sizes the split moves no data. Which rows they are does not depend on
    the devices.

    Args:
        x: `[b, ...]`, of JAX or NumPy.
        num_equiv: Size of b2.

    Returns:
        b1 `[b - num_equiv, ...]` and b2 `[num_equiv, ...]`.
    """
    b, rest = x.shape[0], x.shape[1:]
    groups = math.gcd(b, num_equiv)
    per_group = num_equiv // groups
    x = x.reshape(groups, b // groups, *rest)  # [groups, b / groups, ...]
    equiv, standard = x[:, :per_group], x[:, per_group:]
    return (
        standard.reshape(b - num_equiv, *rest),
        equiv.reshape(num_equiv, *rest),
    )


def place_of_rows(batch_size: int, num_equiv: int) -> np.ndarray:
    """Where `split_rows` puts each row of a batch.

    Args:
        batch_size: Global batch size, b.
        num_equiv: Size of b2.

    Returns:
        Place of each row in b1 followed by b2, `[b]`, int.
    """
    return np.argsort(np.concatenate(split_rows(np.arange(batch_size), num_equiv)))


def join_rows(standard: jax.Array, equiv: jax.Array) -> jax.Array:
    """Undoes `split_rows`, as little moved.

    Args:
        standard: b1, `[b - num_equiv, ...]`.
        equiv: b2, `[num_equiv, ...]`.

    Returns:
        `[b, ...]`, in the order of the batch.
    """
    b, rest = standard.shape[0] + equiv.shape[0], standard.shape[1:]
    groups = math.gcd(b, equiv.shape[0])
    parts = [x.reshape(groups, -1, *rest) for x in (equiv, standard)]
    return jnp.concatenate(parts, axis=1).reshape(b, *rest)
