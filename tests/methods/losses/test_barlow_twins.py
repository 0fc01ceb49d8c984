"""Barlow Twins' loss: the reference, an explicit loop, what it does not see."""

import functools

import jax
import numpy as np
import pytest
from helpers.finite_difference import gradients
from helpers.interop_torch import batch_norm_mlp
from helpers.support import assert_close

from ser_jax.methods.losses.barlow_twins import cross_correlation, redundancy_reduction
from ser_jax.models.heads import BatchNormMlp


@jax.jit
def barlow_twins(z_a, z_b, weight):
    return redundancy_reduction(cross_correlation(z_a, z_b), off_diagonal_weight=weight)


value_and_grads = jax.jit(jax.value_and_grad(barlow_twins, argnums=(0, 1)))


def loop_reference(z_a, z_b, weight):
    b, d = z_a.shape
    loss = 0.0
    for i in range(d):
        for j in range(d):
            x, y = z_a[:, i], z_b[:, j]
            x = (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)
            y = (y - y.mean()) / np.sqrt(((y - y.mean()) ** 2).mean() + 1e-5)
            c = sum(x[n] * y[n] for n in range(b)) / b
            loss += (c - 1) ** 2 if i == j else weight * c**2
    return loss


def case(seed=0, b=5, d=3):
    rng = np.random.default_rng(seed)
    z_a = rng.normal(size=(b, d)).astype(np.float32)
    return z_a, z_a + rng.normal(size=(b, d)).astype(np.float32)


def test_matches_an_explicit_loop_in_value_and_gradient():
    z_a, z_b = case()
    value, grads = value_and_grads(z_a, z_b, 0.1)
    np.testing.assert_allclose(value, loop_reference(z_a, z_b, 0.1), rtol=1e-5)
    expected = gradients(lambda a, b: loop_reference(a, b, 0.1), z_a, z_b)
    for grad, reference in zip(grads, expected, strict=True):
        assert_close(grad, reference)


def test_scale_and_shift_of_a_dimension_do_not_matter():
    z_a, z_b = case()
    scale, shift = np.array([[1.0, 2.0, 5.0]]), np.array([[3.0, -1.0, 0.0]])
    assert_close(
        barlow_twins(z_a, z_b * scale + shift, 0.1), barlow_twins(z_a, z_b, 0.1)
    )


def test_views_that_agree_are_better_than_shuffled_ones():
    z_a, z_b = case(b=16)
    assert barlow_twins(z_a, z_b, 0.1) < barlow_twins(z_a, np.roll(z_b, 1, 0), 0.1)


def test_finite_where_a_dimension_is_constant():
    z_a, z_b = case()
    z_a[:, 0] = 2.0
    value, grads = value_and_grads(z_a, z_b, 0.1)
    assert np.isfinite(value) and np.isfinite(grads).all()


def test_bad_shapes_are_refused():
    for shapes in (((3, 2), (4, 2)), ((1, 2), (1, 2))):
        with pytest.raises(ValueError, match="at least 2 images"):
            cross_correlation(*(np.zeros(shape) for shape in shapes))


@pytest.mark.parity
def test_loss_matches_the_reference(golden):
    data = golden("barlow_twins")
    weight = data.settings["lambd"]
    z_a, z_b = data["loss_only/z1"], data["loss_only/z2"]
    assert_close(
        cross_correlation(z_a, z_b, data.settings["bn"]["eps"]),
        data["loss_only/cross_correlation"],
    )
    value, grads = value_and_grads(z_a, z_b, weight)
    np.testing.assert_allclose(value, data["loss_only/loss"], rtol=1e-5)
    assert_close(grads[0], data["loss_only/grad_z1"])
    assert_close(grads[1], data["loss_only/grad_z2"])


@pytest.mark.parity
def test_loss_through_the_projector_matches_the_reference(golden):
    data = golden("barlow_twins")
    params, _ = batch_norm_mlp(data.group("sd/projector."))
    widths = [int(width) for width in data.settings["projector"].split("-")]
    projector = BatchNormMlp(
        max(widths[:-1]), widths[-1], len(widths), last_batch_norm=False
    )

    def project(params, y):
        variables = {"params": params, "batch_stats": stats}
        return projector.apply(variables, y, train=True, mutable="batch_stats")[0]

    def loss(params, y_a, y_b):
        z_a, z_b = project(params, y_a), project(params, y_b)
        return barlow_twins(z_a, z_b, data.settings["lambd"])

    # The recorded hidden layers differ in width: units of weight zero fill ours up.
    ours = jax.jit(functools.partial(projector.init, train=True))(
        jax.random.key(0), data["full/y1"]
    )
    stats = ours["batch_stats"]
    params = jax.tree.map(
        lambda x, full: np.pad(
            x, [(0, m - n) for n, m in zip(x.shape, full.shape, strict=True)]
        ),
        params,
        ours["params"],
    )
    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(
        params, data["full/y1"], data["full/y2"]
    )
    np.testing.assert_allclose(value, data["full/loss"], rtol=1e-5)
    assert_close(grads[1], data["full/grad_y1"])
    assert_close(grads[2], data["full/grad_y2"])
    recorded, _ = batch_norm_mlp(data.group("grad/projector."))
    jax.tree.map(
        lambda grad, r: assert_close(grad[tuple(slice(n) for n in r.shape)], r),
        grads[0],
        recorded,
    )
