"""Views of no picture: only their augmentation parameters are filled in."""

import jax.numpy as jnp
import numpy as np

from ser_jax.models.outputs import EncoderOutput
from ser_jax.views.recipe import Recipe
from ser_jax.views.view import AugmentParams, View

STRONG = Recipe(
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.3,
    saturation=0.2,
    hue=0.1,
    gray_prob=0.2,
    blur_prob=0.5,
    solarize_prob=0.2,
    solarize_threshold=(0.2, 0.8),
    rot90_prob=0.5,
)


def made_up_view(seed: int, b: int, recipe: Recipe = STRONG) -> View:
    """A view of `b` images with all parameters drawn, about half of them "off"."""
    rng = np.random.default_rng(seed)

    def some(values, off):
        return jnp.asarray(np.where(rng.random(b) < 0.5, values, off), jnp.float32)

    source = rng.integers(50, 90, (b, 2))
    size = rng.integers(10, 50, (b, 2))
    corner = rng.integers(0, source - size + 1)
    flip = rng.integers(0, 2, (b, 1))
    jitter_on = rng.random(b) < 0.7

    def factor(half_width, centre):
        values = centre + half_width * rng.uniform(-1, 1, b)
        return jnp.asarray(np.where(jitter_on, values, centre), jnp.float32)

    order = [rng.permutation(4) if on else np.arange(4) for on in jitter_on]
    sigma = some(rng.uniform(0.1, 2, b), 0.0)
    threshold = some(rng.uniform(0.2, 0.8, b), 1.0)
    params = AugmentParams(
        crop=jnp.asarray(np.hstack([corner, size, source, flip]), jnp.float32),
        jitter_on=jnp.asarray(jitter_on),
        order=jnp.asarray(np.stack(order), jnp.int32),
        brightness=factor(recipe.brightness, 1),
        contrast=factor(recipe.contrast, 1),
        saturation=factor(recipe.saturation, 1),
        hue=factor(recipe.hue, 0),
        gray=jnp.asarray(rng.random(b) < 0.5),
        blur_on=sigma > 0,
        sigma=sigma,
        solarize_on=threshold < 1,
        solarize_threshold=threshold,
        quarter_turns=jnp.asarray(rng.integers(0, 4, b), jnp.int32),
    )
    return View(images=jnp.zeros((b, 4, 4, 3)), params=params, recipe=recipe)


def outputs_from(features: dict, layer: int) -> dict[str, EncoderOutput]:
    """Encoder outputs whose class token after `layer` is each given `[b, d]`."""
    return {
        name: EncoderOutput(
            cls=x,
            tokens=jnp.zeros((x.shape[0], 1, x.shape[1])),
            valid=jnp.ones((x.shape[0], 1), bool),
            grids={},
            cls_at={layer: x},
        )
        for name, x in features.items()
    }
