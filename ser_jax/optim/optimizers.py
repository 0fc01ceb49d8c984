"""Optimizers, as optax gradient transformations."""

from typing import Any

import jax
import optax


def adamw(
    learning_rate: optax.Schedule,
    *,
    weight_decay: float,
    b1: float = 0.9,
    b2: float = 0.999,
    frozen: tuple[str, ...] = (),
) -> optax.GradientTransformation:
    """AdamW with decay on every trained parameter, as MoCo v3 trains ViTs.

    Args:
        learning_rate: Schedule by step.
        weight_decay: Decoupled decay, multiplied by the learning rate.
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        frozen: Parameters left as initialised (no update, no decay), each named by the
            start of its path, like "encoder/patch_embed".

    Returns:
        The optimizer.

    Raises:
        ValueError: At `init`, if a frozen path names no parameter.

    Reference:
        MoCo v3 (arXiv 2104.02057), Sec. 4; eps 1e-8.
    """
    trained = optax.adamw(learning_rate, b1=b1, b2=b2, weight_decay=weight_decay)
    if not frozen:
        return trained
    return optax.partition(
        {"trained": trained, "frozen": optax.set_to_zero()},
        lambda params: _labels(params, frozen),
    )


def _labels(params: Any, frozen: tuple[str, ...]) -> Any:
    """Which part of the partition each parameter belongs to."""
    found = set()

    def label(path, _):
        name = "/".join(key.key for key in path)
        prefixes = [p for p in frozen if name == p or name.startswith(f"{p}/")]
        found.update(prefixes)
        return "frozen" if prefixes else "trained"

    labels = jax.tree_util.tree_map_with_path(label, params)
    if missing := set(frozen) - found:
        raise ValueError(
            f"frozen paths {sorted(missing)} name no parameter; top-level paths are "
            f"{sorted(f'{a}/{b}' for a in params for b in params[a])}."
        )
    return labels
