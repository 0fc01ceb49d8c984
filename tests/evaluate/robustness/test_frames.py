"""Generated clips: each frame against what the perturbation says."""

import cv2
import numpy as np
import pytest

from ser_jax.evaluate.robustness import effects
from ser_jax.evaluate.robustness.frames import (
    PERTURBATIONS,
    RESIZE_PX,
    num_frames,
    perturbed_frame,
)

SIZES = (32, 224)


def picture(size):
    """Smooth waves, wider than high at 224 px, as the whole picture is."""
    height = RESIZE_PX[size]
    y, x = np.mgrid[:height, : height + (size == 224) * 64] / height
    waves = [np.sin(9 * x + 3 * y), np.cos(7 * x - 8 * y), np.sin(12 * x * y)]
    return (125 + 80 * np.stack(waves, -1)).astype(np.uint8)


def crop(size):
    top, left = ((side - size) // 2 for side in picture(size).shape[:2])
    return picture(size)[top : top + size, left : left + size]


def frame(name, step, size, key=(0,)):
    return perturbed_frame(picture(size), name, step, size_px=size, key=key)


def far(a, b):
    return np.abs(a.astype(float) - b).mean()


@pytest.mark.parametrize("size", SIZES)
def test_length_and_form(size):
    lengths = {name: num_frames(name, size) for name in PERTURBATIONS}
    others = {32: {"motion_blur": 21, "translate": 16}, 224: {"translate": 41}}[size]
    assert lengths == dict.fromkeys(PERTURBATIONS, 31) | others
    for name in PERTURBATIONS:
        for step in (0, lengths[name] - 1):
            made = frame(name, step, size)
            assert made.shape == (size, size, 3) and made.dtype == np.uint8


# Where a clip shows the picture as it is. Tilt is seen from 1 px too far away.
UNCHANGED = [
    *(("gaussian_noise", 0, 0), ("shot_noise", 0, 0), ("zoom_blur", 0, 0)),
    *(("brightness", 15, 15), ("rotate", 15, 15), ("scale", 15, 24)),
    ("translate", 7, 20),
]


@pytest.mark.parametrize("name, step_32, step_224", UNCHANGED)
def test_unperturbed_frame(name, step_32, step_224):
    for size, step in zip(SIZES, (step_32, step_224), strict=True):
        clean = frame(name, step, size)
        assert np.abs(clean.astype(int) - crop(size)).max() <= 1, size
        neighbour = frame(name, step + 1, size)
        assert far(neighbour, clean) > 0.03, size


@pytest.mark.parametrize(
    "name, size, strength",
    [
        ("gaussian_noise", 32, 0.02),
        ("gaussian_noise", 224, 0.03),
        ("shot_noise", 32, (0.5 / 700) ** 0.5),
        ("shot_noise", 224, (0.5 / 300) ** 0.5),
    ],
)
def test_noise_is_drawn_anew(name, size, strength):
    grey = np.full_like(picture(size), 128)
    first, second, other_key = (
        perturbed_frame(grey, name, step, size_px=size, key=key) / 255 - 128 / 255
        for step, key in ((1, (0,)), (2, (0,)), (1, (1,)))
    )
    assert first.std() == pytest.approx(strength, rel=0.06)
    for another in (second, other_key):
        assert abs(np.corrcoef(first.ravel(), another.ravel())[0, 1]) < 0.06


@pytest.mark.parametrize(
    "size, radius_px, sigma_px, first_deg", [(32, 6, 1.8, -180), (224, 10, 3, -120)]
)
def test_motion_blur_turns_until_horizontal(size, radius_px, sigma_px, first_deg):
    image = crop(size).astype(np.float32) / 255
    last = num_frames("motion_blur", size) - 1
    for step, angle in ((0, first_deg), (last, 0)):
        expected = effects.streak(image, radius_px, sigma_px, angle)
        assert far(frame("motion_blur", step, size), 255 * expected) < 0.5


def test_zoom_blur_is_a_running_mean():
    """The disk's edge spreads from its radius to 1.12 times it."""
    y, x = np.mgrid[:256, :256] - 127.5
    disk = np.where(np.hypot(y, x) < 80, 255, 0).astype(np.uint8)
    disk = np.repeat(disk[..., None], 3, -1)
    last = perturbed_frame(disk, "zoom_blur", 30, size_px=224, key=(0,))[112, :, 0]
    radius = np.arange(112) + 0.5
    # At radius r those enlargements show the disk that reach it.
    reach = 80 * (1 + 0.004 * np.arange(31))
    expected = 255 * (reach[:, None] > radius).mean(0)
    assert np.abs(last[112:] - expected).mean() < 3
    assert last[112 + 79] == 255 and last[112 + 90] == 0 and 100 < last[112 + 84] < 160


@pytest.mark.parametrize("size, first", [(32, -7), (224, -20)])
def test_translate_moves_right_by_whole_pixels(size, first):
    for step in (0, 3, num_frames("translate", size) - 1):
        shift = first + step
        whole = np.zeros_like(picture(size))
        source = picture(size)
        if shift < 0:
            whole[:, :shift] = source[:, -shift:]
        else:
            whole[:, shift:] = source[:, : source.shape[1] - shift]
        top, left = ((side - size) // 2 for side in whole.shape[:2])
        expected = whole[top : top + size, left : left + size]
        np.testing.assert_array_equal(frame("translate", step, size), expected)


def spot(size, dy, dx):
    """A black picture with a soft spot, (dy, dx) px from the middle."""
    height, width = picture(size).shape[:2]
    y, x = np.mgrid[:height, :width]
    y, x = y - (height - 1) / 2 - dy, x - (width - 1) / 2 - dx
    blob = 255 * np.exp(-(y**2 + x**2) / (2 * (size / 30) ** 2))
    return np.repeat(blob[..., None], 3, -1).astype(np.uint8)


def where(made):
    """Centre of mass, (y, x) px from the middle."""
    mass = made[..., 0].astype(float)
    y, x = np.mgrid[: len(mass), : len(mass)] - (len(mass) - 1) / 2
    return np.array([(mass * y).sum(), (mass * x).sum()]) / mass.sum()


@pytest.mark.parametrize("size", SIZES)
def test_rotate_and_scale_about_the_middle(size):
    dy, dx = -0.2 * size, 0.1 * size
    seen = spot(size, dy, dx)
    angle = np.deg2rad(12)  # clockwise, with y downwards
    turned = (
        np.sin(angle) * dx + np.cos(angle) * dy,
        np.cos(angle) * dx - np.sin(angle) * dy,
    )
    cases = {("rotate", 27): turned}
    for step in (5, 30):
        factor = 0.7 + 0.02 * step if size == 32 else 0.4 + 0.025 * step
        cases["scale", step] = (factor * dy, factor * dx)
    for (name, step), expected in cases.items():
        got = where(perturbed_frame(seen, name, step, size_px=size, key=(0,)))
        np.testing.assert_allclose(got, expected, atol=0.006 * size)


@pytest.mark.parametrize("size, per_step_deg", [(32, 0.75), (224, 1)])
def test_tilt_is_a_turn_in_space(size, per_step_deg):
    """Against the chain of matrices of the publication, about the true middle."""
    whole = picture(size)
    height, width = whole.shape[:2]
    away = np.hypot(height, width)
    for step in (0, 15, 30):
        angle = np.deg2rad(per_step_deg * (step - 15))
        c, s = np.cos(angle), np.sin(angle)
        mid_x, mid_y = (width - 1) / 2, (height - 1) / 2
        onto = np.array([[1, 0, -mid_x], [0, 1, -mid_y], [0, 0, 1], [0, 0, 1]])
        about_x = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
        about_y = np.array([[c, 0, -s, 0], [0, 1, 0, 0], [s, 0, c, 0], [0, 0, 0, 1]])
        back = np.eye(4)
        back[2, 3] = away
        project = np.array([[away, 0, mid_x, 0], [0, away, mid_y, 0], [0, 0, 1, 0]])
        matrix = project @ back @ about_x @ about_y @ onto
        expected = cv2.warpPerspective(whole, matrix, (width, height))
        top, left = ((side - size) // 2 for side in (height, width))
        expected = expected[top : top + size, left : left + size]
        assert far(frame("tilt", step, size), expected) < 0.5


@pytest.mark.parametrize(
    "size, zoom, radius_px, sigma_px", [(32, 2, 10, 2), (224, 3, 14, 4)]
)
def test_snow_is_the_same_flakes_at_angles_that_turn(size, zoom, radius_px, sigma_px):
    black = np.zeros_like(picture(size))
    key = (5,)
    layer = effects.flakes(
        (size, size), np.random.default_rng(key), 0.05, 0.3, zoom, 0.5
    )
    for step in (0, 17):
        falling = effects.streak(layer, radius_px, sigma_px, 4 * step - 150)
        # A black picture is whitened by 0.15 of a half.
        expected = 255 * np.clip(falling + np.rot90(falling, 2) + 0.075, 0, 1)
        made = perturbed_frame(black, "snow", step, size_px=size, key=key)
        assert np.abs(made[..., 0] - expected).max() <= 1
    other = perturbed_frame(black, "snow", 17, size_px=size, key=(6,))
    assert far(made, other) > 1


@pytest.mark.parametrize("size, per_step", [(32, 0.015), (224, 0.02)])
def test_brightness_both_ways(size, per_step):
    grey = np.full_like(picture(size), 30)
    for step in (0, 10, 30):
        made = perturbed_frame(grey, "brightness", step, size_px=size, key=(0,))
        expected = np.clip(30 + 255 * per_step * (step - 15), 0, 255)
        assert np.abs(made - expected).max() <= 1
