"""How heads start: as their authors' do, to the standard deviation and the bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.made_up_views import made_up_view, outputs_from

from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.methods.regularizers import REGULARIZERS
from ser_jax.models.blocks import patch_initializers
from ser_jax.models.heads import TokenProjector
from ser_jax.models.initial import uniform_dense

BATCH, WIDTH = 4, 96  # of what the heads are given
SIZES = {
    "moco_v3": {"hidden_dim": 128, "output_dim": 64},
    "barlow_twins": {"hidden_dim": 128, "output_dim": 64},
    "simclr": {"hidden_dim": 128, "output_dim": 64},
    "byol": {"hidden_dim": 128, "output_dim": 64},
    "equimod": {"hidden_dim": 128, "output_dim": 192},
    "stl": {"hidden_dim": 128, "output_dim": 64, "trans_dim": 64},
    "essl": {"hidden_dim": 128, "bottleneck_dim": 1024},
    "augself": {"hidden_dim": 512},
}

# Many small compilations.
pytestmark = pytest.mark.slow


def objective_params(name):
    heads = OBJECTIVES[name](**SIZES[name]).make_heads()
    x = jnp.zeros((BATCH, WIDTH))
    return heads.init(jax.random.key(0), x, True, method="student")["params"]


def regularizer_params(name):
    regularizer = REGULARIZERS[name](**SIZES[name])
    names = ("global/0", "global/1", "plain", *(f"rot/{i}" for i in range(4)))
    features = dict.fromkeys(names, jnp.zeros((BATCH, WIDTH)))
    views = {name: made_up_view(0, BATCH) for name in names}
    outputs = outputs_from(features, regularizer.layer)
    heads = regularizer.make_heads()
    return heads.init(jax.random.key(0), outputs, {}, views, True)["params"]


def token_projector(_):
    return TokenProjector(128).init(jax.random.key(0), jnp.zeros((BATCH, WIDTH)))[
        "params"
    ]


def layers(params):
    """Kernel and bias of every linear layer, by name."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *names, last = (key.key for key in path)
        if last in ("kernel", "bias") and leaf.ndim == (2 if last == "kernel" else 1):
            found.setdefault("/".join(names), {})[last] = np.asarray(leaf)
    return {name: layer for name, layer in found.items() if "kernel" in layer}


def assert_uniform(values, fan_in):
    limit = 1 / np.sqrt(fan_in)
    assert np.abs(values).max() <= limit
    # Of n draws the largest is about 1 / n short of the limit; five times that is rare.
    assert np.abs(values).max() > limit * (1 - 5 / values.size)
    # The deviation of n draws is off by about 0.45 / sqrt(n); four times that is rare.
    expected = limit / np.sqrt(3)
    assert abs(values.std() / expected - 1) < 2 / np.sqrt(values.size)


@pytest.mark.parametrize(
    "make, name, num_layers",
    [
        (objective_params, "moco_v3", 5),
        (objective_params, "barlow_twins", 3),
        (regularizer_params, "equimod", 5),
        (regularizer_params, "stl", 7),
        (regularizer_params, "essl", 4),
        (regularizer_params, "augself", 6),
        (token_projector, "ser", 2),
    ],
)
def test_head_starts_uniform_within_one_over_the_root_of_fan_in(make, name, num_layers):
    found = layers(jax.jit(lambda: make(name))())
    assert len(found) == num_layers
    for layer in found.values():
        fan_in = layer["kernel"].shape[0]
        for values in layer.values():
            assert_uniform(values, fan_in)


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_head_of_simclr_and_byol_starts_normal(name):
    """BYOL's: variance 1 / fan_in, cut at two deviations; biases 0."""
    for layer in layers(jax.jit(lambda: objective_params(name))()).values():
        kernel = layer["kernel"]
        expected = 1 / np.sqrt(kernel.shape[0])
        assert abs(kernel.std() / expected - 1) < 0.04
        assert np.abs(kernel).max() > 1.8 * expected  # no uniform of this deviation
        assert not np.any(layer.get("bias", 0))


@pytest.mark.parametrize("scheme", ["ser", "dino"])
def test_patch_embedding_starts_as_a_convolution_of_pytorch(scheme):
    fan_in, width = 3 * 8**2, 384
    kernel, bias = (
        np.asarray(make(jax.random.key(i), shape, jnp.float32))
        for i, (make, shape) in enumerate(
            zip(
                patch_initializers(scheme, 8, width),
                [(fan_in, width), (width,)],
                strict=True,
            )
        )
    )
    assert_uniform(kernel, fan_in)
    assert_uniform(bias, fan_in)


def test_patch_embedding_of_moco_v3_has_its_own_bound_and_no_bias():
    fan_in, width = 3 * 8**2, 384
    kernel_init, bias_init = patch_initializers("moco_v3", 8, width)
    kernel = kernel_init(jax.random.key(0), (fan_in, width), jnp.float32)
    limit = np.sqrt(6 / (fan_in + width))
    assert 0.999 * limit < np.abs(kernel).max() <= limit
    assert not np.any(bias_init(jax.random.key(0), (width,), jnp.float32))


def test_a_bias_is_drawn_apart_from_its_kernel():
    layer = uniform_dense(1, 64, name="fc")
    params = layer.init(jax.random.key(0), jnp.zeros((1, 1)))["params"]
    assert not np.allclose(params["kernel"][0], params["bias"])
