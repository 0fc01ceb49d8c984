"""Where a picture, scaled, lies on an image of fixed size, and its boxes with it."""

import dataclasses

import numpy as np
from PIL import Image

_LEAST_PX = 1.0  # of a side of a box, or a crop has cut it away
_SLACK = 1e-6  # 640 * (512 / 640) may be a little less than 512


@dataclasses.dataclass(frozen=True)
class Place:
    """How a picture is laid on an image.

    Attributes:
        scale: From px of the picture, as its annotations say, to px of the image.
        corner: `[2]` int: top and left px of the scaled picture that are on the image.
        flip: Whether what is on the image is mirrored, left to right.
    """

    scale: float
    corner: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2, int))
    flip: bool = False


def fitting(size: np.ndarray, size_px: int) -> float:
    """The scale at which a picture just fits.

    Args:
        size: Its height and width, px, `[2]`.
        size_px: Side of the square that it is to fit in.

    Returns:
        Pixels of the square per pixel of the picture.
    """
    return size_px / int(size.max())


def scaled(size: np.ndarray, scale: float) -> np.ndarray:
    """Whole pixels of a scaled picture.

    Args:
        size: Its height and width, px, `[2]`.
        scale: The scale.

    Returns:
        Height and width, `[2]` int, at least 1.
    """
    return np.maximum(np.floor(size * scale + _SLACK), 1).astype(int)


def resized(
    image: np.ndarray, size: np.ndarray, place: Place, part: np.ndarray
) -> np.ndarray:
    """What is seen of a picture; bilinear, antialiased.

    The scale is exact, not that of the rounded size: boxes and pixels agree. A file of
    another size than the annotations say is scaled by as much more.

    Args:
        image: `[h, w, 3]` uint8.
        size: Height and width that the annotations say, px, `[2]`.
        place: Where it lies; its flip is left to the caller.
        part: Height and width of what is seen, px of the image, `[2]` int.

    Returns:
        `[*part, 3]` uint8.
    """
    factor = np.array(image.shape[:2]) / size  # from px as stated to those there are
    top, left = place.corner / place.scale * factor
    bottom, right = (place.corner + part) / place.scale * factor
    height, width = image.shape[:2]
    box = (left, top, min(right, width), min(bottom, height))
    seen = Image.fromarray(image).resize(
        (int(part[1]), int(part[0])), Image.Resampling.BILINEAR, box=box
    )
    return np.asarray(seen)


def moved(
    boxes: np.ndarray,
    size: np.ndarray,
    place: Place,
    part: np.ndarray,
    size_px: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes on the image, and which of them are still seen.

    Args:
        boxes: `[k, 4]` float64: x, y, width, height, px of the picture.
        size: Height and width of the picture, px, `[2]`.
        place: Where it lies.
        part: Height and width of what is seen of it, px of the image, `[2]` int.
        size_px: Side of the image.

    Returns:
        x0, y0, x1, y1, px of the image, clipped to what is seen, `[k, 4]` float64, to
        the last fraction of a pixel, though `part` is whole; and whether at least a
        pixel of either side is, `[k]` bool.
    """
    bottom, right = np.minimum(size * place.scale - place.corner, size_px)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    corners = corners * place.scale - np.tile(place.corner[::-1], 2)
    if place.flip:
        right = part[1]
        x0, y0, x1, y1 = corners.T
        corners = np.stack([right - x1, y0, right - x0, y1], axis=1)
    corners = np.clip(corners, 0, np.array([right, bottom, right, bottom]))
    is_seen = (corners[:, 2:] - corners[:, :2] >= _LEAST_PX).all(1)
    return corners, is_seen
