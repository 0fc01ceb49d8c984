"""What the host is to cut from each image, and what it reports of it."""

import dataclasses
from typing import Any, Literal

# Arrays by name, a row an image. To train: "crops", crop's name -> `[b, s, s, 3]`,
# uint8, and "crop_params", crop's name -> `[b, 7]`, float32, in CROP_PARAMS' order.
Batch = dict[str, Any]

CROP_PARAMS = (
    "top",
    "left",
    "height",
    "width",
    "source_height",
    "source_width",
    "flip",
)
"""Layout of a crop's float32 `[7]` vector: pixels of the source image; flip 0 or 1."""


@dataclasses.dataclass(frozen=True)
class CropSpec:
    """One crop, random and resized or central: what to cut from the image, and how.

    Attributes:
        name: Key of the crop in the batch.
        size_px: Side of the square that comes out.
        scale: Smallest and largest share of the image's area, in (0, 1].
        ratio: Smallest and largest width / height before resizing.
        flip_prob: Probability of a left-right flip, in [0, 1].
        resample: "cv2": pixel-area averaging where the crop is at least as large as the
            output on both sides, bicubic (a = -0.75) otherwise; fast. "pil": Pillow's
            antialiased bicubic (a = -0.5), as torchvision does on PIL images.
            "cv2_reduced": "cv2" from a JPEG that is decoded at 1/2, 1/4 or 1/8 of its
            sides where all crops have at least their own size left, in whole pixels.
            "bilinear": Pillow's antialiased bilinear, as MoCo v3's and SER's
            transforms.
        centre_frac: If not 0, nothing is random: the central square is cut, its side
            this share of the image's short side, in (0, 1], and not flipped.
    """

    name: str
    size_px: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_prob: float = 0.5
    resample: Literal["cv2", "cv2_reduced", "pil", "bilinear"] = "cv2"
    centre_frac: float = 0.0

    def __post_init__(self):
        """Refuses impossible bounds."""
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(
                f"crop {self.name!r}: scale must be shares of the image's area, "
                f"0 < low <= high <= 1, got {self.scale}"
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(
                f"crop {self.name!r}: ratio must be 0 < low <= high, got {self.ratio}"
            )
        if not 0 <= self.centre_frac <= 1:
            raise ValueError(
                f"crop {self.name!r}: centre_frac is a share of the short side, in "
                f"(0, 1], or 0 for a random crop; got {self.centre_frac}"
            )
        if self.resample not in ("cv2", "cv2_reduced", "pil", "bilinear"):
            raise ValueError(
                f"crop {self.name!r}: resample must be 'cv2', 'cv2_reduced', 'pil' or "
                f"'bilinear', got {self.resample!r}"
            )


def eval_resize_px(size_px: int) -> int:
    """The short side to resize evaluation images to before their centre crop.

    Args:
        size_px: Side of the crop.

    Returns:
        The usual margin (256 to 224 px), but none for small pictures, which have no
        border to spare.
    """
    return round(size_px * 256 / 224) if size_px >= 128 else size_px
