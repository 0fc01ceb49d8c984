"""What is drawn for each view, and from which range: recipes, and those with a name."""

import dataclasses
import difflib
from typing import Literal

Range = tuple[float, float]
Photometry = Literal["global/0", "global/1", "local", "unsolarized", "plain"]


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
        mean: Mean of the data set, subtracted from each channel at the end.
        std: Its standard deviation, the divisor of each channel.

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

    def or_of(self, other: "Recipe") -> "Recipe":
        """A recipe that does to an image whatever either of two does.

        Args:
            other: One of the same definitions, blur width, mean and std.

        Returns:
            This one, with every operation that either has.
        """
        probs = ("jitter_prob", "gray_prob", "blur_prob", "solarize_prob", "rot90_prob")
        names = ("hue", *probs)
        largest = {n: max(getattr(self, n), getattr(other, n)) for n in names}
        return dataclasses.replace(self, **largest)


def _check_within(name: str, value: float, high: float, hint: str) -> None:
    if not 0 <= value <= high:
        raise ValueError(f"{name} must be in [0, {high:g}] ({hint}), got {value}.")


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line of the table; triples are ("global/0", "global/1", "local")."""

    crop_scale: Range = (0.08, 1.0)
    local_crop_scale: Range = (0.05, 0.25)
    jitter_prob: float = 0.8
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    gray_prob: tuple[float, float, float] = (0.2, 0.2, 0.2)
    blur_prob: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_taps: int | None = None  # None: a tenth of the image
    solarize_prob: tuple[float, float, float] = (0.0, 0.2, 0.0)
    solarize_threshold: Range = (0.5, 0.5)
    colour: Literal["torchvision", "kornia"] = "torchvision"


_COLUMNS: dict[str, int] = {"global/0": 0, "global/1": 1, "unsolarized": 1, "local": 2}
_NEVER = (0.0, 0.0, 0.0)
_HALF = (0.5, 0.5, 0.5)

_TABLE = {
    "moco_v3": _Row(),
    "barlow_twins": _Row(),
    "byol": _Row(),
    "dino": _Row(crop_scale=(0.4, 1.0), local_crop_scale=(0.05, 0.4)),
    # DINO without local crops; its authors advise a wider range for the globals.
    "dino_2view": _Row(crop_scale=(0.14, 1.0)),
    "simclr": _Row(jitter=(0.8, 0.8, 0.8, 0.2), blur_prob=_HALF, solarize_prob=_NEVER),
    "simclr_cifar10": _Row(
        jitter=(0.4, 0.4, 0.4, 0.1), blur_prob=_NEVER, solarize_prob=_NEVER
    ),
    "augself": _Row(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.1),
        blur_prob=_HALF,
        solarize_prob=_NEVER,
    ),
    # As SER's authors released it, with two views and with local ones, and STL as they
    # fitted it.
    "ser": _Row(blur_taps=9, solarize_threshold=(0.0, 1.0), colour="kornia"),
    "ser_multicrop": _Row(
        gray_prob=(0.2, 0.2, 0.0),
        blur_taps=9,
        solarize_threshold=(0.0, 1.0),
        colour="kornia",
    ),
    "stl": _Row(
        crop_scale=(0.2, 1.0),
        blur_prob=_HALF,
        blur_taps=9,
        solarize_prob=_NEVER,
        colour="kornia",
    ),
    # Small gray pictures: colour says nothing, and their strokes are a pixel wide.
    "digits": _Row(
        crop_scale=(0.4, 1.0),
        local_crop_scale=(0.3, 1.0),
        jitter=(0.4, 0.4, 0.0, 0.0),
        gray_prob=_NEVER,
        blur_prob=_HALF,
        blur_taps=3,
        solarize_prob=_NEVER,
    ),
    "plain": _Row(
        crop_scale=(1.0, 1.0),
        local_crop_scale=(1.0, 1.0),
        jitter_prob=0.0,
        jitter=(0.0, 0.0, 0.0, 0.0),
        gray_prob=_NEVER,
        blur_prob=_NEVER,
        solarize_prob=_NEVER,
    ),
}


def recipe(name: str, photometry: Photometry, size_px: int) -> Recipe:
    """The recipe called `name` for one view.

    Args:
        name: "moco_v3", "barlow_twins", "byol", "dino", "dino_2view", "simclr",
            "simclr_cifar10", "augself", "ser", "ser_multicrop", "stl", "digits" or
            "plain" (only normalises).
        photometry: How the view is coloured: as the first or the second global view,
            "global/0" or "global/1"; as a "local" one; "unsolarized", as the second
            global one but for solarization; "plain", only normalised.
        size_px: Side of the view; sets the width of the blur kernel (23 taps at 224).

    Returns:
        The view's `Recipe`, with ImageNet's mean and std.

    Raises:
        ValueError: If the name or the photometry is unknown.

    Reference:
        Grill et al., Bootstrap your own latent, NeurIPS 2020, Table 6, and the recipes
        derived from it: MoCo v3, DINO, Barlow Twins, SER; Chen et al., A simple
        framework for contrastive learning, ICML 2020, Appendix A; Lee et al., Improving
        transferability via augmentation-aware self-supervision, NeurIPS 2021. Authors
        that blur with Pillow use its approximation; here every Gaussian is a kernel.
    """
    row = _row(name)
    if photometry == "plain":
        return Recipe()
    if photometry not in _COLUMNS:
        raise ValueError(
            f"a view's photometry is one of {', '.join(map(repr, _COLUMNS))} or "
            f"'plain'; got {photometry!r}."
        )
    column = _COLUMNS[photometry]
    solarizes = photometry != "unsolarized"
    brightness, contrast, saturation, hue = row.jitter
    return Recipe(
        jitter_prob=row.jitter_prob,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        gray_prob=row.gray_prob[column],
        blur_prob=row.blur_prob[column],
        blur_taps=row.blur_taps or max(3, size_px // 10 | 1),  # odd
        solarize_prob=row.solarize_prob[column] if solarizes else 0.0,
        solarize_threshold=row.solarize_threshold,
        colour=row.colour,
    )


def crop_scale(name: str, *, small: bool) -> Range:
    """The range of the area a random resized crop takes, as a share of the image.

    Args:
        name: Name of a recipe, as in `recipe`.
        small: Whether the crop is one of the small ones.

    Returns:
        (low, high), each in (0, 1]. (1, 1) asks for the whole image.

    Raises:
        ValueError: If the name is unknown.
    """
    row = _row(name)
    return row.local_crop_scale if small else row.crop_scale


def _row(name: str) -> _Row:
    if name not in _TABLE:
        close = difflib.get_close_matches(name, _TABLE, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"No augmentation recipe is called {name!r}.{hint} The recipes are "
            f"{', '.join(sorted(_TABLE))}."
        )
    return _TABLE[name]
