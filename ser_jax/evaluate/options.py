"""What a task can be told: fields of a dataclass, each of which becomes a flag."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    lower_bound: float | None = None,
) -> Any:
    """A field of a task's options; its annotation says what it holds.

    One of `str`, `int`, `float`, `bool`, each of them or None, and `tuple[str, ...]`.

    Args:
        default: What it is if nothing is said.
        help: What `--help` says of its flag.
        choices: All that it may be, if that is not anything.
        lower_bound: The least that it may be.

    Returns:
        The field.
    """
    metadata = {"help": help, "choices": tuple(choices), "lower_bound": lower_bound}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Of a task that can be told nothing."""


def declared(kinds: Iterable[type]) -> dict[str, dataclasses.Field[Any]]:
    """Every option of several tasks.

    Args:
        kinds: Their options' dataclasses. Two that share an option inherit it.

    Returns:
        Name -> field.

    Raises:
        ValueError: If two declare one of the same name on their own.
    """
    found: dict[str, dataclasses.Field[Any]] = {}
    for kind in kinds:
        for field in dataclasses.fields(kind):
            if found.setdefault(field.name, field) is not field:
                raise ValueError(
                    f"{kind.__name__} declares an option {field.name!r} of its own, "
                    "but another task has one of that name. Rename it, or inherit "
                    "both from one dataclass."
                )
    return found


def check_options(
    given: Mapping[str, Any], known: Mapping[str, dataclasses.Field[Any]]
) -> None:
    """Refuses options that there are not, and values that they do not take.

    Args:
        given: Name -> value.
        known: From `declared`.

    Raises:
        ValueError: If one is refused.
    """
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"no task has an option {name!r}; there are: {', '.join(known)}."
            )
        choices, least = (known[name].metadata[x] for x in ("choices", "lower_bound"))
        if choices and value not in choices:
            raise ValueError(
                f"{name} must be one of {', '.join(choices)}; got {value!r}."
            )
        if None not in (least, value) and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def options_of(kind: type, given: Mapping[str, Any]) -> Any:
    """A task's own options.

    Args:
        kind: Their dataclass.
        given: Options of all tasks, name -> value; what is not given is as usual.

    Returns:
        The dataclass.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: given[name] for name in names if name in given})
