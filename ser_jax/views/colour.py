"""Photometric operations on one image; `jax.vmap` makes them work on a batch.

Images are planes, `[3, h, w]` float32 in [0, 1]: three planes vectorise, three
interleaved values per pixel do not. Every operation is an identity, exactly, at its
neutral value (factor 1, shift 0, sigma 0), so a switched-off one needs no branch.
"""

import jax
import jax.numpy as jnp

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

_LUMA_WEIGHTS = {
    "torchvision": (0.2989, 0.587, 0.114),
    "kornia": (0.299, 0.587, 0.114),
}


def luma(image: jax.Array, convention: str) -> jax.Array:
    """The brightness each pixel has for the eye.

    Args:
        image: `[3, h, w]`, float32 in [0, 1].
        convention: "torchvision" or "kornia"; they round one weight differently.

    Returns:
        `[1, h, w]`, float32 in [0, 1].
    """
    red, green, blue = _LUMA_WEIGHTS[convention]
    return red * image[:1] + green * image[1:2] + blue * image[2:]


def adjust(
    image: jax.Array, operation: jax.Array | int, factor: jax.Array, convention: str
) -> jax.Array:
    """The image after brightness, contrast or saturation is scaled by a factor.

    All three are `gain * image + offset`, so that the operation may be a traced value:

    | operation  | "torchvision": blend with    | "kornia"                       |
    |------------|------------------------------|--------------------------------|
    | brightness | black                        | adds factor - 1                |
    | contrast   | the mean luma of the image   | black                          |
    | saturation | the pixel's luma             | scales HSV saturation, up to 1 |

    Args:
        image: `[3, h, w]`, float32 in [0, 1].
        operation: `BRIGHTNESS`, `CONTRAST` or `SATURATION`, int32 scalar.
        factor: Scalar float32, >= 0; 1 changes nothing.
        convention: "torchvision" or "kornia".

    Returns:
        `[3, h, w]`, float32, clipped to [0, 1].
    """
    if convention == "torchvision":
        gray = luma(image, convention)
        target = jnp.where(operation == CONTRAST, jnp.mean(gray), gray)
        target = jnp.where(operation == BRIGHTNESS, 0.0, target)
        return jnp.clip(factor * image + (1.0 - factor) * target, 0.0, 1.0)
    # HSV saturation is chroma / value. Scaling it moves a pixel away from its value,
    # until its smallest channel meets 0; the hue need not be known.
    value = jnp.max(image, axis=0, keepdims=True)
    chroma = value - jnp.min(image, axis=0, keepdims=True)
    saturation = jnp.minimum(factor, value / jnp.maximum(chroma, 1e-12))
    gain = jnp.where(operation == SATURATION, saturation, factor)
    gain = jnp.where(operation == BRIGHTNESS, 1.0, gain)
    offset = jnp.where(operation == SATURATION, (1.0 - gain) * value, 0.0)
    offset = jnp.where(operation == BRIGHTNESS, factor - 1.0, offset)
    return jnp.clip(gain * image + offset, 0.0, 1.0)


def shift_hue(image: jax.Array, shift: jax.Array) -> jax.Array:
    """The image with its colours turned on the colour circle.

    Value and chroma of HSV stay; the hue moves. A channel is at the pixel's value,
    less the chroma in the third of the circle around its complement, with a linear
    flank of a sixth on either side.

    Args:
        image: `[3, h, w]`, float32 in [0, 1].
        shift: Scalar float32 in turns; 0 changes nothing.

    Returns:
        `[3, h, w]`, float32 in [0, 1].
    """
    red, green, blue = image
    value, lowest = jnp.max(image, axis=0), jnp.min(image, axis=0)
    chroma = value - lowest
    scale = 1.0 / jnp.where(chroma > 0, chroma, 1.0)
    # In sixths of a turn: red 0, yellow 1, green 2, cyan 3, blue 4, magenta 5.
    hue = jnp.where(value == green, 2.0 + (blue - red) * scale, 4.0)
    hue = jnp.where(value == blue, 4.0 + (red - green) * scale, hue)
    hue = jnp.where(value == red, (green - blue) * scale, hue)
    hue = hue + 6.0 * shift  # [h, w]

    def channel(complement: float) -> jax.Array:
        turn = hue - complement
        distance = jnp.abs(turn - 6.0 * jnp.round(turn / 6.0))  # in [0, 3]
        return value - chroma * jnp.clip(2.0 - distance, 0.0, 1.0)

    shifted = jnp.stack([channel(3.0), channel(5.0), channel(1.0)])  # [3, h, w]
    return jnp.where(shift == 0.0, image, shifted)


def color_jitter(
    image: jax.Array,
    order: jax.Array,
    factors: jax.Array,
    *,
    convention: str,
    with_hue: bool,
) -> jax.Array:
    """The image after the four colour operations in any order.

    Four slots that each evaluate all four operations would cost four hue shifts. The
    other three are one formula (`adjust`), so each gets a slot before the hue shift and
    one after it, and is neutral in the slot it does not belong to.

    Args:
        image: `[3, h, w]`, float32 in [0, 1].
        order: `[4]`, int32, a permutation: which operation comes first, second, ...
        factors: `[4]`, float32: brightness, contrast, saturation factor, hue shift.
        convention: "torchvision" or "kornia".
        with_hue: False if the shift is always 0; halves the cost.

    Returns:
        `[3, h, w]`, float32 in [0, 1].
    """
    hue_slot = jnp.argmax(order == HUE)
    others = order[jnp.argsort(order == HUE, stable=True)][:3]
    slots = jnp.arange(3)

    def adjust_where(image: jax.Array, active: jax.Array) -> jax.Array:
        # A loop: unrolled, XLA's CPU compiler redraws the factors at every pixel.
        slot_factors = jnp.where(active, factors[others], 1.0)
        image, _ = jax.lax.scan(
            lambda image, slot: (adjust(image, *slot, convention), None),
            image,
            (others, slot_factors),
        )
        return image

    if not with_hue:
        return adjust_where(image, slots >= 0)
    image = adjust_where(image, slots < hue_slot)
    image = shift_hue(image, factors[HUE])
    return adjust_where(image, slots >= hue_slot)


def gaussian_blur(image: jax.Array, sigma: jax.Array, taps: int) -> jax.Array:
    """The image under a separable Gaussian kernel whose weights sum to 1.

    The border is mirrored without repeating the edge pixel.

    Args:
        image: `[3, h, w]`, float32 in [0, 1].
        sigma: Standard deviation in pixels, scalar float32, >= 0; 0 changes nothing.
        taps: Width of the kernel in pixels, odd.

    Returns:
        `[3, h, w]`, float32 in [0, 1].

    Raises:
        ValueError: If the image is too small to be mirrored.
    """
    half = taps // 2
    if min(image.shape[1:]) <= half:
        raise ValueError(
            f"A blur of {taps} taps mirrors {half} pixels and needs an image of at "
            f"least {half + 1}x{half + 1}, got {image.shape[1]}x{image.shape[2]}. Use "
            "fewer taps: about a tenth of the image's side."
        )
    distance = jnp.arange(-half, half + 1, dtype=jnp.float32)
    # The floor turns sigma 0 into the weights 0 ... 0 1 0 ... 0.
    weights = jnp.exp(-0.5 * jnp.square(distance / jnp.maximum(sigma, 1e-3)))
    weights = weights / jnp.sum(weights)
    for axis in (1, 2):
        margin = [(half, half) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(image, margin, mode="reflect")
        size = image.shape[axis]
        image = jnp.zeros_like(image)
        for tap in range(taps):
            shifted = jax.lax.slice_in_dim(padded, tap, tap + size, axis=axis)
            image = image + weights[tap] * shifted
    return jnp.clip(image, 0.0, 1.0)  # the weights' sum is 1 up to rounding


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """The image with every value at or above the threshold inverted.

    Args:
        image: `[3, h, w]`, float32 in [0, 1].
        threshold: Scalar float32 in [0, 1].

    Returns:
        `[3, h, w]`, float32 in [0, 1].
    """
    return jnp.where(image >= threshold, 1.0 - image, image)
