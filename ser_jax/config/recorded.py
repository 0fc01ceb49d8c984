"""Configs that were recorded before there were all settings of today.

A run goes on, and is evaluated, as it was trained: a setting that its record lacks
takes what the version did that wrote it. Where that is not today's default, `_BEFORE`
has it; a setting whose default changes gets a line there.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from ser_jax.config.defaults import base_config
from ser_jax.config.normalization import DIGITS, IMAGENET
from ser_jax.storage.tables import flatten

Flat = Mapping[str, Any]  # "part.name" -> value


def _normalization(record: Flat) -> Any:
    """It belonged to the recipe: all had ImageNet's but that for digits."""
    return DIGITS if record.get("augment.recipe") == "digits" else IMAGENET


# Setting -> what was done where a record lacks it.
_BEFORE: Mapping[str, Callable[[Flat], Any]] = {
    "dataset.mean": lambda record: _normalization(record)[0],
    "dataset.std": lambda record: _normalization(record)[1],
    "augment.resample": lambda record: "cv2",
    "objective.joint_batch_norm": lambda record: False,
    "regularizer.joint_batch_norm": lambda record: False,
    "regularizer.crop": lambda record: "shared",
    "regularizer.invariance": lambda record: "joint",
    "regularizer.colour": lambda record: "own",
    "regularizer.pairs": lambda record: "mean",
}


def complete(record: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config with the settings that it lacks.

    Args:
        record: As a checkpoint keeps it; or a config that lacks nothing. Plain dicts.

    Returns:
        A copy as plain nested dicts. Settings that this version does not know are kept.

    Raises:
        ValueError: If there is no such objective or regularizer.
    """
    filled: dict[str, Any] = copy.deepcopy(dict(record))
    flat = flatten(filled, ".")
    names = [str(flat.get(f"{part}.name")) for part in ("objective", "regularizer")]
    if "None" in names:
        raise ValueError(
            "the recorded config names no objective or no regularizer: no version of "
            "ser_jax wrote it."
        )
    for path, default in flatten(base_config(*names).to_dict(), ".").items():
        if path in flat:
            continue
        *parts, name = path.split(".")
        place = filled
        for part in parts:
            place = place.setdefault(part, {})
        place[name] = _BEFORE[path](flat) if path in _BEFORE else default
    return filled


def unknown_settings(record: Mapping[str, Any]) -> list[str]:
    """Settings of a recorded config that this version does not know.

    Args:
        record: What `complete` gave.

    Returns:
        Their paths, "part.name".
    """
    names = (record[part]["name"] for part in ("objective", "regularizer"))
    known = flatten(base_config(*names).to_dict(), ".")
    return sorted(flatten(record, ".").keys() - known.keys())
