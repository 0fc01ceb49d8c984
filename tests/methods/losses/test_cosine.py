"""BYOL's regression: an explicit loop in value and gradient."""

import jax
import numpy as np
import pytest
from helpers.finite_difference import gradients
from helpers.support import assert_close

from ser_jax.methods.losses.cosine import cosine_regression


def loop_reference(predictions, targets):
    loss = 0.0
    for p, t in zip(predictions, targets, strict=True):
        p, t = p / np.sqrt(sum(p**2)), t / np.sqrt(sum(t**2))
        loss += sum((p - t) ** 2)
    return loss / len(predictions)


def test_matches_an_explicit_loop_in_value_and_gradient():
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(2, 4, 3)).astype(np.float32)

    def loss(p, t):
        return cosine_regression(p, t).mean()

    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(p, t)
    np.testing.assert_allclose(value, loop_reference(p, t), rtol=1e-5)
    assert_close(grads[0], gradients(lambda p: loop_reference(p, t), p)[0])
    np.testing.assert_array_equal(grads[1], 0.0)  # targets are constants


def test_is_two_minus_two_cosines():
    p = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    t = np.array([[5.0, 0.0], [0.0, -1.0], [0.0, 4.0]])
    np.testing.assert_allclose(
        jax.jit(cosine_regression)(p, t), [0.0, 4.0, 2.0], atol=1e-6
    )


def test_finite_at_zero_vectors():
    zeros = np.zeros((2, 3))
    grad = jax.jit(jax.grad(lambda p: cosine_regression(p, zeros + 1).sum()))(zeros)
    assert np.isfinite(grad).all()


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"both be \[b, d\]"):
        cosine_regression(np.zeros((3, 2)), np.zeros((4, 2)))
