"""Settings of objectives and regularizers: by name, from a mapping, in range."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
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


def settings_of(registry: Mapping[str, type], kind: str, name: str) -> dict[str, Any]:
    """A class's settings with their defaults, under its registered name.

    Args:
        registry: `OBJECTIVES` or `REGULARIZERS`.
        kind: "objective" or "regularizer", for errors.
        name: Name in the registry.

    Returns:
        `name`, and the fields of the class.

    Raises:
        ValueError: If the name is not known.
    """
    if name not in registry:
        raise ValueError(
            f"{kind} {name!r} is not known{_closest(name, registry)}; there are: "
            f"{', '.join(sorted(registry))}."
        )
    fields = dataclasses.fields(registry[name])
    return {"name": name} | {f.name: f.default for f in fields}


def make_part(
    registry: Mapping[str, type], kind: str, settings: Mapping[str, Any]
) -> Any:
    """The objective or regularizer that a part of a config describes.

    Args:
        registry: `OBJECTIVES` or `REGULARIZERS`.
        kind: "objective" or "regularizer", for errors.
        settings: `name`, and settings of the class; a list stands for a tuple, as in a
            config that was kept as JSON.

    Returns:
        An instance.

    Raises:
        ValueError: If the name or a setting is not known, or a value is refused.
    """
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in settings.items()
    }
    name: Any = values.pop("name")
    known = settings_of(registry, kind, name)
    for key in values:
        if key not in known:
            raise ValueError(
                f"{kind} {name!r} has no setting {key!r}{_closest(key, known)}; it has "
                f"{', '.join(k for k in known if k != 'name')}."
            )
    return registry[name](**values)


def _closest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
