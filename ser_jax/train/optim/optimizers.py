"""Optimizers by name, as optax gradient transformations."""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from ser_jax.train.optim.lars import clip_each_norm, lars
from ser_jax.train.optim.late import delayed, start_late
from ser_jax.train.optim.parameters import all_parameters, not_1d, only_1d

Mask = Callable[[Any], Any]

DECAY_MASKS: dict[str, Mask] = {"all": all_parameters, "no_1d": not_1d}


def make_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: optax.ScalarOrSchedule,
    decay_mask: str = "all",
    betas: tuple[float, float] | None = None,
    momentum: float | None = None,
    lars_form: str | None = None,
    clip_norm: float = 0.0,
    bias_lr_factor: float = 1.0,
    frozen: tuple[str, ...] = (),
    late: Mapping[str, int] | None = None,
) -> optax.GradientTransformation:
    """The optimizer of a run.

    Rules on ranks and norms see each block's parameters on their own, although the
    encoder stacks them.

    Args:
        name: "adamw" (decay decoupled, multiplied by the learning rate), "lars" or
            "sgd" (decay coupled, learning rate outside the momentum buffer).
        learning_rate: Constant or schedule by step.
        weight_decay: Constant or schedule by step.
        decay_mask: "all", or "no_1d": biases and norms do not decay (nor, in LARS, take
            a trust ratio).
        betas: AdamW only: decay of the first and the second moment; None: .9, .999.
        momentum: LARS and SGD only: decay of the buffer, in [0, 1); None: .9.
        lars_form: LARS only: "outer" or "inner", see `lars`; None: "outer".
        clip_norm: Largest L2 norm of one parameter's gradient; 0: no clipping.
        bias_lr_factor: Learning rate of 1-D parameters over that of the others.
        frozen: Parameters left as initialised (no update, no decay), each named by the
            start of its path, like "encoder/patch_embed".
        late: Steps before parameters, named likewise, start to learn.

    Returns:
        The optimizer. Its state holds arrays only.

    Raises:
        ValueError: If a setting is refused; at `init`, if a path is.

    Reference:
        MoCo v3 (arXiv 2104.02057), Sec. 4: AdamW, eps 1e-8, decay on all. DINO (arXiv
        2104.14294): "no_1d", `clip_norm`, last layer late. Barlow Twins (arXiv
        2103.03230): LARS, "no_1d", `bias_lr_factor` .0048 / .2. AugSelf, STL: SGD.
    """
    if name not in _OPTIMIZERS:
        raise ValueError(
            f"optimizer {name!r} is not known; there are: {', '.join(_OPTIMIZERS)}."
        )
    build, takes = _OPTIMIZERS[name]
    optional = {"betas": betas, "momentum": momentum, "lars_form": lars_form}
    own = {key: value for key, value in optional.items() if value is not None}
    for key in own.keys() - takes:
        raise ValueError(
            f"{name} has no {key}, only {' and '.join(takes)}; got {own[key]!r}. Leave "
            "it None."
        )
    if decay_mask not in DECAY_MASKS:
        raise ValueError(
            f"decay_mask must be {' or '.join(map(repr, DECAY_MASKS))}, got "
            f"{decay_mask!r}."
        )
    if bias_lr_factor <= 0:
        raise ValueError(
            f"bias_lr_factor must be positive, got {bias_lr_factor}; name parameters "
            "that shall not move in frozen."
        )

    def make(start: int) -> optax.GradientTransformation:
        rate, decay = (delayed(x, start) for x in (learning_rate, weight_decay))
        parts = [build(rate, decay, DECAY_MASKS[decay_mask], **own)]
        if clip_norm:
            parts.insert(0, clip_each_norm(clip_norm))
        if bias_lr_factor != 1:
            parts.append(optax.masked(optax.scale(bias_lr_factor), only_1d))
        return optax.chain(*parts)

    return start_late(make, frozen=frozen, late=late or {})


def _adamw(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: optax.ScalarOrSchedule,
    mask: Mask,
    betas: tuple[float, float] = (0.9, 0.999),
) -> optax.GradientTransformation:
    return optax.adamw(learning_rate, *betas, weight_decay=weight_decay, mask=mask)


def _sgd(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: optax.ScalarOrSchedule,
    mask: Mask,
    momentum: float = 0.9,
) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask),
        optax.sgd(learning_rate, momentum),
    )


# Builder, and the settings it takes beyond those that all do.
_OPTIMIZERS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "adamw": (_adamw, ("betas",)),
    "lars": (lars, ("momentum", "lars_form")),
    "sgd": (_sgd, ("momentum",)),
}
