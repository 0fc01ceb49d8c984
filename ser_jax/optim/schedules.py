"""Schedules by optimizer step."""

import jax.numpy as jnp
import optax


def warmup_cosine(
    peak: float, *, warmup_steps: int, total_steps: int, end: float = 0.0
) -> optax.Schedule:
    """Linear warm-up from 0, then half a cosine down to `end`.

    Args:
        peak: Value after the warm-up.
        warmup_steps: Steps of the warm-up, < `total_steps`.
        total_steps: Steps of the run.
        end: Value at `total_steps`.

    Returns:
        Schedule: step `[]` -> value `[]`, float32.

    Raises:
        ValueError: If the warm-up does not end before the run does.

    Reference:
        MoCo v3 (arXiv 2104.02057), Sec. 4; per step, not per epoch.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps must be in 0..total_steps - 1; got {warmup_steps} of "
            f"{total_steps}. Shorten the warm-up or train longer."
        )

    def schedule(step):
        step = jnp.minimum(jnp.asarray(step, jnp.float32), total_steps)
        rising = peak * step / max(warmup_steps, 1)
        done = (step - warmup_steps) / (total_steps - warmup_steps)
        falling = end + (peak - end) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return jnp.where(step < warmup_steps, rising, falling)

    return schedule


def cosine_momentum(base: float, *, total_steps: int) -> optax.Schedule:
    """EMA momentum rising from `base` to 1 along half a cosine.

    Args:
        base: Momentum at step 0, in [0, 1].
        total_steps: Steps of the run.

    Returns:
        Schedule: step `[]` -> momentum `[]`, float32.

    Reference:
        BYOL (arXiv 2006.07733), Sec. 3.2; MoCo v3 with its momentum cosine.
    """

    def schedule(step):
        done = jnp.minimum(jnp.asarray(step, jnp.float32), total_steps) / total_steps
        return 1 - (1 - base) * 0.5 * (1 + jnp.cos(jnp.pi * done))

    return schedule
