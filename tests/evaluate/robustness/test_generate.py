"""Generated corruptions: form, randomness, strength, and what each leaves alone."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from ser_jax.evaluate.robustness import effects
from ser_jax.evaluate.robustness.generate import CORRUPTIONS, corrupt
from ser_jax.evaluate.robustness.metrics import ALEXNET_ERROR, NUM_SEVERITIES

SIZES = (32, 224)
# More severe is further from the picture. Not so for snow, fog, glass, motion and
# elastic, which draw a shape or a direction, nor for `pixelate` at 32 px, where 28
# pixels stand for 32 at severity 2 and 27 at 3.
MONOTONE = [
    (name, size)
    for size in SIZES
    for name in (
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "zoom_blur"),
        *("brightness", "contrast", "pixelate", "jpeg_compression"),
    )
    if (name, size) != ("pixelate", 32)
]


@functools.cache
def picture(size: int) -> np.ndarray:
    """Smooth waves of each colour with the hard edge of a disk."""
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(9 * x + 3 * y), np.cos(7 * x - 8 * y), np.sin(12 * x * y)]
    disk = (x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.06
    return (115 + 50 * np.stack(waves, -1) + 50 * disk[..., None]).astype(np.uint8)


@functools.cache
def corrupted(name: str, severity: int, size: int, seed: int = 0) -> np.ndarray:
    return corrupt(picture(size), name, severity, np.random.default_rng(seed))


def change(name: str, severity: int, size: int) -> float:
    difference = corrupted(name, severity, size).astype(int) - picture(size)
    return float(np.abs(difference).mean())


def test_all_of_imagenet_c_but_frost():
    assert set(CORRUPTIONS) == set(ALEXNET_ERROR) - {"frost"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_form_and_change(name, size):
    before = picture(size).copy()
    for severity in range(1, NUM_SEVERITIES + 1):
        result = corrupted(name, severity, size)
        assert result.shape == (size, size, 3) and result.dtype == np.uint8
        assert change(name, severity, size) > 0.2, severity
        assert result.std() > 0.5, "nothing left of the picture"
    np.testing.assert_array_equal(picture(size), before)


@pytest.mark.parametrize("name, size", MONOTONE)
def test_more_severe_is_further_away(name, size):
    changes = [change(name, s, size) for s in range(1, NUM_SEVERITIES + 1)]
    assert changes == sorted(changes)
    assert changes[-1] > 1.2 * changes[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_generator_is_the_only_randomness(name):
    first = corrupted(name, 3, 32)
    np.random.seed(1)
    again = corrupt(picture(32), name, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(first, again)
    is_random = name in (
        *("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur"),
        *("motion_blur", "snow", "fog", "elastic_transform"),
    )
    assert np.any(first != corrupted(name, 3, 32, seed=1)) == is_random


def test_noise_has_the_strength_stated():
    """On grey, CIFAR-10-C's first severity: std 0.04, 500 photons, 1 % of values."""
    grey = np.full((32, 32, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    gaussian = corrupt(grey, "gaussian_noise", 1, rng) / 255
    assert gaussian.std() == pytest.approx(0.04, rel=0.05)
    shot = corrupt(grey, "shot_noise", 1, rng) / 255
    assert shot.std() == pytest.approx((128 / 255 / 500) ** 0.5, rel=0.05)
    impulse = corrupt(grey, "impulse_noise", 5, rng)
    assert set(np.unique(impulse)) == {0, 128, 255}
    assert np.mean(impulse != 128) == pytest.approx(0.07, rel=0.15)


def test_blur_leaves_grey_alone():
    grey = np.full((32, 32, 3), 128, np.uint8)
    for name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "pixelate"):
        result = corrupt(grey, name, 5, np.random.default_rng(0))
        assert np.abs(result.astype(int) - 128).max() <= 1, name


def test_contrast_keeps_the_mean_and_scales_the_rest():
    clean = picture(32) - picture(32).mean((0, 1))
    result = corrupted("contrast", 4, 32) - picture(32).mean((0, 1))
    truncated = 0.3 * clean - result  # lies in [0, 1)
    assert np.abs(truncated - 0.5).max() <= 0.51


def test_values_are_truncated_and_levels_come_back():
    """Red if they are rounded: half a level brighter than the published pictures."""
    levels = np.arange(256, dtype=np.uint8)
    image = levels.astype(np.float32) / 255
    np.testing.assert_array_equal(effects.to_uint8(image), levels)
    between = image[:-1] + np.float32(0.9 / 255)
    np.testing.assert_array_equal(effects.to_uint8(between), levels[:-1])
    np.testing.assert_array_equal(effects.to_uint8(np.array([-1.0, 2.0])), [0, 255])


def test_brightness_adds_to_the_largest_channel_and_keeps_ratios():
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:] = (100, 50, 25)
    bright = corrupt(pixels, "brightness", 2, np.random.default_rng(0))[0, 0]
    expected = np.array([100, 50, 25]) * (100 + 0.1 * 255) / 100
    assert np.abs(bright - expected).max() <= 1


@pytest.mark.parametrize(
    "size, factor", [(32, 1.01), (32, 1.05), (224, 1.3), (224, 4.5)]
)
def test_zoom_is_that_of_a_crop_of_whole_pixels(size, factor):
    side = -(-size // factor)
    top = int(size - side) // 2
    crop = picture(size)[top : top + int(side), top : top + int(side)] / 255
    enlarged = ndimage.zoom(crop, (factor, factor, 1), order=1)
    trim = (len(enlarged) - size) // 2
    expected = enlarged[trim : trim + size, trim : trim + size]
    got = effects._zoom(picture(size).astype(np.float32) / 255, factor)
    # OpenCV places its samples to 1/32 of a pixel; the disk's edge is 0.2 high.
    assert np.abs(got - expected).max() < 0.015


def test_zoom_blur_is_the_mean_over_factors():
    image = picture(32).astype(np.float32) / 255
    blurred = effects.zoom_blur(image, np.random.default_rng(0), stop=1.06, step=0.02)
    zoomed = [effects._zoom(image, factor) for factor in (1, 1.02, 1.04, 1.06)]
    np.testing.assert_allclose(blurred, np.mean([image, *zoomed], axis=0), atol=1e-6)


def test_streak_is_one_sided_and_at_its_angle():
    image = np.zeros((33, 33), np.float32)
    image[16, 16] = 1
    for angle_deg, (dy, dx) in {0: (0, -1), 90: (-1, 0), -45: (1, -1)}.items():
        blurred = effects.streak(image, 3, 2.0, angle_deg)
        assert blurred.sum() == pytest.approx(1, abs=1e-5)
        assert blurred[16 + dy, 16 + dx] > blurred[16 + 2 * dy, 16 + 2 * dx] > 0.05
        assert blurred[16 - dy, 16 - dx] == pytest.approx(0, abs=1e-6)


def test_plasma_fills_its_range_and_is_smoother_with_faster_decay():
    rough, smooth = (
        effects._plasma(33, decay, np.random.default_rng(0)) for decay in (1.2, 3)
    )
    for cloud in (rough, smooth):
        assert cloud.shape == (64, 64)
        assert cloud.min() == 0 and cloud.max() == 1
    assert np.abs(np.diff(smooth)).mean() < 0.3 * np.abs(np.diff(rough)).mean()
    # With all but the first noise gone, new points are the mean of their neighbours
    # in the finest grid, beyond the border those on the other side.
    cloud = effects._plasma(8, 1e6, np.random.default_rng(0))
    up, down, left, right = (
        np.roll(cloud, by, axis) for axis in (0, 1) for by in (1, -1)
    )
    beside = (up + down + left + right) / 4
    diagonal = np.roll(up + down, 1, 1) + np.roll(up + down, -1, 1)
    for new, mean in [((0, 1), beside), ((1, 0), beside), ((1, 1), diagonal / 4)]:
        where = np.s_[new[0] :: 2, new[1] :: 2]
        np.testing.assert_allclose(cloud[where], mean[where], atol=1e-6)


def test_fog_is_no_brighter_than_the_picture():
    image = picture(32).astype(np.float32) / 255
    foggy = effects.fog(image, np.random.default_rng(0), density=1.5, decay=2)
    assert 0.8 * image.max() < foggy.max() <= image.max() + 1e-6


def test_snow_falls_in_two_layers_turned_by_half():
    black, rng = np.zeros((32, 32, 3), np.float32), np.random.default_rng(0)
    flakes = effects.snow(
        *(black, rng),
        **dict(mean=0.3, std=0.3, flake_zoom=2, threshold=0.7),
        **dict(radius_px=6, sigma_px=2, keep=1),
    )
    assert 0.01 < flakes.mean() < 0.5
    np.testing.assert_allclose(flakes, np.rot90(flakes, 2), atol=1e-6)


def test_elastic_displaces_by_smooth_noise():
    image = picture(32).astype(np.float32) / 255

    def displaced(displacement_px):
        strength = dict(displacement_px=displacement_px, sigma_px=1, corner_px=0)
        rng = np.random.default_rng(0)
        return effects.elastic_transform(image, rng, **strength)

    np.testing.assert_allclose(displaced(0), image, atol=1e-6)
    assert np.abs(displaced(3) - image).mean() > 0.01


def test_imagenet_c_is_stored_as_jpeg():
    rng = np.random.default_rng(0)
    grey = effects.contrast(picture(224).astype(np.float32) / 255, rng, keep=0.3)
    stored = effects.jpeg_compression(grey, rng, quality=85)
    np.testing.assert_array_equal(
        corrupted("contrast", 2, 224), effects.to_uint8(stored)
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_memory_order_does_not_matter(name):
    turned = np.rot90(picture(32))  # a view with a negative stride
    results = [
        corrupt(image, name, 2, np.random.default_rng(0))
        for image in (turned, np.ascontiguousarray(turned))
    ]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    "image, name, severity, message",
    [
        (picture(32), "frost", 1, "published .* files"),
        (picture(32), "rain", 1, "'rain'.*gaussian_noise"),
        (picture(32), "fog", 0, "1 to 5, got 0"),
        (picture(32), "fog", 6, "1 to 5, got 6"),
        (picture(32) / 255, "fog", 1, "uint8.*float64"),
        (picture(48), "fog", 1, r"\[48, 48, 3\]"),
        (picture(32)[..., 0], "fog", 1, r"\[32, 32\]"),
    ],
)
def test_errors(image, name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(image, name, severity, np.random.default_rng(0))
