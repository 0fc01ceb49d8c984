"""What a view of an image is: the contract of data, objectives and regularizers."""

import dataclasses
import math
from collections.abc import Sequence
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
            they are one view of the whole batch.
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
        recipe: What that was drawn from, or one that does all that its rows were drawn
            for, where rows of b1 lie among b2's (static).
        element: Group elements of a geometric view, else None.
        group: The group they were drawn from (static: it sizes slots and canvases).
        active: Which rows of a geometric view take part in the term, `[b]`, bool.
        cut: How the rows of the batch are cut in two, of a view that another extends
            and of that which extends it; None of one that covers the batch (static).
    """

    images: jax.Array
    params: AugmentParams
    recipe: Recipe = flax.struct.field(pytree_node=False)
    element: Element | None = None
    group: Group | None = flax.struct.field(pytree_node=False, default=None)
    active: jax.Array | None = None
    cut: "Cut | None" = flax.struct.field(pytree_node=False, default=None)


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


@dataclasses.dataclass(frozen=True)
class Cut:
    """Rows of a batch in two parts: some of b1, and all of b2, with others of b1.

    Of each period's rows, 0, stride, ..., (num - 1) * stride are the second part's. On
    devices that hold whole periods this moves no row.

    Attributes:
        batch_size: Global batch size, b.
        num_equiv: Size of b2.
        period: Rows after which the cut repeats.
        stride: Rows from one of the second part to the next, a divisor of the period.
        num: Rows of the second part in a period.
    """

    batch_size: int
    num_equiv: int
    period: int
    stride: int
    num: int

    @classmethod
    def exact(cls, batch_size: int, num_equiv: int) -> "Cut":
        """The one whose second part is b2: it is this that says which rows are b2's.

        They are taken evenly from across the batch. The stride is what divides most
        numbers of rows a device.

        Args:
            batch_size: Global batch size.
            num_equiv: Size of b2, from 1 to half of it.
        """
        groups = math.gcd(batch_size, num_equiv)
        period, num = batch_size // groups, num_equiv // groups
        strides = range(1, period // num + 1)
        stride = max(x for x in strides if period % x == 0)
        return cls(batch_size, num_equiv, period, stride, num)

    @classmethod
    def on(cls, devices: int, batch_size: int, num_equiv: int) -> "Cut":
        """The one that moves no row, with the fewest rows of b1 in its second part.

        Args:
            devices: A divisor of the batch size.
            batch_size: Global batch size.
            num_equiv: Size of b2, from 1 to half of it.
        """
        exact = cls.exact(batch_size, num_equiv)
        period = math.gcd(batch_size // devices, exact.period)
        there = np.unique(exact.rows[1] % period)
        stride = int(np.gcd.reduce([*there, period]))
        num = int(there.max()) // stride + 1
        return cls(batch_size, num_equiv, period, stride, num)

    @property
    def is_exact(self) -> bool:
        """Whether the second part is b2."""
        return self.num_rows == self.num_equiv

    @property
    def num_rows(self) -> int:
        """Rows of the second part, r."""
        return self.batch_size // self.period * self.num

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Which rows of the batch either part has, `[b - r]` and `[r]`, int."""
        return self.split(np.arange(self.batch_size))

    @property
    def images(self) -> np.ndarray:
        """Which image of b2 each row of the second part is, `[r]`; -1 for none."""
        b2 = type(self).exact(self.batch_size, self.num_equiv).rows[1]
        rows = self.rows[1]
        found = np.minimum(np.searchsorted(b2, rows), len(b2) - 1)
        return np.where(b2[found] == rows, found, -1)

    def split(self, x: Any) -> tuple[Any, Any]:
        """Cuts `[b, ...]`, of JAX or NumPy, to `[b - r, ...]` and `[r, ...]`."""
        rest, num = x.shape[1:], self.num
        x = x.reshape(-1, self.period // self.stride, self.stride, *rest)
        beside = x[:, :num, 1:].reshape(len(x), num * (self.stride - 1), *rest)
        after = x[:, num:].reshape(len(x), self.period - num * self.stride, *rest)
        library: Any = np if isinstance(x, np.ndarray) else jnp
        first = library.concatenate([beside, after], axis=1)
        first = first.reshape(self.batch_size - self.num_rows, *rest)
        return first, x[:, :num, 0].reshape(self.num_rows, *rest)

    def join(self, first: jax.Array, second: jax.Array) -> jax.Array:
        """Undoes `split`.

        Args:
            first: `[b - r, ...]`.
            second: `[r, ...]`.

        Returns:
            `[b, ...]`, in the order of the batch.
        """
        rest, num, periods = first.shape[1:], self.num, self.batch_size // self.period
        first = first.reshape(periods, self.period - num, *rest)
        second = second.reshape(periods, num, 1, *rest)
        end = num * (self.stride - 1)
        beside = first[:, :end].reshape(periods, num, self.stride - 1, *rest)
        whole = jnp.concatenate([second, beside], axis=2)
        whole = whole.reshape(periods, num * self.stride, *rest)
        whole = jnp.concatenate([whole, first[:, end:]], axis=1)
        return whole.reshape(self.batch_size, *rest)


def interleave(views: Sequence[jax.Array]) -> jax.Array:
    """V arrays as one: image 0's views, then image 1's.

    Views side by side within an image keep a batch that is sharded by images in place.

    Args:
        views: Arrays `[b, ...]`, of one shape.

    Returns:
        `[b * v, ...]`; view j is `[j::v]` of it.
    """
    return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
