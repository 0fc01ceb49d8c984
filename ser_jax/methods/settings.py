"""Range checks that settings of objectives and regularizers share."""

from collections.abc import Sequence
from typing import Any


def check_settings(
    settings: Any,
    *,
    counts: Sequence[str] = (),
    non_negative: Sequence[str] = (),
    positive: Sequence[str] = (),
    fractions: Sequence[str] = (),
) -> None:
    """Refuses settings that are out of range.

    Args:
        settings: Dataclass of settings.
        counts: Names of those that must be at least 1.
        non_negative: Names of those that must be at least 0.
        positive: Names of those that must be above 0.
        fractions: Names of those that must lie in [0, 1].

    Raises:
        ValueError: If one is not; it says which, and what it may be.
    """
    rules = [
        (counts, lambda value: value >= 1, "at least 1"),
        (non_negative, lambda value: value >= 0, "at least 0"),
        (positive, lambda value: value > 0, "> 0"),
        (fractions, lambda value: 0 <= value <= 1, "in [0, 1]"),
    ]
    for names, allowed, meaning in rules:
        for name in names:
            value = getattr(settings, name)
            if not allowed(value):
                raise ValueError(
                    f"{type(settings).__name__}: {name} must be {meaning}, got {value}."
                )
