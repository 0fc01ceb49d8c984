"""Feature maps of encoders: which layer, in which place, and frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.evaluate.detection.maps import feature_maps
from ser_jax.evaluate.detection.pyramid import pyramid_strides
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT

MEAN, STD = (0.5,) * 3, (0.25,) * 3


def frozen(module, seed=0):
    """The encoder, each of its norms moved away from where all start."""
    image = jnp.zeros((1, module.image_size, module.image_size, 3))
    variables = jax.jit(module.init)(jax.random.key(seed), image)

    def moved(path, x):
        name = jax.tree_util.keystr(path)
        return x + 0.02 * len(name) if "norm" in name and "params" in name else x

    variables = jax.tree_util.tree_map_with_path(moved, dict(variables))
    return FrozenEncoder(module, variables, MEAN, STD, digest=0)


@pytest.fixture(scope="module")
def vit():
    """Class token after block 2 of 3; a grid that was regularized after block 1."""
    return frozen(ViT(16, 3, 2, 8, 32, cls_insert=2, grid_layers=(1,)))


@pytest.fixture(scope="module")
def resnet():
    return frozen(ResNet((1, 1, 1, 1), "basic", 32, num_filters=4, grid_layers=(2,)))


def pictures(size, b=2):
    return np.random.default_rng(0).normal(size=(b, size, size, 3)).astype(np.float32)


def read(encoder, size, layer=None):
    maps = jax.jit(feature_maps(encoder, size, layer))
    return maps(encoder.variables, pictures(size))


@pytest.mark.parametrize("size", [32, 48])
def test_the_last_map_of_a_vit(vit, size):
    """Also of a size that it was not trained at: positions are resampled."""
    (x,) = (maps := read(vit, size)).values()
    out = jax.jit(vit.module.apply)(vit.variables, pictures(size))
    side = size // 8
    assert set(maps) == {8} and x.shape == (2, side, side, 16)
    assert_close(x.reshape(2, -1, 16), out.tokens, 1e-5)


def test_a_layer_of_a_vit(vit):
    """A grid that was regularized through its own norm, another through a plain one."""
    out = jax.jit(vit.module.apply)(vit.variables, pictures(32))
    first = read(vit, 32, 1)[8]
    assert_close(first.reshape(2, 16, 16), out.grids[1].tokens, 1e-5)
    second = np.asarray(read(vit, 32, 2)[8])
    assert_close(second.mean(-1), np.zeros((2, 4, 4)))
    assert_close(second.var(-1), np.ones((2, 4, 4)), 1e-3)
    assert_close(read(vit, 32, 3)[8], read(vit, 32)[8])


def test_the_last_blocks_of_a_vit(vit):
    """Side by side, all through the final norm; there are but three here."""
    maps = read(vit, 32, "last4")
    x, params = maps[8], vit.variables["params"]
    assert x.shape == (2, 4, 4, 48)
    assert_close(x[..., 32:], read(vit, 32)[8], 1e-5)
    plain, norm = read(vit, 32, 2)[8], params["norm"]
    scale, bias = (norm[k].reshape(1, 1, 1, 16) for k in ("scale", "bias"))
    assert_close(x[..., 16:32], plain * scale + bias, 1e-4, 1e-4)


def test_the_stages_of_a_resnet(resnet):
    """All of them, finest first; a stage alone; the last as the encoder gives it."""
    maps = read(resnet, 64)
    shapes = {stride: x.shape for stride, x in maps.items()}
    widths = {4: 4, 8: 8, 16: 16, 32: 32}
    assert shapes == {s: (2, 64 // s, 64 // s, d) for s, d in widths.items()}
    assert pyramid_strides(maps, 64) == (8, 16, 32, 64)
    out = jax.jit(resnet.module.apply)(resnet.variables, pictures(64))
    assert_close(maps[8].reshape(2, -1, 8), out.grids[2].tokens, 1e-5)
    last = np.asarray(out.tokens)
    centred = last - last.mean(-1, keepdims=True)
    normed = centred / np.sqrt(last.var(-1, keepdims=True) + 1e-6)
    assert_close(maps[32].reshape(2, -1, 32), normed, 1e-4)
    one = read(resnet, 64, 3)
    assert set(one) == {16}
    assert_close(one[16], maps[16])


def test_a_cell_is_where_its_picture_is(resnet):
    """Red if rows and columns change places."""
    images = np.zeros((1, 64, 64, 3), np.float32)
    spot = images.copy()
    spot[0, 48:56, 8:16] = 3.0
    maps = feature_maps(resnet, 64, 1)
    one, two = (maps(resnet.variables, x)[4] for x in (images, spot))
    row, column = np.unravel_index(np.argmax(np.abs(two - one)[0].sum(-1)), (16, 16))
    assert row in range(11, 15) and column in range(1, 5)


def test_nothing_is_learnt(vit):
    maps = feature_maps(vit, 32)

    def total(params, images):
        return sum(jnp.sum(x**2) for x in maps({"params": params}, images).values())

    grads = jax.jit(jax.grad(total, (0, 1)))(vit.variables["params"], pictures(32))
    assert not any(np.any(grad) for grad in jax.tree.leaves(grads))


def test_the_type_of_the_module(vit):
    half = FrozenEncoder(
        vit.module.clone(dtype=jnp.bfloat16), vit.variables, MEAN, STD, 0
    )
    for layer in (None, "last4", 1):
        image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        maps = jax.eval_shape(feature_maps(half, 64, layer), half.variables, image)
        assert maps[8].dtype == jnp.bfloat16 and maps[8].shape[:3] == (1, 8, 8)


def test_refusals(vit, resnet):
    with pytest.raises(ValueError, match="cells of 8 px, the encoder's; 32 px do"):
        feature_maps(vit, 33)
    with pytest.raises(ValueError, match="8 px do"):
        feature_maps(vit, 0)
    for layer in (0, 4, "last"):
        with pytest.raises(ValueError, match='one of 1 to 3, "last4", or the usual'):
            feature_maps(vit, 32, layer)
    with pytest.raises(ValueError, match="one of 1 to 4, or the usual"):
        feature_maps(resnet, 32, "last4")
