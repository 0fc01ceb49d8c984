"""Rows gathered from the devices, and their gradient, which goes back to them."""

import jax
import numpy as np
import pytest

from ser_jax.models.placement import by_device, everywhere
from ser_jax.train.sharding import batch_sharded, make_mesh


@pytest.mark.parametrize(
    "rows, width", [(None, 3), ((0, 3, 4, 15), 3), ((9,), 3), (tuple(range(11)), 16)]
)
def test_gathered_rows_and_their_gradient(rows, width):
    mesh, rng = make_mesh(), np.random.default_rng(0)
    x = rng.normal(size=(16, width, 5)).astype(np.float32)
    chosen = np.arange(16) if rows is None else np.array(rows)
    weight = rng.normal(size=x[chosen].shape).astype(np.float32)

    def loss(x):
        gathered = everywhere(x, rows)
        return (gathered * weight).sum(), gathered

    with jax.set_mesh(mesh):
        placed = jax.device_put(x, batch_sharded(mesh))
        gradient, gathered = jax.jit(jax.grad(loss, has_aux=True))(placed)
    np.testing.assert_array_equal(gathered, x[chosen])
    np.testing.assert_array_equal(np.asarray(gradient)[chosen], weight)
    assert np.count_nonzero(gradient) == weight.size
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
