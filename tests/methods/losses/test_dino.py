"""DINO's loss: the reference with its running center, and hand values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.finite_difference import gradients
from helpers.support import assert_close

from ser_jax.methods.losses.dino import (
    dino_cross_entropy,
    teacher_probs,
    teacher_temperature,
    update_center,
)


def loop_cross_entropy(student, teacher, temperature):
    """Mean of -sum P log softmax(s / temperature), entry by entry, in float64."""
    total = 0.0
    for s, p in zip(student, teacher, strict=True):
        normalizer = sum(np.exp(x / temperature) for x in s)
        for x, weight in zip(s, p, strict=True):
            total -= weight * np.log(np.exp(x / temperature) / normalizer)
    return total / len(student)


def case(seed=0, b=4, k=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(b, k)), rng.normal(size=(b, k)), rng.normal(size=(1, k))


def test_matches_an_explicit_loop_in_value_and_gradient():
    student, logits, center = case()
    probs = teacher_probs(logits, center, 0.3)
    expected_probs = np.exp((logits - center) / 0.3)
    expected_probs /= expected_probs.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probs, expected_probs, rtol=1e-5)

    def loss(student, logits):
        probs = teacher_probs(logits, center, 0.3)
        return dino_cross_entropy(student, probs, temperature=0.2).mean()

    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(student, logits)

    def expected(student):
        return loop_cross_entropy(student, expected_probs, 0.2)

    np.testing.assert_allclose(value, expected(student), rtol=1e-5)
    assert_close(grads[0], gradients(expected, student)[0])
    np.testing.assert_array_equal(grads[1], 0.0)  # the teacher is a constant


def test_the_center_moves_towards_the_mean_of_all_views():
    _, logits, center = case()
    views = [jnp.asarray(logits), jnp.asarray(2 * logits + 1)]
    expected = 0.7 * center + 0.3 * np.concatenate(views).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(
        update_center(center, views, momentum=0.7), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("warmup_epochs", [0, 1, 3])
def test_temperature_warms_up_with_inclusive_ends(warmup_epochs):
    schedule = functools.partial(
        teacher_temperature, start=0.1, final=0.5, warmup_epochs=warmup_epochs
    )
    temperatures = jax.jit(jax.vmap(schedule))(jnp.arange(5))
    expected = {0: [0.5] * 5, 1: [0.1] + [0.5] * 4, 3: [0.1, 0.3, 0.5, 0.5, 0.5]}
    np.testing.assert_allclose(temperatures, expected[warmup_epochs], rtol=1e-6)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"both be \[b, k\]"):
        dino_cross_entropy(jnp.zeros((3, 2)), jnp.zeros((2, 2)), temperature=0.1)


@pytest.mark.parity
def test_temperature_matches_the_reference(golden):
    data = golden("dino_loss_head")
    settings = data.settings["loss"]
    recorded = data["teacher_temp_schedule"]
    schedule = functools.partial(
        teacher_temperature,
        start=settings["warmup_teacher_temp"],
        final=settings["teacher_temp"],
        warmup_epochs=settings["warmup_teacher_temp_epochs"],
    )
    temperatures = jax.jit(jax.vmap(schedule))(jnp.arange(len(recorded)))
    np.testing.assert_allclose(temperatures, recorded, rtol=1e-6)
