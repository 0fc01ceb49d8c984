"""AugSelf's targets: how the augmentations of two views differ."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ser_jax.methods.regularizers.augment_params import relative_crop
from ser_jax.views.recipe import Recipe
from ser_jax.views.view import View


@dataclasses.dataclass(frozen=True)
class Target:
    """What a predictor has to tell of two views.

    Attributes:
        num_outputs: Width of the prediction.
        kind: "number" (in (-1, 1) after a tanh), "binary" (one logit) or "class".
        difference: (first view, second view) -> targets of `b` pairs: `[b,
            num_outputs]`, or for a class `[b]`, int32.
        occurs: Whether a view of this recipe can have the augmentation.
    """

    num_outputs: int
    kind: str
    difference: Callable[[View, View], jax.Array]
    occurs: Callable[[Recipe], bool] = lambda recipe: True

    @property
    def measure(self) -> str:
        """How well it is met: "r2" of a number, else "accuracy"."""
        return "r2" if self.kind == "number" else "accuracy"


def _box(view: View, flipped: jax.Array) -> jax.Array:
    """Centre (y, x) and size (h, w) of the crop in its source, `[b, 4]`."""
    crop = relative_crop(view.params)  # [b, 4]: top, left, height, width
    size = crop[:, 2:]
    centre = crop[:, :2] + size / 2
    x = jnp.where(flipped > 0, 1 - centre[:, 1], centre[:, 1])
    return jnp.concatenate([centre[:, :1], x[:, None], size], axis=1)


def _flipped(view: View) -> jax.Array:
    return view.params.crop[:, 6]  # [b]


def _crop(first: View, second: View) -> jax.Array:
    return _box(first, _flipped(first)) - _box(second, _flipped(second))


def _crop_released(first: View, second: View) -> jax.Array:
    return _box(first, _flipped(first)) - _box(second, _flipped(first))


def _color(first: View, second: View) -> jax.Array:
    return _jitter(first) - _jitter(second)


def _jitter(view: View) -> jax.Array:
    """Colour factors over the widths of their ranges, in [-0.5, 0.5], `[b, 4]`."""
    params, recipe = view.params, view.recipe
    shifts = (
        (params.brightness - 1, recipe.brightness),
        (params.contrast - 1, recipe.contrast),
        (params.saturation - 1, recipe.saturation),
        (params.hue, recipe.hue),
    )
    # What the recipe does not vary is 0 already and has no width to divide by.
    return jnp.stack(
        [shift / (2 * half_width or 1.0) for shift, half_width in shifts], axis=1
    )


def _jitter_occurs(recipe: Recipe) -> bool:
    widths = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    return recipe.jitter_prob > 0 and max(widths) > 0


def _same_flip(first: View, second: View) -> jax.Array:
    return (_flipped(first) == _flipped(second)).astype(jnp.float32)[:, None]


def _turns(first: View, second: View) -> jax.Array:
    return (first.params.quarter_turns - second.params.quarter_turns) % 4


def _blur(first: View, second: View) -> jax.Array:
    return (first.params.sigma - second.params.sigma)[:, None]


def _solarize(first: View, second: View) -> jax.Array:
    thresholds = (view.params.solarize_threshold for view in (first, second))
    return jnp.subtract(*thresholds)[:, None]


TARGETS = {
    "crop": Target(4, "number", _crop),
    "color": Target(4, "number", _color, _jitter_occurs),
    "blur": Target(1, "number", _blur, lambda recipe: recipe.blur_prob > 0),
    "flip": Target(1, "binary", _same_flip),
    "rotation": Target(4, "class", _turns, lambda recipe: recipe.rot90_prob > 0),
    "solarize": Target(1, "number", _solarize, lambda r: r.solarize_prob > 0),
}
# The published code mirrors the centres of both crops if the first view is flipped.
CROP_RELEASED = dataclasses.replace(TARGETS["crop"], difference=_crop_released)
