"""Every layer's grid, read through a norm of its own or a plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.evaluate.features.layers import every_layer, layer_encoder, whole_batches
from ser_jax.models.vit import ViT


@pytest.fixture(scope="module")
def trained():
    """A ViT with a norm at layer 2, not the one it was made with; its pictures."""
    vit = ViT(16, 3, 2, 4, 16, grid_layers=(2,))
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    variables = jax.jit(vit.init)(jax.random.key(0), images)
    params = dict(variables["params"])
    params["norm_grid_2"] = jax.tree.map(lambda x: x + 2.0, params["norm_grid_2"])
    return vit, {"params": params}, images


@pytest.mark.slow
def test_norms_are_the_trained_ones_or_plain(trained):
    """Red if the trained norm is overwritten, or a plain one has a scale of zero."""
    vit, variables, images = trained
    encode = every_layer(vit, variables)
    assert encode.layers == (1, 2, 3) and encode.patch_size == 4
    out, own = encode(images), jax.jit(vit.apply)(variables, images)
    assert_close(out.grids[2].tokens, own.grids[2].tokens)
    assert_close(out.cls, own.cls)
    assert_close(out.grids[3].tokens, own.tokens)
    tokens = np.asarray(out.grids[1].tokens)
    assert_close(tokens.mean(-1), np.zeros((3, 16)))
    assert_close(tokens.var(-1), np.ones((3, 16)), 1e-3)


def test_some_layers(trained):
    vit, variables, images = trained
    encode, filled = layer_encoder(vit, variables, (1,))
    out = jax.jit(encode)(filled, images)
    assert out.grids.keys() == {1}
    assert_close(
        out.grids[1].tokens, every_layer(vit, variables)(images).grids[1].tokens
    )


@pytest.mark.slow
def test_jitted_functions_take_it_and_compile_once(trained):
    vit, variables, images = trained
    traces = []

    @jax.jit
    def mean(encode, images):
        traces.append(1)
        return jnp.mean(encode(images).cls)

    first = mean(every_layer(vit, variables), images)
    doubled = jax.tree.map(lambda x: 2 * x, variables)
    assert mean(every_layer(vit, doubled), images) != first
    assert len(traces) == 1


def test_batches_have_one_size_and_most_pictures():
    images = np.arange(11.0).reshape(11, 1, 1, 1)
    batches = [x.ravel().tolist() for x in whole_batches(images, batch_size=4)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert [len(x) for x in whole_batches(images, batch_size=16)] == [11]
