"""DINO's self-distillation: teacher probabilities, cross-entropy, center."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def teacher_temperature(
    epoch: jax.Array, *, start: float, final: float, warmup_epochs: int
) -> jax.Array:
    """The teacher's temperature: a linear warm-up by whole epochs, then constant.

    Args:
        epoch: Whole epochs done, `[]`, int32, >= 0.
        start: Temperature of epoch 0, if there is a warm-up.
        final: Temperature of epoch `warmup_epochs - 1` and after.
        warmup_epochs: Length of the warm-up; 0 for none.

    Returns:
        `[]`, float32.

    Reference:
        DINO (arXiv 2104.14294), Sec. 5.3 and released `DINOLoss`.
    """
    warmup = np.linspace(start, final, warmup_epochs)
    table = jnp.asarray([*warmup, final], dtype=jnp.float32)
    return table[jnp.minimum(epoch, warmup_epochs)]


def teacher_probs(
    logits: jax.Array, center: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """Centered and sharpened teacher distribution over the prototypes.

    Args:
        logits: Teacher's head output, `[b, k]`, any float dtype.
        center: Running mean of such outputs, `[1, k]`, float32.
        temperature: > 0; low values sharpen.

    Returns:
        `[b, k]`, float32, rows sum to 1. Constants: their gradient is stopped here.

    Reference:
        DINO (arXiv 2104.14294), Eq. 1 and Sec. 3.1.
    """
    # fp32: softmax
    centered = (logits.astype(jnp.float32) - center) / temperature
    return jax.lax.stop_gradient(jax.nn.softmax(centered, axis=-1))


def dino_cross_entropy(
    student: jax.Array, teacher: jax.Array, *, temperature: float
) -> jax.Array:
    """Cross-entropy of the student's distribution under the teacher's.

    Args:
        student: Student's head output, `[b, k]`, any float dtype.
        teacher: Teacher probabilities, `[b, k]`, float32, rows sum to 1.
        temperature: Student's softmax temperature, > 0.

    Returns:
        Loss per image, `[b]`, float32, in nats.

    Raises:
        ValueError: If the shapes are not both `[b, k]`.

    Reference:
        DINO (arXiv 2104.14294), Eq. 2.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must both be [b, k]; got "
            f"{student.shape} and {teacher.shape}."
        )
    # fp32: log-sum-exp. As the teacher's rows sum to 1 it need not be subtracted from
    # each logit: no [b, k] array of log-probabilities is made, and k is 65536.
    scaled = student.astype(jnp.float32) / temperature
    return jax.nn.logsumexp(scaled, axis=-1) - jnp.sum(teacher * scaled, axis=-1)


def update_center(
    center: jax.Array, teacher: Sequence[jax.Array], *, momentum: float
) -> jax.Array:
    """The center after a step: it moves towards the mean teacher output.

    Args:
        center: `[1, k]`, float32.
        teacher: The teacher's head outputs, `[b, k]` a view, the whole global batch.
        momentum: Share of the old center that stays, in [0, 1].

    Returns:
        `[1, k]`, float32. It counts from the next step on.

    Reference:
        DINO (arXiv 2104.14294), Eq. 4.
    """
    means = [jnp.mean(t.astype(jnp.float32), axis=0, keepdims=True) for t in teacher]
    batch_center = jax.lax.stop_gradient(sum(means[1:], means[0]) / len(means))
    return momentum * center + (1 - momentum) * batch_center
