"""What the host does to a decoded image: crop, resize, flip; uint8 out."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import cv2
import grain
import numpy as np
from PIL import Image

from ser_jax.data.area import shrink
from ser_jax.data.crops import CropSpec
from ser_jax.data.decode import decode_image, jpeg_size

# The loader's threads fill the cores already; OpenCV's own pool would fight them.
cv2.setNumThreads(0)


def sample_box(
    rng: np.random.Generator, height: int, width: int, spec: CropSpec
) -> tuple[int, int, int, int]:
    """The rectangle of a random resized crop.

    Ten tries at an area uniform in `spec.scale` and a log-uniform aspect ratio; the
    first that fits is placed uniformly. If none fits: the largest central crop whose
    ratio is within bounds.

    Args:
        rng: The only source of randomness.
        height: Height of the image, px.
        width: Width of the image, px.
        spec: Bounds of area and aspect ratio.

    Returns:
        (top, left, height, width), px; inside the image, never empty.

    Reference:
        Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, Sec. 6; the rule is
        that of torchvision's RandomResizedCrop.
    """
    for _ in range(10):
        area_px = rng.uniform(*spec.scale) * height * width
        ratio = math.exp(rng.uniform(math.log(spec.ratio[0]), math.log(spec.ratio[1])))
        crop_width = round(math.sqrt(area_px * ratio))
        crop_height = round(math.sqrt(area_px / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            return top, left, crop_height, crop_width
    ratio = min(max(width / height, spec.ratio[0]), spec.ratio[1])
    crop_width = min(width, max(1, round(height * ratio)))
    crop_height = min(height, max(1, round(width / ratio)))
    return (
        (height - crop_height) // 2,
        (width - crop_width) // 2,
        crop_height,
        crop_width,
    )


def centre_box(height: int, width: int, frac: float) -> tuple[int, int, int, int]:
    """The central square whose side is a share of the short side.

    Args:
        height: Height of the image, px.
        width: Width of the image, px.
        frac: The share, in (0, 1].

    Returns:
        (top, left, side, side), px.
    """
    side = max(1, round(frac * min(height, width)))
    return (height - side) // 2, (width - side) // 2, side, side


def _shared_box(
    rng: np.random.Generator, height: int, width: int, spec: CropSpec
) -> tuple[int, int, int, int]:
    """A box drawn in shares of the image, so that images of any shape can share it."""
    unit = 1 << 16
    top, left, h, w = sample_box(rng, unit, unit, spec)
    crop_height = max(1, round(h * height / unit))
    crop_width = max(1, round(w * width / unit))
    return (
        min(round(top * height / unit), height - crop_height),
        min(round(left * width / unit), width - crop_width),
        crop_height,
        crop_width,
    )


_PILLOW = {"pil": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def _resize(image: np.ndarray, size_px: int, resample: str) -> np.ndarray:
    if resample in _PILLOW:
        resized = Image.fromarray(image).resize((size_px, size_px), _PILLOW[resample])
        return np.asarray(resized)
    # OpenCV's AREA averages only when both sides shrink; else it is a crude linear.
    if min(image.shape[:2]) >= size_px:
        return shrink(image, size_px)
    return cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_CUBIC)


@dataclasses.dataclass(frozen=True)
class RandomCrops(grain.transforms.RandomMap):
    """Several crops of one image, decoded once.

    Attributes:
        specs: One entry per crop; their names are the keys of what comes out.
        pair_seed: If given, images 2i and 2i + 1 of the stream share their boxes, in
            shares of the image; flips stay each image's own. The seed of those boxes.
    """

    specs: tuple[CropSpec, ...]
    pair_seed: int | None = None

    def random_map(
        self, example: dict[str, Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        """The crops and how each was cut.

        Args:
            example: `image` (encoded bytes), `label`, `index` and, if images are
                paired, `position` in the stream.
            rng: The only source of randomness.

        Returns:
            `crops`: name -> `[s, s, 3]` uint8; `crop_params`: name -> `[7]` float32,
            laid out as `CROP_PARAMS`; `label` and `index`: int64.

        Raises:
            UnreadableImageError: If the image cannot be decoded.
        """
        data = example["image"]
        size = jpeg_size(data) if self._reduces else None
        if size is None:
            image, factor = decode_image(data), 1
            drawn = self._draw(example, rng, *image.shape[:2])
        else:
            drawn = self._draw(example, rng, *size)
            factor = self._factor([box for box, _ in drawn])
            image = decode_image(data, factor)
        height, width = size or image.shape[:2]
        crops, params = {}, {}
        for spec, (box, flip) in zip(self.specs, drawn, strict=True):
            top, left, h, w = (side // factor for side in box)
            box = (top * factor, left * factor, h * factor, w * factor)
            crop = _resize(
                image[top : top + h, left : left + w], spec.size_px, spec.resample
            )
            crops[spec.name] = cv2.flip(crop, 1) if flip else crop
            params[spec.name] = np.array((*box, height, width, flip), np.float32)
        return {
            "crops": crops,
            "crop_params": params,
            "label": np.int64(example["label"]),
            "index": np.int64(example["index"]),
        }

    @property
    def _reduces(self) -> bool:
        return all(spec.resample == "cv2_reduced" for spec in self.specs)

    def _factor(self, boxes: Sequence[tuple[int, ...]]) -> int:
        """By what sides can be divided and no crop be smaller than what is wanted."""
        left = min(
            min(box[2:]) / spec.size_px
            for spec, box in zip(self.specs, boxes, strict=True)
        )
        return next(factor for factor in (8, 4, 2, 1) if factor <= max(left, 1))

    def _draw(
        self, example: dict[str, Any], rng: np.random.Generator, height: int, width: int
    ) -> list[tuple[tuple[int, int, int, int], bool]]:
        """Box and flip of each crop."""
        sample, box_rng = sample_box, rng
        if self.pair_seed is not None:
            sample = _shared_box
            pair = int(example["position"]) // 2
            box_rng = np.random.default_rng((self.pair_seed, pair))
        drawn = []
        for spec in self.specs:
            if spec.centre_frac:
                drawn.append((centre_box(height, width, spec.centre_frac), False))
            else:
                box = sample(box_rng, height, width, spec)
                drawn.append((box, rng.random() < spec.flip_prob))
        return drawn


_MOST_ASPECT = 16


def resize_short_side(image: np.ndarray, short_px: int) -> np.ndarray:
    """The picture with its short side at `short_px`, by Pillow's bicubic.

    Args:
        image: `[h, w, 3]`, uint8.
        short_px: Pixels of the short side.

    Returns:
        The same, the long side in proportion, rounded down; of a strip its middle, 16
        times as long as wide, as the whole of one enlarged would fill the memory.
    """
    longest = _MOST_ASPECT * min(image.shape[:2])
    top, left = (max(0, side - longest) // 2 for side in image.shape[:2])
    image = np.ascontiguousarray(image[top : top + longest, left : left + longest])
    height, width = image.shape[:2]
    short = min(height, width)
    size = (short_px * width // short, short_px * height // short)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


@dataclasses.dataclass(frozen=True)
class CentreCrop(grain.transforms.Map):
    """The usual evaluation view: short side to `resize_px`, then the central square.

    Resizing is Pillow's antialiased bicubic, the protocol of published evaluations.

    Attributes:
        size_px: Side of the square that comes out.
        resize_px: Length of the short side before cropping, >= `size_px`.
    """

    size_px: int
    resize_px: int

    def __post_init__(self):
        """Refuses a crop larger than the image it is cut from."""
        if self.resize_px < self.size_px:
            raise ValueError(
                f"resize_px ({self.resize_px}) must be at least size_px "
                f"({self.size_px}): the crop is cut from the resized image"
            )

    def map(self, example: dict[str, Any]) -> dict[str, Any]:
        """The central square of the resized image.

        Args:
            example: `image` (encoded bytes), `label` and `index`.

        Returns:
            `image`: `[s, s, 3]` uint8; `label` and `index`: int64.

        Raises:
            UnreadableImageError: If the image cannot be decoded.
        """
        square = self.crop(decode_image(example["image"]))
        return {
            "image": np.ascontiguousarray(square),
            "label": np.int64(example["label"]),
            "index": np.int64(example["index"]),
        }

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The central square of one image, resized.

        Args:
            image: `[h, w, 3]`, uint8.

        Returns:
            `[s, s, 3]`, uint8.
        """
        image = resize_short_side(image, self.resize_px)
        top, left = (round((side - self.size_px) / 2) for side in image.shape[:2])
        return image[top : top + self.size_px, left : left + self.size_px]
