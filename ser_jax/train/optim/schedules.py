"""Schedules: pure functions of the step, for learning rates, decays and weights.

Steps may be traced.
"""

import jax
import jax.numpy as jnp
import optax


def warmup_cosine(
    peak: float,
    *,
    warmup_steps: int,
    total_steps: int,
    start: float = 0.0,
    end: float = 0.0,
    inclusive: bool = False,
) -> optax.Schedule:
    """Linear warm-up from `start` to `peak`, then half a cosine to `end`.

    Args:
        peak: Value after the warm-up; may lie below `end` (DINO's weight decay).
        warmup_steps: Steps of the warm-up, < `total_steps`; 0: none.
        total_steps: Steps of the run.
        start: Value at step 0, if there is a warm-up.
        end: Value at `total_steps`.
        inclusive: Whether the warm-up's last step, `warmup_steps - 1`, is already at
            the peak, as in DINO, so that the first two steps at the peak are equal.
            Otherwise step `warmup_steps` is the first there, as in MoCo v3 and Barlow
            Twins.

    Returns:
        Schedule: step `[]` -> value `[]`, float32; `end` past the end.

    Raises:
        ValueError: If the warm-up does not end before the run does.

    Reference:
        MoCo v3 (arXiv 2104.02057), Sec. 4, and Barlow Twins (arXiv 2103.03230), Sec.
        2.2, with end = peak / 1000; DINO (arXiv 2104.14294), released
        `cosine_scheduler`. All per step.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps must be in 0..total_steps - 1; got {warmup_steps} of "
            f"{total_steps}. Shorten the warm-up or train longer."
        )
    rise_steps = max(warmup_steps - inclusive, 1)

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        rising = start + (peak - start) * step / rise_steps
        done = (step - warmup_steps) / (total_steps - warmup_steps)
        return jnp.where(step < warmup_steps, rising, _half_cosine(peak, end, done))

    return schedule


def cosine_momentum(base: float, *, total_steps: int) -> optax.Schedule:
    """EMA momentum rising from `base` to 1 along half a cosine.

    Args:
        base: Momentum at step 0, in [0, 1].
        total_steps: Steps of the run.

    Returns:
        Schedule: step `[]` -> momentum `[]`, float32.

    Reference:
        BYOL (arXiv 2006.07733), Sec. 3.2; MoCo v3 with its momentum cosine; DINO.
    """
    return warmup_cosine(base, warmup_steps=0, total_steps=total_steps, end=1.0)


def equiv_factor(
    start: float,
    end: float,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    rest_steps: int = 0,
) -> optax.Schedule:
    """Share or weight of the equivariance term over the run.

    Half a cosine from `start` to `end` between two parts that are zero. It covers the
    release's kinds: constant (start = end), ascend (start < end), descend (start > end)
    and the cosine of its lambda (start = 0).

    Args:
        start: Value at step `warmup_steps`.
        end: Value approached until step `total_steps - rest_steps`.
        total_steps: Steps of the run.
        warmup_steps: Steps at the beginning that are zero.
        rest_steps: Steps at the end that are zero.

    Returns:
        Schedule: step `[]` -> value `[]`, float32.

    Raises:
        ValueError: If nothing is left between warm-up and rest.

    Reference:
        SER (arXiv 2603.06693), released schedules of its ratio and lambda.
    """
    active_steps = total_steps - warmup_steps - rest_steps
    if min(warmup_steps, rest_steps) < 0 or active_steps <= 0:
        raise ValueError(
            "warmup_steps and rest_steps must be at least 0 and leave part of the run; "
            f"got {warmup_steps} and {rest_steps} of {total_steps}."
        )

    def schedule(step):
        done = (jnp.asarray(step, jnp.float32) - warmup_steps) / active_steps
        active = (done >= 0) & (done < 1)
        return jnp.where(active, _half_cosine(start, end, done), 0.0)

    return schedule


def _half_cosine(start: float, end: float, done: jax.Array) -> jax.Array:
    """From `start` at `done` 0 to `end` at 1 and thereafter."""
    done = jnp.minimum(done, 1.0)
    return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * done))
