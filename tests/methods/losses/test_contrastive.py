"""InfoNCE and NT-Xent: the reference, an explicit loop, hand values."""

import jax
import numpy as np
import pytest
from helpers.finite_difference import gradients
from helpers.support import assert_close

from ser_jax.methods.losses import contrastive

info_nce, nt_xent, symmetric_info_nce = (
    jax.jit(loss, static_argnames="temperature")
    for loss in (
        contrastive.info_nce,
        contrastive.nt_xent,
        contrastive.symmetric_info_nce,
    )
)


@pytest.mark.slow
@pytest.mark.parity
def test_matches_the_reference(golden):
    data = golden("moco_loss_heads")
    temperature = data.settings["temperature"]

    def loss(q, k):
        return info_nce(q, k, temperature=temperature)[0].mean()

    value, grad = jax.jit(jax.value_and_grad(loss))(
        data["contrastive/q"], data["contrastive/k"]
    )
    np.testing.assert_allclose(value, data["contrastive/loss"], rtol=1e-5)
    assert_close(grad, data["contrastive/grad_q"])

    def symmetric(q1, q2):
        return loss(q1, data["symmetric/k2"]) + loss(q2, data["symmetric/k1"])

    value, grads = jax.jit(jax.value_and_grad(symmetric, argnums=(0, 1)))(
        data["symmetric/q1"], data["symmetric/q2"]
    )
    np.testing.assert_allclose(value, data["symmetric/loss"], rtol=1e-5)
    assert_close(grads[0], data["symmetric/grad_q1"])
    assert_close(grads[1], data["symmetric/grad_q2"])


@pytest.mark.slow
def test_hand_value_and_accuracy():
    queries = np.array([[2.0, 0.0], [0.0, 3.0]])
    keys = np.array([[1.0, 0.0], [5.0, 0.0]])  # the second query prefers no key
    loss, correct = info_nce(queries, keys, temperature=0.5)
    first = 2 * 0.5 * np.log(2)  # both keys are equally close
    np.testing.assert_allclose(loss, [first, first], rtol=1e-6)
    np.testing.assert_array_equal(correct, [1.0, 0.0])


@pytest.mark.slow
def test_keys_take_no_gradient():
    x = np.random.default_rng(0).normal(size=(4, 3))
    grad = jax.jit(jax.grad(lambda k: info_nce(x, k, temperature=0.2)[0].sum()))(x + 1)
    np.testing.assert_array_equal(grad, 0.0)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"both be \[b, d\]"):
        info_nce(np.zeros((3, 2)), np.zeros((4, 2)), temperature=0.2)


def test_both_ways_are_added():
    first = np.random.default_rng(0).normal(size=(4, 3))
    second = first + [[0.0, 0.0, 1.0]]
    total, correct = symmetric_info_nce(first, second, temperature=0.2)
    ways = jax.device_get(
        [info_nce(q, k, temperature=0.2) for q, k in ((first, second), (second, first))]
    )
    np.testing.assert_allclose(total, ways[0][0] + ways[1][0], rtol=1e-6)
    np.testing.assert_allclose(correct, (ways[0][1] + ways[1][1]) / 2, rtol=1e-6)


def loop_reference(z_a, z_b, temperature):
    """Cross-entropy per anchor, anchor by anchor, in float64."""
    views = [z_a.astype(np.float64), z_b.astype(np.float64)]
    units = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in views]
    b = len(z_a)
    loss = np.zeros((2, b))
    for view in (0, 1):
        for i in range(b):
            anchor = units[view][i]
            total = sum(
                np.exp(anchor @ units[other][j] / temperature)
                for other in (0, 1)
                for j in range(b)
                if (other, j) != (view, i)
            )
            positive = np.exp(anchor @ units[1 - view][i] / temperature)
            loss[view, i] = -np.log(positive / total)
    return loss


def case(seed=0, b=4, d=3):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(b, d)).astype(np.float32) for _ in range(2))


def test_matches_an_explicit_loop_in_value_and_gradient():
    z_a, z_b = case()
    weights = np.array([[0.3, 1.0, 2.0, 0.5], [1.0, 0.2, 0.1, 3.0]])  # tell all apart

    def loss(z_a, z_b):
        per_anchor, _ = nt_xent(z_a, z_b, temperature=0.4)
        return (weights * per_anchor).sum(), per_anchor

    def expected(z_a, z_b):
        return (weights * loop_reference(z_a, z_b, 0.4)).sum()

    grads, per_anchor = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(z_a, z_b)
    np.testing.assert_allclose(per_anchor, loop_reference(z_a, z_b, 0.4), rtol=1e-5)
    for grad, reference in zip(grads, gradients(expected, z_a, z_b), strict=True):
        assert_close(grad, reference)


def test_accuracy_counts_both_views_as_rivals():
    z_a = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, -1.0]])
    z_b = np.array([[0.9, 0.4], [0.9, 0.5], [0.1, -1.0]])
    # a0's neighbour is a1 and a1's is a0 (the same view); b0's is b1, b1's is b0.
    _, correct = nt_xent(z_a, z_b, temperature=0.5)
    np.testing.assert_array_equal(correct, [[0, 0, 1], [0, 0, 1]])


def test_finite_at_zero_vectors_and_low_temperature():
    z_a, z_b = case()
    z_a[0] = 0.0
    value, grad = jax.jit(
        jax.value_and_grad(lambda z: nt_xent(z, z_b, temperature=1e-3)[0].sum())
    )(z_a)
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_nt_xent_refuses_bad_shapes():
    for shapes in (((3, 2), (4, 2)), ((1, 2), (1, 2))):
        with pytest.raises(ValueError, match="at least 2 images"):
            nt_xent(*(np.zeros(shape) for shape in shapes), temperature=0.5)
