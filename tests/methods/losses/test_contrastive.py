"""InfoNCE of MoCo v3: the reference, and hand values."""

import jax
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.methods.losses.contrastive import info_nce, symmetric_info_nce


@pytest.mark.parity
def test_matches_the_reference(golden):
    data = golden("moco_loss_heads")
    temperature = data.settings["temperature"]

    def loss(q, k):
        return info_nce(q, k, temperature=temperature)[0].mean()

    value, grad = jax.value_and_grad(loss)(data["contrastive/q"], data["contrastive/k"])
    np.testing.assert_allclose(value, data["contrastive/loss"], rtol=1e-5)
    assert_close(grad, data["contrastive/grad_q"])

    def symmetric(q1, q2):
        return loss(q1, data["symmetric/k2"]) + loss(q2, data["symmetric/k1"])

    value, grads = jax.value_and_grad(symmetric, argnums=(0, 1))(
        data["symmetric/q1"], data["symmetric/q2"]
    )
    np.testing.assert_allclose(value, data["symmetric/loss"], rtol=1e-5)
    assert_close(grads[0], data["symmetric/grad_q1"])
    assert_close(grads[1], data["symmetric/grad_q2"])


def test_hand_value_and_accuracy():
    queries = np.array([[2.0, 0.0], [0.0, 3.0]])
    keys = np.array([[1.0, 0.0], [5.0, 0.0]])  # the second query prefers no key
    loss, correct = info_nce(queries, keys, temperature=0.5)
    first = 2 * 0.5 * np.log(2)  # both keys are equally close
    np.testing.assert_allclose(loss, [first, first], rtol=1e-6)
    np.testing.assert_array_equal(correct, [1.0, 0.0])


def test_keys_take_no_gradient():
    x = np.random.default_rng(0).normal(size=(4, 3))
    grad = jax.grad(lambda k: info_nce(x, k, temperature=0.2)[0].sum())(x + 1)
    np.testing.assert_array_equal(grad, 0.0)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"both be \[b, d\]"):
        info_nce(np.zeros((3, 2)), np.zeros((4, 2)), temperature=0.2)


def test_both_ways_are_added():
    first = np.random.default_rng(0).normal(size=(4, 3))
    second = first + [[0.0, 0.0, 1.0]]
    total, correct = symmetric_info_nce(first, second, temperature=0.2)
    ways = [
        info_nce(q, k, temperature=0.2) for q, k in ((first, second), (second, first))
    ]
    np.testing.assert_allclose(total, ways[0][0] + ways[1][0], rtol=1e-6)
    np.testing.assert_allclose(correct, (ways[0][1] + ways[1][1]) / 2, rtol=1e-6)
