"""What two configs differ in."""

from collections.abc import Sequence
from typing import Any

from ser_jax.storage import tables

# Settings that may change between a checkpoint and its continuation: they alter neither
# the weights nor the order of the data, or only where a run would have ended.
_FREE = (
    *("max_steps", "log_every_steps", "loader", "checkpoint", "knn", "divergence"),
    *("dataset.data_dir", "dataset.eval_split", "model.attention"),
    *("model.remat", "model.scan", "optimizer.accumulate_steps"),
)
# Settings that may differ between runs whose curves a seed alone tells apart.
CHANGE_NO_CURVE = (
    *("seed", "max_steps", "log_every_steps", "loader", "checkpoint", "divergence"),
    *("dataset.data_dir", "knn.every_epochs", "model.attention"),
    *("model.remat", "model.scan", "optimizer.accumulate_steps"),
)
_ABSENT = "(absent)"


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Settings that a checkpoint and a continuation must share but do not.

    Args:
        old: The checkpoint's config, as plain nested dicts.
        new: The present config, likewise.

    Returns:
        Lines "key: old -> new", sorted; empty if the run may go on.
    """
    changed = changed_settings(old, new, _FREE)
    return [f"{key}: {was!r} -> {now!r}" for key, (was, now) in changed.items()]


def changed_settings(
    old: dict[str, Any], new: dict[str, Any], free: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
    """Settings in which two configs differ.

    Args:
        old: A config, as plain nested dicts or flat.
        new: Another, likewise.
        free: Settings, and parts, that do not count.

    Returns:
        Key -> its value in each, "(absent)" where there is none; sorted.
    """
    flat_old, flat_new = flatten(old), flatten(new)
    return {
        key: (flat_old.get(key, _ABSENT), flat_new.get(key, _ABSENT))
        for key in sorted(flat_old.keys() | flat_new.keys())
        if flat_old.get(key) != flat_new.get(key) and not is_among(key, free)
    }


def is_among(key: str, names: Sequence[str]) -> bool:
    """Whether a setting is one of these, or in a part that is.

    Args:
        key: "part.name".
        names: Settings and parts.
    """
    return any(key == name or key.startswith(f"{name}.") for name in names)


def flatten(tree: dict[str, Any]) -> dict[str, Any]:
    """A config with its parts' names joined by dots.

    Args:
        tree: A config as plain nested dicts.

    Returns:
        "part.name" -> value; tuples become lists, as in JSON.
    """
    flat = tables.flatten(tree, ".")
    return {k: list(v) if isinstance(v, tuple) else v for k, v in flat.items()}
