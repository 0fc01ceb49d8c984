"""Rows gathered from the devices, and their gradient, which goes back to them."""

import jax
import numpy as np
import pytest

from ser_jax.models.placement import by_device, everywhere
from ser_jax.train.sharding import batch_sharded, make_mesh


@pytest.mark.parametrize("num_rows, width", [(None, 3), (11, 3), (3, 3), (11, 16)])
def test_gathered_rows_and_their_gradient(num_rows, width):
    mesh, rng = make_mesh(), np.random.default_rng(0)
    x = rng.normal(size=(16, width, 5)).astype(np.float32)
    weight = rng.normal(size=x[:num_rows].shape).astype(np.float32)

    def loss(x):
        gathered = everywhere(x, num_rows)
        return (gathered * weight).sum(), gathered

    with jax.set_mesh(mesh):
        rows = jax.device_put(x, batch_sharded(mesh))
        gradient, gathered = jax.jit(jax.grad(loss, has_aux=True))(rows)
    np.testing.assert_array_equal(gathered, x[:num_rows])
    np.testing.assert_array_equal(gradient[: len(weight)], weight)
    assert not np.any(gradient[len(weight) :])
    assert gathered.sharding.is_fully_replicated


def test_each_device_has_its_own_rows_and_weights_one_gradient():
    mesh, rng = make_mesh(), np.random.default_rng(0)
    x = rng.normal(size=(16, 3)).astype(np.float32)
    w = rng.normal(size=3).astype(np.float32)
    seen = []

    def own(w, x):
        seen.append(x.shape)
        return x * w[None]

    def loss(w, x):
        return (by_device(own, w, x) ** 2).sum()

    expected = jax.grad(loss)(w, x)
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.grad(loss))(w, jax.device_put(x, batch_sharded(mesh)))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    assert seen[0] == (16, 3) and seen[-1] == (16 // mesh.size, 3)
