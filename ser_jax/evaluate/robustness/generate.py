"""Corrupted images made here, after the recipes of ImageNet-C and CIFAR-10-C.

They are not the published files: random numbers differ, so do motion blur and
resampling in detail, and frost is missing (14 of the 15 corruptions are here), since
it lays photographs over the image that are not part of this package. A result on
them must be marked "generated"; only the published files compare with papers.

Reference:
    Hendrycks and Dietterich (arXiv 1903.12261); strengths are those of
    github.com/hendrycks/robustness, `make_cifar_c.py` and `make_imagenet_c.py`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ser_jax.evaluate.robustness import effects
from ser_jax.evaluate.robustness.metrics import NUM_SEVERITIES

_IMAGENET_C_JPEG_QUALITY = 85  # every file of ImageNet-C was stored so

_Strength = dict[str, tuple[float, ...]]  # name of an argument: value per severity


class _Corruption(NamedTuple):
    effect: Callable[..., np.ndarray]
    cifar: _Strength  # for 32 px
    imagenet: _Strength  # for 224 px


_TABLE = {
    "gaussian_noise": _Corruption(
        effects.gaussian_noise,
        {"std": (0.04, 0.06, 0.08, 0.09, 0.10)},
        {"std": (0.08, 0.12, 0.18, 0.26, 0.38)},
    ),
    "shot_noise": _Corruption(
        effects.shot_noise,
        {"photons": (500, 250, 100, 75, 50)},
        {"photons": (60, 25, 12, 5, 3)},
    ),
    "impulse_noise": _Corruption(
        effects.impulse_noise,
        {"share": (0.01, 0.02, 0.03, 0.05, 0.07)},
        {"share": (0.03, 0.06, 0.09, 0.17, 0.27)},
    ),
    "defocus_blur": _Corruption(
        effects.defocus_blur,
        {"radius_px": (0.3, 0.4, 0.5, 1, 1.5), "soften_px": (0.4, 0.5, 0.6, 0.2, 0.1)},
        {"radius_px": (3, 4, 6, 8, 10), "soften_px": (0.1, 0.5, 0.5, 0.5, 0.5)},
    ),
    "glass_blur": _Corruption(
        effects.glass_blur,
        {
            "sigma_px": (0.05, 0.25, 0.4, 0.25, 0.4),
            "reach_px": (1, 1, 1, 1, 1),
            "num_passes": (1, 1, 1, 2, 2),
        },
        {
            "sigma_px": (0.7, 0.9, 1, 1.1, 1.5),
            "reach_px": (1, 2, 2, 3, 4),
            "num_passes": (2, 1, 3, 2, 2),
        },
    ),
    "motion_blur": _Corruption(
        effects.motion_blur,
        {"radius_px": (6, 6, 6, 8, 9), "sigma_px": (1, 1.5, 2, 2, 2.5)},
        {"radius_px": (10, 15, 15, 15, 20), "sigma_px": (3, 5, 8, 12, 15)},
    ),
    "zoom_blur": _Corruption(
        effects.zoom_blur,
        {
            "stop": (1.06, 1.11, 1.16, 1.21, 1.26),
            "step": (0.01, 0.01, 0.01, 0.01, 0.01),
        },
        {
            "stop": (1.11, 1.16, 1.21, 1.26, 1.31),
            "step": (0.01, 0.01, 0.02, 0.02, 0.03),
        },
    ),
    "snow": _Corruption(
        effects.snow,
        {
            "mean": (0.1, 0.1, 0.15, 0.25, 0.3),
            "std": (0.2, 0.2, 0.3, 0.3, 0.3),
            "flake_zoom": (1, 1, 1.75, 2.25, 1.25),
            "threshold": (0.6, 0.5, 0.55, 0.6, 0.65),
            "radius_px": (8, 10, 10, 12, 14),
            "sigma_px": (3, 4, 4, 6, 12),
            "keep": (0.95, 0.9, 0.9, 0.85, 0.8),
        },
        {
            "mean": (0.1, 0.2, 0.55, 0.55, 0.55),
            "std": (0.3, 0.3, 0.3, 0.3, 0.3),
            "flake_zoom": (3, 2, 4, 4.5, 2.5),
            "threshold": (0.5, 0.5, 0.9, 0.85, 0.85),
            "radius_px": (10, 12, 12, 12, 12),
            "sigma_px": (4, 4, 8, 8, 12),
            "keep": (0.8, 0.7, 0.7, 0.65, 0.55),
        },
    ),
    "fog": _Corruption(
        effects.fog,
        {"density": (0.2, 0.5, 0.75, 1, 1.5), "decay": (3, 3, 2.5, 2, 1.75)},
        {"density": (1.5, 2, 2.5, 2.5, 3), "decay": (2, 2, 1.7, 1.5, 1.4)},
    ),
    "brightness": _Corruption(
        effects.brightness,
        {"shift": (0.05, 0.1, 0.15, 0.2, 0.3)},
        {"shift": (0.1, 0.2, 0.3, 0.4, 0.5)},
    ),
    "contrast": _Corruption(
        effects.contrast,
        {"keep": (0.75, 0.5, 0.4, 0.3, 0.15)},
        {"keep": (0.4, 0.3, 0.2, 0.1, 0.05)},
    ),
    "elastic_transform": _Corruption(
        effects.elastic_transform,
        {
            "displacement_px": (0, 1.6, 2.56, 3.2, 3.2),
            "sigma_px": (0, 6.4, 1.92, 1.28, 0.96),
            "corner_px": (2.56, 2.24, 1.92, 1.6, 0.96),
        },
        {
            "displacement_px": (488, 488, 12.2, 17.08, 29.28),
            "sigma_px": (170.8, 19.52, 2.44, 2.44, 2.44),
            "corner_px": (24.4, 48.8, 4.88, 4.88, 4.88),
        },
    ),
    "pixelate": _Corruption(
        effects.pixelate,
        {"scale": (0.95, 0.9, 0.85, 0.75, 0.65)},
        {"scale": (0.6, 0.5, 0.4, 0.3, 0.25)},
    ),
    "jpeg_compression": _Corruption(
        effects.jpeg_compression,
        {"quality": (80, 65, 58, 50, 40)},
        {"quality": (25, 18, 15, 10, 7)},
    ),
}

CORRUPTIONS: tuple[str, ...] = tuple(_TABLE)


def corrupt(
    image: np.ndarray, name: str, severity: int, rng: np.random.Generator
) -> np.ndarray:
    """The image under one corruption.

    Args:
        image: Image, `[32, 32, 3]` (CIFAR-10-C's strengths) or `[224, 224, 3]`
            (ImageNet-C's, then stored as JPEG of quality 85 as there), RGB, uint8.
        name: One of `CORRUPTIONS`.
        severity: 1 (mild) to 5.
        rng: Source of all randomness; seed it by image, corruption and severity
            for a set that does not depend on the order of the work.

    Returns:
        Corrupted image, shape and dtype of `image`.

    Raises:
        ValueError: If the corruption, severity or kind of image is not known.
    """
    if name == "frost":
        raise ValueError(
            "corruption 'frost' cannot be generated: it lays photographs of frost over "
            "the image that are not part of this package; read the published "
            "ImageNet-C or CIFAR-10-C files, or report the other "
            f"{len(CORRUPTIONS)} corruptions as such."
        )
    if name not in _TABLE:
        raise ValueError(
            f"unknown corruption {name!r}; choose one of {', '.join(CORRUPTIONS)}."
        )
    if severity not in range(1, NUM_SEVERITIES + 1):
        raise ValueError(f"severity must be 1 to {NUM_SEVERITIES}, got {severity!r}.")
    if image.dtype != np.uint8 or image.shape not in [(32, 32, 3), (224, 224, 3)]:
        raise ValueError(
            "corruptions are defined for uint8 images [32, 32, 3] and [224, 224, 3], "
            f"got {image.dtype} {list(image.shape)}; resize the clean image first."
        )
    is_cifar = len(image) == 32
    corruption = _TABLE[name]
    strengths = corruption.cifar if is_cifar else corruption.imagenet
    strength = {key: values[severity - 1] for key, values in strengths.items()}
    result = corruption.effect(image.astype(np.float32) / 255, rng, **strength)
    if not is_cifar:
        result = effects.jpeg_compression(result, rng, quality=_IMAGENET_C_JPEG_QUALITY)
    return effects.to_uint8(result)
