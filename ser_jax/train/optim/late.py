"""Parameters that start to learn late, or never."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from ser_jax.train.optim.parameters import is_below, parameter_name


def delayed(value: optax.ScalarOrSchedule, steps: int) -> optax.ScalarOrSchedule:
    """A schedule as seen by a counter that starts `steps` later.

    Args:
        value: Schedule by step of the run, or a constant.
        steps: Where the counter starts.

    Returns:
        Schedule by that counter, or the constant.
    """
    if not callable(value):
        return value
    return lambda count: value(count + steps)


def start_late(
    make: Callable[[int], optax.GradientTransformation],
    *,
    frozen: tuple[str, ...],
    late: Mapping[str, int],
) -> optax.GradientTransformation:
    """Lets some parameters start to learn late and some never.

    Until its start a parameter is as in PyTorch with `grad = None`: neither it nor its
    moments nor their step count change.

    Args:
        make: Gives the optimizer of the parameters that start after so many steps; its
            counters begin there.
        frozen: Parameters that stay as initialised, each named by its path or the start
            of it, like "encoder/patch_embed".
        late: Steps before each path starts to learn, >= 0.

    Returns:
        The optimizer of all parameters.

    Raises:
        ValueError: If a number of steps is negative; at `init`, if a path names no
            parameter or two name the same one.
    """
    if any(start < 0 for start in late.values()):
        raise ValueError(f"late must hold numbers of steps >= 0, got {dict(late)}.")
    if not frozen and not late:
        return make(0)
    parts = {
        _label(start): optax.conditionally_mask(
            make(start), lambda step, start=start: step >= start
        )
        for start in late.values()
    }
    parts |= {_label(0): make(0), "frozen": optax.set_to_zero()}
    return optax.partition(parts, lambda params: _labels(params, frozen, late))


def _label(start: int) -> str:
    return f"from_step_{start}"


def _labels(params: Any, frozen: tuple[str, ...], late: Mapping[str, int]) -> Any:
    """Label of every parameter."""
    found = set()

    def label(path, _):
        name = parameter_name(path)
        prefixes = [prefix for prefix in (*frozen, *late) if is_below(name, prefix)]
        if len(prefixes) > 1:
            raise ValueError(
                f"{name} is named by {prefixes}, among the frozen and late paths; name "
                "every parameter once."
            )
        found.update(prefixes)
        if any(prefix in frozen for prefix in prefixes):
            return "frozen"
        return _label(late[prefixes[0]] if prefixes else 0)

    labels = jax.tree_util.tree_map_with_path(label, params)
    if missing := {*frozen, *late} - found:
        raise ValueError(
            f"frozen or late paths {sorted(missing)} name no parameter; top-level "
            f"paths are {sorted(f'{a}/{b}' for a in params for b in params[a])}."
        )
    return labels
