"""Colour operations against explicit float64 loops and against recorded kornia."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.views import colour
from ser_jax.views import recipe as recipes

# Many small compilations.
pytestmark = pytest.mark.slow

CONVENTIONS = ["torchvision", "kornia"]
LINEAR = [colour.BRIGHTNESS, colour.CONTRAST, colour.SATURATION]


def some_image(height=6, width=7, seed=0):
    """Random colours, and the corners of the colour cube: gray, black, white, ties."""
    image = np.random.default_rng(seed).random((3, height, width), np.float32)
    corners = [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (1, 1, 0), (0.7, 0.2, 0.7)]
    image[:, 0, : len(corners)] = np.transpose(corners)
    return image


def pixels(image):
    return itertools.product(range(image.shape[1]), range(image.shape[2]))


def luma_of(pixel):
    return 0.2989 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def reference_jitter(image, order, factors):
    """torchvision's definitions, one pixel at a time."""
    image = image.astype(np.float64)
    for operation in order:
        out, factor = np.empty_like(image), factors[operation]
        total = sum(luma_of(image[:, i, j]) for i, j in pixels(image))
        mean = total / (image.shape[1] * image.shape[2])
        for i, j in pixels(image):
            pixel = image[:, i, j]
            if operation == colour.HUE:
                hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
                out[:, i, j] = colorsys.hsv_to_rgb(
                    (hue + factor) % 1.0, saturation, value
                )
                continue
            other = {
                colour.BRIGHTNESS: 0.0,
                colour.CONTRAST: mean,
                colour.SATURATION: luma_of(pixel),
            }[operation]
            for c in range(3):
                blend = factor * pixel[c] + (1.0 - factor) * other
                out[c, i, j] = min(max(blend, 0.0), 1.0)
        image = out
    return image


def reference_blur(image, sigma, taps):
    half = taps // 2
    weights = [np.exp(-0.5 * (k / sigma) ** 2) for k in range(-half, half + 1)]
    weights = [w / sum(weights) for w in weights]

    def mirrored(index, size):
        index = abs(index)
        return 2 * (size - 1) - index if index >= size else index

    out = np.zeros(image.shape)
    _, height, width = image.shape
    for c, (i, j) in itertools.product(range(3), pixels(image)):
        for a, b in itertools.product(range(taps), repeat=2):
            row, column = mirrored(i + a - half, height), mirrored(j + b - half, width)
            out[c, i, j] += weights[a] * weights[b] * image[c, row, column]
    return out


def jitter_orders(image, orders, factors, with_hue=True):
    """The image jittered in each order; one compilation serves them all."""

    def one(order):
        return colour.color_jitter(
            image, order, factors, convention="torchvision", with_hue=with_hue
        )

    return np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(orders)))


@pytest.mark.parametrize("factors", [(0.65, 1.35, 1.15, -0.08), (1.4, 0.7, 1.8, 0.3)])
def test_every_order_of_the_four_operations(factors):
    image, orders = some_image(), list(itertools.permutations(range(4)))
    got = jitter_orders(jnp.asarray(image), orders, jnp.asarray(factors))
    want = [reference_jitter(image, order, factors) for order in orders]
    np.testing.assert_allclose(got, want, atol=2e-6)
    # Most orders differ, or the comparison would not tell them apart.
    assert len(np.unique(np.round(want, 4).reshape(24, -1), axis=0)) > 16


def test_orders_without_hue():
    image, orders = some_image(), list(itertools.permutations(range(4)))
    factors = (1.4, 0.7, 1.8, 0.0)
    got = jitter_orders(jnp.asarray(image), orders, jnp.asarray(factors), False)
    want = [reference_jitter(image, order, factors) for order in orders]
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_hue_by_whole_and_third_turns():
    image = jnp.asarray(some_image())
    third = colour.shift_hue(image, jnp.float32(1.0 / 3.0))
    np.testing.assert_allclose(third, jnp.roll(image, 1, axis=0), atol=2e-6)
    full = colour.shift_hue(image, jnp.float32(1.0))
    np.testing.assert_allclose(full, image, atol=2e-6)


@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
@pytest.mark.parametrize("taps", [3, 9])
def test_blur_against_loops(sigma, taps):
    image = some_image(6, 8)
    got = colour.gaussian_blur(jnp.asarray(image), jnp.float32(sigma), taps)
    np.testing.assert_allclose(got, reference_blur(image, sigma, taps), atol=1e-6)


def test_blur_stays_in_range():
    white, sigmas = jnp.ones((3, 5, 5)), jnp.linspace(0.1, 2.0, 50)
    blurred = jax.vmap(lambda sigma: colour.gaussian_blur(white, sigma, 9))(sigmas)
    assert blurred.max() <= 1.0


def test_blur_needs_room_to_mirror():
    colour.gaussian_blur(jnp.zeros((3, 5, 5)), jnp.float32(1.0), 9)
    with pytest.raises(ValueError, match="needs an image of at least 5x5, got 4x8"):
        colour.gaussian_blur(jnp.zeros((3, 4, 8)), jnp.float32(1.0), 9)


def test_solarize_inverts_from_the_threshold_on():
    image = jnp.asarray([0.0, 0.25, 0.5, 1.0]).reshape(1, 2, 2)
    got = colour.solarize(image, jnp.float32(0.5))
    np.testing.assert_array_equal(np.ravel(got), [0.0, 0.25, 0.5, 0.0])
    quarter = colour.solarize(image, jnp.float32(0.25))
    np.testing.assert_array_equal(np.ravel(quarter), [0.0, 0.75, 0.5, 0.0])


def test_default_threshold_inverts_the_levels_pillow_inverts():
    levels = np.arange(256)
    image = jnp.asarray(levels / 255.0, jnp.float32).reshape(1, 16, 16)
    threshold = jnp.float32(recipes.Recipe.solarize_threshold[0])
    got = np.ravel(colour.solarize(image, threshold))
    want = np.where(levels < 128, levels, 255 - levels)
    np.testing.assert_array_equal(np.round(got * 255), want)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_neutral_values_change_no_bit(convention):
    image = jnp.asarray(some_image())
    one, zero = jnp.float32(1.0), jnp.float32(0.0)
    for operation in LINEAR:
        same = colour.adjust(image, operation, one, convention)
        np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(colour.shift_hue(image, zero), image)
    np.testing.assert_array_equal(colour.gaussian_blur(image, zero, 9), image)
    jittered = colour.color_jitter(
        image,
        jnp.asarray([2, 3, 0, 1]),
        jnp.asarray([1.0, 1.0, 1.0, 0.0]),
        convention=convention,
        with_hue=True,
    )
    np.testing.assert_array_equal(jittered, image)


@pytest.mark.parity
def test_kornia_operations(golden):
    data = golden("colour_aug")
    single = data.group("single/")
    taps = data.settings["ranges"]["blur_kernel"]

    def adjusted(operation):
        return lambda x, factor: colour.adjust(x, operation, factor, "kornia")

    operations = {
        "brightness": (adjusted(colour.BRIGHTNESS), "brightness_factor"),
        "contrast": (adjusted(colour.CONTRAST), "contrast_factor"),
        "saturation": (adjusted(colour.SATURATION), "saturation_factor"),
        "hue": (colour.shift_hue, "hue_factor"),
        "blur": (lambda x, s: colour.gaussian_blur(x, s, taps), "sigma"),
        "solarise": (colour.solarize, "threshold"),
        "grayscale": (lambda x, _: colour.luma(x, "kornia"), "sigma"),
    }
    for name, (operation, argument) in operations.items():
        got = jax.jit(jax.vmap(operation))(data["x"], single[argument])
        got = np.broadcast_to(got, single[name].shape)
        np.testing.assert_allclose(got, single[name], atol=2e-6, err_msg=name)


def test_kornia_saturation_against_colorsys():
    image = some_image()
    for factor in (0.3, 1.2, 5.0):
        got = colour.adjust(
            jnp.asarray(image), colour.SATURATION, jnp.float32(factor), "kornia"
        )
        for i, j in pixels(image):
            hue, saturation, value = colorsys.rgb_to_hsv(*image[:, i, j].tolist())
            want = colorsys.hsv_to_rgb(hue, min(saturation * factor, 1.0), value)
            np.testing.assert_allclose(got[:, i, j], want, atol=1e-6)
