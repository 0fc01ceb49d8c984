"""What is drawn for one view, and from which range.

No JAX here: the host's worker processes import it.
"""

import dataclasses
from typing import Literal

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Probabilities and ranges of the photometric augmentation of one view.

    The operations run in this order: colour jitter, grayscale, blur, solarize,
    quarter turns, normalise. One whose probability is 0 costs nothing: it is not
    compiled.

    Attributes:
        jitter_prob: Probability that the four colour operations apply, in [0, 1].
        brightness: Half-width of the factor's range around 1, in [0, 1].
        contrast: As `brightness`.
        saturation: As `brightness`.
        hue: Half-width of the shift around 0, in turns of the colour circle, [0, 0.5].
        gray_prob: Probability of grayscale.
        blur_prob: Probability of the Gaussian blur.
        blur_sigma: Range of the blur's standard deviation in pixels.
        blur_taps: Width of the blur kernel in pixels, odd.
        solarize_prob: Probability of solarization.
        solarize_threshold: Range of the threshold; values at or above become 1 - value.
            0.5 inverts the same 8-bit levels as 128, the usual integer threshold.
        rot90_prob: Probability of a turn by 90, 180 or 270 degrees, one as likely as
            another. For AugSelf's rotation target; no published base has it.
        colour: Whose definitions of the colour operations: "torchvision" draws an
            order of the four per image, "kornia" one per batch. See `colour.adjust`.
        mean: Mean subtracted from each channel at the end.
        std: Divisor of each channel at the end.

    Raises:
        ValueError: If a value is out of its range.
    """

    jitter_prob: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray_prob: float = 0.0
    blur_prob: float = 0.0
    blur_sigma: Range = (0.1, 2.0)
    blur_taps: int = 23
    solarize_prob: float = 0.0
    solarize_threshold: Range = (0.5, 0.5)
    rot90_prob: float = 0.0
    colour: Literal["torchvision", "kornia"] = "torchvision"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        """Checks every value against its range."""
        for name in (
            *("jitter_prob", "gray_prob", "blur_prob", "solarize_prob"),
            "rot90_prob",
        ):
            _check_within(name, getattr(self, name), 1.0, "a probability")
        for name in ("brightness", "contrast", "saturation"):
            _check_within(name, getattr(self, name), 1.0, "0.4 draws from [0.6, 1.4]")
        _check_within("hue", self.hue, 0.5, "half a turn reaches every colour")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(
                f"blur_sigma must be (low, high) in pixels with 0 < low <= high, got "
                f"{self.blur_sigma}. To switch the blur off set blur_prob=0."
            )
        if self.blur_taps < 1 or self.blur_taps % 2 == 0:
            raise ValueError(
                f"blur_taps must be odd and positive, got {self.blur_taps}: the kernel "
                "needs a centre pixel. Take the next odd number."
            )
        if not 0 <= self.solarize_threshold[0] <= self.solarize_threshold[1] <= 1:
            raise ValueError(
                f"solarize_threshold must be (low, high) with 0 <= low <= high <= 1, "
                f"got {self.solarize_threshold}. Divide an 8-bit threshold by 256."
            )
        if self.colour not in ("torchvision", "kornia"):
            raise ValueError(
                f"colour must be 'torchvision' or 'kornia', got {self.colour!r}."
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                "mean and std must hold one value for each of red, green, blue, std > "
                f"0; got mean={self.mean}, std={self.std}."
            )


def _check_within(name: str, value: float, high: float, hint: str) -> None:
    if not 0 <= value <= high:
        raise ValueError(f"{name} must be in [0, {high:g}] ({hint}), got {value}.")
