"""What two configs differ in."""

from typing import Any

from ser_jax.storage import tables

# Settings that may change between a checkpoint and its continuation: they alter neither
# the weights nor the order of the data, or only where a run would have ended.
_FREE = (
    *("max_steps", "log_every_steps", "loader", "checkpoint", "knn", "divergence"),
    *("dataset.data_dir", "dataset.eval_split", "model.attention"),
    *("model.remat", "model.scan", "optimizer.accumulate_steps"),
)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Settings that a checkpoint and a continuation must share but do not.

    Args:
        old: The checkpoint's config, as plain nested dicts.
        new: The present config, likewise.

    Returns:
        Lines "key: old -> new", sorted; empty if the run may go on.
    """
    flat_old, flat_new = flatten(old), flatten(new)
    return [
        f"{key}: {flat_old.get(key, '(absent)')!r} -> {flat_new.get(key, '(absent)')!r}"
        for key in sorted(flat_old.keys() | flat_new.keys())
        if flat_old.get(key) != flat_new.get(key)
        and not any(key == f or key.startswith(f"{f}.") for f in _FREE)
    ]


def flatten(tree: dict[str, Any]) -> dict[str, Any]:
    """A config with its parts' names joined by dots.

    Args:
        tree: A config as plain nested dicts.

    Returns:
        "part.name" -> value; tuples become lists, as in JSON.
    """
    flat = tables.flatten(tree, ".")
    return {k: list(v) if isinstance(v, tuple) else v for k, v in flat.items()}
