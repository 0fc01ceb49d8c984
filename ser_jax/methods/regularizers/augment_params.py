"""Augmentation parameters as vectors of numbers: what EquiMod's predictor is told."""

import dataclasses

import jax
import jax.numpy as jnp

from ser_jax.views.view import AugmentParams


def relative_crop(params: AugmentParams) -> jax.Array:
    """Crops as shares of their source.

    Args:
        params: Parameters of `b` views.

    Returns:
        Top, left, height, width, each over the source's height or width, `[b, 4]`,
        float32 in [0, 1].
    """
    # Made-up batches report sources of 0 px.
    size = jnp.maximum(params.crop[:, 4:6], 1.0)
    return params.crop[:, :4] / jnp.concatenate([size, size], axis=1)


def augmentation_vector(params: AugmentParams, *, crop_in_px: bool) -> jax.Array:
    """Everything that was done to each view.

    Args:
        params: Parameters of `b` views.
        crop_in_px: Whether the crop is told in pixels of its source, as EquiMod's
            authors do, or as shares of it.

    Returns:
        `[b, 18]`, float32: crop top, left, height, width, flipped; jitter on, which
        operation came first to fourth, brightness, contrast, saturation, hue; gray;
        blur on, its sigma; solarized. Neutral values where an operation is off.

    Reference:
        EquiMod (arXiv 2211.01244), Sec. 4 and released code.
    """
    columns = (
        params.crop[:, :4] if crop_in_px else relative_crop(params),
        params.crop[:, 6],
        params.jitter_on,
        params.order,
        *(params.brightness, params.contrast, params.saturation, params.hue),
        params.gray,
        *(params.blur_on, params.sigma),
        params.solarize_on,
    )
    b = params.crop.shape[0]
    return jnp.concatenate(
        [column.reshape(b, -1).astype(jnp.float32) for column in columns], axis=1
    )


@dataclasses.dataclass(frozen=True)
class Standardization:
    """Constants that bring an augmentation vector to mean 0 and deviation 1.

    Attributes:
        mean: Mean of each element; as many leading elements are kept.
        std: Standard deviation of each.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, vector: jax.Array) -> jax.Array:
        """Returns `[b, len(mean)]`, float32, from vectors `[b, 18]`, crop in pixels."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return (vector[:, : len(self.mean)] - mean[None]) / std[None]


_IMAGENET_MEAN = (
    *(68.162, 99.199, 269.33, 274.57, 0.49905),
    *(0.80054, 1.1998, 1.3994, 1.6014, 1.7995),
    *(1.0001, 1.0000, 1.0005, 0.00015640, 0.20018),
)
_IMAGENET_STD = (
    *(77.370, 98.681, 136.86, 143.49, 0.5),
    *(0.39959, 1.1661, 1.0201, 1.0201, 1.1657),
    *(0.41347, 0.41323, 0.41349, 0.10333, 0.40013),
)

_CIFAR10_MEAN = (
    *(4.3122, 4.3216, 23.369, 23.374, 0.49998),
    *(0.80087, 1.2025, 1.4007, 1.5964, 1.8004),
    *(0.99993, 1.0002, 0.99986, 2.2321e-7, 0.19965),
)
_CIFAR10_STD = (
    *(3.9740, 3.9851, 4.9544, 4.9539, 0.5),
    *(0.3993, 1.1651, 1.0210, 1.0200, 1.1669),
    *(0.2066, 0.2068, 0.2066, 0.0517, 0.3997),
)
_BYOL_MEAN = (0.27256, 0.52507, 0.050149)  # blur on, its sigma, solarized
_BYOL_STD = (0.30381, 0.65251, 0.064719)

# The authors' constants. Those of BYOL describe SimCLR's stronger colour jitter, and
# half the blur and solarization that its two views get. SER's port to ViT has BYOL's.
OFFICIAL_STANDARDIZATIONS = {
    "official_imagenet_byol": Standardization(
        mean=(*_IMAGENET_MEAN, *_BYOL_MEAN), std=(*_IMAGENET_STD, *_BYOL_STD)
    ),
    "official_imagenet_simclr": Standardization(
        mean=(*_IMAGENET_MEAN, 0.5003, 0.52507),
        std=(*_IMAGENET_STD, 0.5, 0.65251),
    ),
    "official_cifar10_byol": Standardization(
        mean=(*_CIFAR10_MEAN, *_BYOL_MEAN), std=(*_CIFAR10_STD, *_BYOL_STD)
    ),
    "official_cifar10": Standardization(mean=_CIFAR10_MEAN, std=_CIFAR10_STD),
}
