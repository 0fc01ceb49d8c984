"""Named photometric recipes: what is drawn for each view, and from which range.

No JAX here: the host reads `crop_scale` from the same table, in its worker processes.
"""

import dataclasses
import difflib
from typing import Literal

from ser_jax.views.recipe import Range, Recipe


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line of the table; triples are (global/0, global/1, every local)."""

    crop_scale: Range = (0.08, 1.0)
    local_crop_scale: Range = (0.05, 0.25)
    jitter_prob: float = 0.8
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    gray_prob: float = 0.2
    blur_prob: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_taps: int | None = None  # None: a tenth of the image
    solarize_prob: tuple[float, float, float] = (0.0, 0.2, 0.0)
    solarize_threshold: Range = (0.5, 0.5)
    colour: Literal["torchvision", "kornia"] = "torchvision"
    mean: tuple[float, float, float] = Recipe.mean
    std: tuple[float, float, float] = Recipe.std


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
    # As SER's authors released it.
    "ser": _Row(blur_taps=9, solarize_threshold=(0.0, 1.0), colour="kornia"),
    # Small gray pictures: colour says nothing, and their strokes are a pixel wide.
    "digits": _Row(
        crop_scale=(0.4, 1.0),
        local_crop_scale=(0.3, 1.0),
        jitter=(0.4, 0.4, 0.0, 0.0),
        gray_prob=0.0,
        blur_prob=_HALF,
        blur_taps=3,
        solarize_prob=_NEVER,
        mean=(0.305, 0.305, 0.305),
        std=(0.376, 0.376, 0.376),
    ),
    "plain": _Row(
        crop_scale=(1.0, 1.0),
        local_crop_scale=(1.0, 1.0),
        jitter_prob=0.0,
        jitter=(0.0, 0.0, 0.0, 0.0),
        gray_prob=0.0,
        blur_prob=_NEVER,
        solarize_prob=_NEVER,
    ),
}


def recipe(name: str, view: str, size_px: int) -> Recipe:
    """The recipe called `name` for one view.

    Args:
        name: "moco_v3", "barlow_twins", "byol", "dino", "dino_2view", "simclr",
            "simclr_cifar10", "augself", "ser", "digits" or "plain" (only normalises).
        view: "global/0", "global/1" or "local/<i>"; "rot/<i>" (as global/1, without
            solarization: SER's E-SSL); "plain" (only normalised, whatever the recipe).
        size_px: Side of the view; sets the width of the blur kernel (23 taps at 224).

    Returns:
        The view's `Recipe`.

    Raises:
        ValueError: If the name or the view is unknown.

    Reference:
        Grill et al., Bootstrap your own latent, NeurIPS 2020, Table 6, and the recipes
        derived from it: MoCo v3, DINO, Barlow Twins, SER; Chen et al., A simple
        framework for contrastive learning, ICML 2020, Appendix A; Lee et al., Improving
        transferability via augmentation-aware self-supervision, NeurIPS 2021. Authors
        that blur with Pillow use its approximation; here every Gaussian is a kernel.
    """
    row, column = _row(name), _column(view)
    if view == "plain":
        return Recipe(mean=row.mean, std=row.std)
    brightness, contrast, saturation, hue = row.jitter
    return Recipe(
        jitter_prob=row.jitter_prob,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        gray_prob=row.gray_prob,
        blur_prob=row.blur_prob[column],
        blur_taps=row.blur_taps or max(3, size_px // 10 | 1),  # odd
        solarize_prob=0.0 if view.startswith("rot/") else row.solarize_prob[column],
        solarize_threshold=row.solarize_threshold,
        colour=row.colour,
        mean=row.mean,
        std=row.std,
    )


def crop_scale(name: str, view: str) -> Range:
    """The range of the area a random resized crop takes, as a share of the image.

    Args:
        name: Name of a recipe, as in `recipe`.
        view: Name of the view, as in `recipe`.

    Returns:
        (low, high), each in (0, 1]. (1, 1) asks for the whole image.

    Raises:
        ValueError: If the name or the view is unknown.
    """
    row = _row(name)
    small = _column(view) == 2 or view.startswith("rot/")
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


def _column(view: str) -> int:
    kind, _, index = view.partition("/")
    if view in ("global/0", "global/1"):
        return int(index)
    if kind in ("local", "rot") and index.isdecimal():
        return 2 if kind == "local" else 1
    if view == "plain":
        return 0
    raise ValueError(
        "view must be 'global/0', 'global/1', 'plain', 'local/<i>' such as 'local/0', "
        f"or 'rot/<i>'; got {view!r}."
    )
