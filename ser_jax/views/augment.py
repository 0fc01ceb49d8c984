"""Photometric augmentation on the device: draw parameters, apply them, hand them on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from ser_jax.data.crops import CROP_PARAMS
from ser_jax.views import colour
from ser_jax.views.recipe import Recipe
from ser_jax.views.view import AugmentParams


def sample_params(
    rng: jax.Array,
    recipe: Recipe,
    crop_params: jax.Array,
    *,
    paired: bool = False,
) -> AugmentParams:
    """One independent draw per image.

    Each image has its own key, so its draw depends on its place in the global batch
    and not on how the batch is spread over devices.

    Args:
        rng: Key for the whole batch.
        recipe: What to draw. Under "kornia" the images of a batch share one order.
        crop_params: `[b, 7]`, the crops the host took, passed through.
        paired: Whether images 2i and 2i + 1 share jitter and grayscale; blur and
            solarization stay each image's own.

    Returns:
        The parameters of `b` views.

    Raises:
        ValueError: If `crop_params` is not `[b, 7]`.
    """
    if crop_params.ndim != 2 or crop_params.shape[1] != len(CROP_PARAMS):
        raise ValueError(
            f"crop_params must be [b, {len(CROP_PARAMS)}] ({', '.join(CROP_PARAMS)}), "
            f"got shape {crop_params.shape}."
        )
    image_rng, order_rng = jax.random.split(rng)
    num = crop_params.shape[0]
    image_rngs = jax.random.split(image_rng, num)
    if recipe.colour == "kornia":
        order_rngs, order_axis = order_rng, None
    else:
        order_rngs, order_axis = jax.random.split(order_rng, num), 0
    sample = jax.vmap(
        functools.partial(_sample_one, recipe=recipe), in_axes=(0, order_axis, 0)
    )
    params = sample(image_rngs, order_rngs, crop_params)
    return _share_colours(params) if paired else params


def _share_colours(params: AugmentParams) -> AugmentParams:
    """Image 2i + 1 gets the jitter and grayscale of image 2i."""
    names = ("jitter_on", "order", "brightness", "contrast", "saturation", "hue")
    shared = {
        name: jnp.repeat(getattr(params, name)[::2], 2, axis=0)
        for name in (*names, "gray")
    }
    return dataclasses.replace(params, **shared)


def apply_params(images: jax.Array, params: AugmentParams, recipe: Recipe) -> jax.Array:
    """The views that the parameters describe.

    Args:
        images: `[b, h, w, 3]`, float32 in [0, 1].
        params: One row per image.
        recipe: The recipe they were drawn from. It fixes the definitions and the blur's
            width; an operation it gives probability 0 is left out.

    Returns:
        `[b, h, w, 3]`, float32 in [0, 1].

    Raises:
        ValueError: If the images are too small for the recipe's blur.
    """
    return jax.vmap(functools.partial(_apply_one, recipe=recipe))(images, params)


def normalize(images: jax.Array, recipe: Recipe) -> jax.Array:
    """The images with the recipe's mean subtracted, divided by its std, per channel.

    Args:
        images: `[b, h, w, 3]`, float32 in [0, 1].
        recipe: Holds mean and std.

    Returns:
        `[b, h, w, 3]`, float32.
    """
    mean = jnp.asarray(recipe.mean, jnp.float32).reshape(1, 1, 1, 3)
    std = jnp.asarray(recipe.std, jnp.float32).reshape(1, 1, 1, 3)
    return (images - mean) / std


def augment(images: jax.Array, params: AugmentParams, recipe: Recipe) -> jax.Array:
    """Normalised views of the host's crops.

    Args:
        images: `[b, h, w, 3]`, uint8, cropped, resized and flipped by the host.
        params: What is done to them, one row per image: see `sample_params`.
        recipe: What that was drawn from.

    Returns:
        The views, `[b, h, w, 3]`, float32.

    Raises:
        ValueError: If an argument has the wrong shape or type.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != jnp.uint8:
        raise ValueError(
            "images must be uint8 [b, h, w, 3] as decoded, values 0 to 255, got "
            f"{images.dtype} {images.shape}. Images already in [0, 1] go through "
            "apply_params and normalize."
        )
    if images.shape[0] != params.crop.shape[0]:
        raise ValueError(
            f"images and params must have one row per image, got "
            f"{images.shape[0]} and {params.crop.shape[0]} rows."
        )
    views = apply_params(images.astype(jnp.float32) / 255.0, params, recipe)
    return normalize(views, recipe)


def _sample_one(
    rng: jax.Array, order_rng: jax.Array, crop: jax.Array, recipe: Recipe
) -> AugmentParams:
    on_rng, factor_rng, sigma_rng, threshold_rng, turn_rng = jax.random.split(rng, 5)
    probs = (
        recipe.jitter_prob,
        recipe.gray_prob,
        recipe.blur_prob,
        recipe.solarize_prob,
    )
    jitter_on, gray, blur_on, solarize_on = jax.random.bernoulli(
        on_rng, jnp.asarray(probs)
    )
    half_widths = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    offsets = jax.random.uniform(factor_rng, (4,), minval=-1.0, maxval=1.0)
    offsets = jnp.where(jitter_on, offsets * jnp.asarray(half_widths), 0.0)
    order = jax.random.permutation(order_rng, 4)
    sigma = jax.random.uniform(
        sigma_rng, minval=recipe.blur_sigma[0], maxval=recipe.blur_sigma[1]
    )
    threshold = jax.random.uniform(
        threshold_rng,
        minval=recipe.solarize_threshold[0],
        maxval=recipe.solarize_threshold[1],
    )
    return AugmentParams(
        crop=crop.astype(jnp.float32),
        jitter_on=jitter_on,
        order=jnp.where(jitter_on, order, jnp.arange(4)).astype(jnp.int32),
        brightness=1.0 + offsets[0],
        contrast=1.0 + offsets[1],
        saturation=1.0 + offsets[2],
        hue=offsets[3],
        gray=gray,
        blur_on=blur_on,
        sigma=jnp.where(blur_on, sigma, 0.0),
        solarize_on=solarize_on,
        solarize_threshold=jnp.where(solarize_on, threshold, 1.0),
        quarter_turns=_sample_turns(turn_rng, recipe),
    )


def _sample_turns(rng: jax.Array, recipe: Recipe) -> jax.Array:
    on_rng, turns_rng = jax.random.split(rng)
    turns = jax.random.randint(turns_rng, (), 1, 4)
    return jnp.where(jax.random.bernoulli(on_rng, recipe.rot90_prob), turns, 0)


def _apply_one(image: jax.Array, params: AugmentParams, recipe: Recipe) -> jax.Array:
    image = jnp.moveaxis(image, -1, 0)  # [3, h, w]
    if recipe.jitter_prob > 0:
        factors = (params.brightness, params.contrast, params.saturation, params.hue)
        image = colour.color_jitter(
            image,
            params.order,
            jnp.stack(factors),
            convention=recipe.colour,
            with_hue=recipe.hue > 0,
        )
    if recipe.gray_prob > 0:
        image = jnp.where(params.gray, colour.luma(image, recipe.colour), image)
    if recipe.blur_prob > 0:
        image = colour.gaussian_blur(image, params.sigma, recipe.blur_taps)
    if recipe.solarize_prob > 0:
        solarized = colour.solarize(image, params.solarize_threshold)
        image = jnp.where(params.solarize_on, solarized, image)
    if recipe.rot90_prob > 0:
        image = jax.lax.switch(
            params.quarter_turns,
            [lambda x, k=k: jnp.rot90(x, k, axes=(1, 2)) for k in range(4)],
            image,
        )
    return jnp.moveaxis(image, 0, -1)  # [h, w, 3]
