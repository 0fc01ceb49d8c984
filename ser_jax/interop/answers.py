"""What files do not say: known from beside them, guessed aloud, or asked for."""

import dataclasses
from typing import Any

RGB = tuple[float, float, float]
Normalization = tuple[RGB, RGB]  # mean and standard deviation, of values in [0, 1]

IMAGENET: Normalization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclasses.dataclass(frozen=True)
class Given:
    """What the user says of a file; None: nothing, so that it is known or guessed.

    Attributes:
        layout: Name of a layout, where keys fit several.
        role: Which of several encoders: a role of the layout's, "online" or "target".
        num_heads: Attention heads of a ViT.
        cls_insert: Blocks after which the class token joins.
        norm_eps: What LayerNorms add to the variance.
        positions: How positions are resampled: "dino", "hf" or "timm".
        image_size: Pixels a side of the images that it will be given.
        normalize: Mean and standard deviation of images, each of three channels.
    """

    layout: str | None = None
    role: str | None = None
    num_heads: int | None = None
    cls_insert: int | None = None
    norm_eps: float | None = None
    positions: str | None = None
    image_size: int | None = None
    normalize: Normalization | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """A value that an encoder's arrays do not say.

    Attributes:
        value: The value.
        why: Where it comes from, in words.
        sure: Whether it was said; else it is a guess.
    """

    value: Any
    why: str
    sure: bool = True


def guess(value: Any, why: str) -> Answer:
    """A value that was not said.

    Args:
        value: The value.
        why: What speaks for it.

    Returns:
        The answer.
    """
    return Answer(value, why, sure=False)
