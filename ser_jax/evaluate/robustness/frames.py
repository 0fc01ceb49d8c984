"""Clips of an image under slowly growing perturbations, after ImageNet-P's recipe.

They are not the published files, for the reasons `corruptions` states, and because
those are compressed video. A result on them must be marked "generated".

Reference:
    Hendrycks and Dietterich (arXiv 1903.12261), Sec. 4.3; strengths are those of
    github.com/hendrycks/robustness, `make_imagenet_p.py` and `make_cifar_p.py`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

from ser_jax.evaluate.robustness import effects

# Short side of the whole image by side of the frames cut from its middle, px.
RESIZE_PX = {32: 32, 224: 256}


class _Moment(NamedTuple):
    """A frame to be made.

    Attributes:
        image: The whole image, `[h, w, 3]`, uint8.
        size: Side of the frame, px.
        step: Position in the clip, from 0.
        num_frames: Length of the clip.
        key: Seeds what the frames of this clip share.
    """

    image: np.ndarray
    size: int
    step: int
    num_frames: int
    key: tuple[int, ...]

    @property
    def from_middle(self) -> int:
        """Steps since the middle of the clip."""
        return self.step - (self.num_frames - 1) // 2

    def crop(self) -> np.ndarray:
        """The unperturbed frame, float32 `[size, size, 3]` in [0, 1]."""
        return self.warp(np.eye(3)).astype(np.float32) / 255

    def warp(self, matrix: np.ndarray) -> np.ndarray:
        """The frame after a map of the whole image; black where there is none.

        Args:
            matrix: Homography in px from the image's middle, `[3, 3]`.

        Returns:
            `[size, size, 3]`, uint8.
        """
        height, width = self.image.shape[:2]
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        top = round((height - self.size) / 2)
        left = round((width - self.size) / 2)
        whole = _shift(middle - (left, top)) @ matrix @ _shift(-middle)
        return cv2.warpPerspective(self.image, whole, (self.size, self.size))


def _shift(by: Any) -> np.ndarray:
    return np.array([(1, 0, by[0]), (0, 1, by[1]), (0, 0, 1)], float)


def _zoom(factor: float) -> np.ndarray:
    return np.diag((factor, factor, 1.0))


def _noise(
    effect: Callable[..., np.ndarray], moment: _Moment, **strength: float
) -> np.ndarray:
    """The image, then noise drawn anew for every frame."""
    if not moment.step:
        return moment.crop()
    rng = np.random.default_rng((*moment.key, moment.step))
    return effect(moment.crop(), rng, **strength)


def _motion_blur(
    moment: _Moment, *, radius_px: int, sigma_px: float, turn_deg: float
) -> np.ndarray:
    """A blur along a line that turns until it is horizontal."""
    angle_deg = turn_deg * (moment.step - moment.num_frames + 1)
    return effects.streak(moment.crop(), radius_px, sigma_px, angle_deg)


def _zoom_blur(moment: _Moment, *, growth: float) -> np.ndarray:
    """The mean of this and all earlier enlargements."""
    steps = range(moment.step + 1)
    enlarged = [moment.warp(_zoom(1 + growth * step)) for step in steps]
    return np.stack(enlarged).mean(axis=0, dtype=np.float32) / 255


def _snow(
    moment: _Moment, *, flake_zoom: float, radius_px: int, sigma_px: float
) -> np.ndarray:
    """The same flakes, which fall at an angle that turns."""
    rng = np.random.default_rng(moment.key)
    shape = (moment.size, moment.size)
    layer = effects.flakes(shape, rng, 0.05, 0.3, flake_zoom, 0.5)
    falling = effects.streak(layer, radius_px, sigma_px, 4 * moment.step - 150)
    return effects.snowed(moment.crop(), falling, 0.85)


def _brightness(moment: _Moment, *, shift: float) -> np.ndarray:
    """From dark to bright."""
    unused = np.random.default_rng(moment.key)
    return effects.brightness(moment.crop(), unused, shift=shift * moment.from_middle)


def _translate(moment: _Moment) -> np.ndarray:
    """To the right, by a pixel a frame."""
    return moment.warp(_shift((moment.from_middle, 0)))


def _rotate(moment: _Moment) -> np.ndarray:
    """Clockwise, by a degree a frame."""
    angle = np.deg2rad(moment.from_middle)
    cos, sin = np.cos(angle), np.sin(angle)
    return moment.warp(np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)]))


def _tilt(moment: _Moment, *, turn_deg: float) -> np.ndarray:
    """Turned out of its plane about both axes, seen from its diagonal away."""
    angle = np.deg2rad(turn_deg * moment.from_middle)
    cos, sin = np.cos(angle), np.sin(angle)
    about_x = np.array([(1, 0, 0), (0, cos, -sin), (0, sin, cos)])
    about_y = np.array([(cos, 0, -sin), (0, 1, 0), (sin, 0, cos)])
    distance = float(np.hypot(*moment.image.shape[:2]))
    turned = about_x @ about_y  # of (x, y, 1): the image lies 1 px behind the axes
    turned[2, 2] += distance
    return moment.warp(np.diag((distance, distance, 1)) @ turned)


def _scale(moment: _Moment, *, first: float, growth: float) -> np.ndarray:
    """From small on black to large."""
    return moment.warp(_zoom(first + growth * moment.step))


class _Perturbation(NamedTuple):
    frame: Callable[..., np.ndarray]
    cifar: dict[str, float]  # for 32 px
    imagenet: dict[str, float]  # for 224 px


_TABLE = {
    "gaussian_noise": _Perturbation(
        functools.partial(_noise, effects.gaussian_noise), {"std": 0.02}, {"std": 0.03}
    ),
    "shot_noise": _Perturbation(
        functools.partial(_noise, effects.shot_noise),
        {"photons": 700},
        {"photons": 300},
    ),
    "motion_blur": _Perturbation(
        _motion_blur,
        {"radius_px": 6, "sigma_px": 1.8, "turn_deg": 9},
        {"radius_px": 10, "sigma_px": 3, "turn_deg": 4},
    ),
    "zoom_blur": _Perturbation(_zoom_blur, {"growth": 0.004}, {"growth": 0.004}),
    "snow": _Perturbation(
        _snow,
        {"flake_zoom": 2, "radius_px": 10, "sigma_px": 2},
        {"flake_zoom": 3, "radius_px": 14, "sigma_px": 4},
    ),
    "brightness": _Perturbation(_brightness, {"shift": 0.015}, {"shift": 0.02}),
    "translate": _Perturbation(_translate, {}, {}),
    "rotate": _Perturbation(_rotate, {}, {}),
    "tilt": _Perturbation(_tilt, {"turn_deg": 0.75}, {"turn_deg": 1}),
    "scale": _Perturbation(
        _scale, {"first": 0.7, "growth": 0.02}, {"first": 0.4, "growth": 0.025}
    ),
}
_NUM_FRAMES = {("motion_blur", 32): 21, ("translate", 32): 16, ("translate", 224): 41}

PERTURBATIONS: tuple[str, ...] = tuple(_TABLE)


def num_frames(name: str, size_px: int) -> int:
    """Length of a clip.

    Args:
        name: One of `PERTURBATIONS`.
        size_px: Side of a frame: 32 or 224.

    Returns:
        Frames.
    """
    return _NUM_FRAMES.get((name, size_px), 31)


def perturbed_frame(
    image: np.ndarray, name: str, step: int, *, size_px: int, key: tuple[int, ...]
) -> np.ndarray:
    """One frame of a clip, made on its own.

    Args:
        image: The whole image, its short side `RESIZE_PX[size_px]`: `[h, w, 3]`,
            RGB, uint8.
        name: One of `PERTURBATIONS`.
        step: Position in the clip, in [0, `num_frames`).
        size_px: Side of the frame: 32 (CIFAR-10-P's strengths) or 224 (ImageNet-P's).
        key: Seeds the clip: what its frames share is drawn from it alone.

    Returns:
        The frame, `[size_px, size_px, 3]`, uint8.
    """
    perturbation = _TABLE[name]
    strength = perturbation.cifar if size_px == 32 else perturbation.imagenet
    moment = _Moment(image, size_px, step, num_frames(name, size_px), key)
    frame = perturbation.frame(moment, **strength)
    return frame if frame.dtype == np.uint8 else effects.to_uint8(frame)
