"""What acts on one parameter's norm: LARS in its two forms, and clipping."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from ser_jax.train.optim.parameters import each_parameter


def lars(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: optax.ScalarOrSchedule,
    mask: Callable[[Any], Any],
    momentum: float = 0.9,
    lars_form: str = "outer",
    trust_coefficient: float = 0.001,
) -> optax.GradientTransformation:
    """LARS: every parameter's step is proportional to the parameter's norm.

    With `d = g + weight_decay * p` and `t = trust_coefficient * |p| / |d|` (1 if either
    norm is zero), both forms agree while the learning rate is constant:

        outer:  m <- momentum * m + t * d       p <- p - lr * m
        inner:  m <- momentum * m + lr * t * d  p <- p - m

    Args:
        learning_rate: Constant or schedule by step.
        weight_decay: Coupled decay, constant or schedule by step.
        mask: Which parameters take decay *and* trust ratio, as a function from the
            parameters to a tree of bools. The others see plain momentum.
        momentum: Decay of the buffer, in [0, 1).
        lars_form: "outer" or "inner".
        trust_coefficient: Step over norm, before the learning rate.

    Returns:
        The optimizer.

    Raises:
        ValueError: If the form is neither.

    Reference:
        You et al. (arXiv 1708.03888). Outer: released MoCo v3, Barlow Twins, E-SSL and
        BYOL. Inner: released SimCLR and EquiMod, and `optax.lars`, which takes one norm
        over a stacked leaf.
    """
    if lars_form not in ("outer", "inner"):
        raise ValueError(f"lars_form must be 'outer' or 'inner', got {lars_form!r}.")
    trust_ratio = optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient)
    step = optax.scale_by_learning_rate(learning_rate)
    buffer = optax.trace(momentum)
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask),
        optax.masked(each_parameter(trust_ratio), mask),
        *((buffer, step) if lars_form == "outer" else (step, buffer)),
    )


def clip_each_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales down every parameter's gradient whose norm exceeds `max_norm`.

    Args:
        max_norm: Largest L2 norm of one parameter's gradient, > 0.

    Returns:
        `g -> g * min(1, max_norm / (|g| + 1e-6))`, without state. The rest of the
        gradient does not matter, unlike in clipping by the global norm.

    Raises:
        ValueError: If `max_norm` is not positive.

    Reference:
        DINO (arXiv 2104.14294), released `clip_gradients`.
    """
    if max_norm <= 0:
        raise ValueError(f"the largest gradient norm must be positive, got {max_norm}.")

    def clip(grad, _):
        return grad * jnp.minimum(1.0, max_norm / (jnp.linalg.norm(grad) + 1e-6))

    return each_parameter(optax.stateless(clip))
