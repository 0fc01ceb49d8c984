"""What is read off an encoder: each feature against a forward pass made for it."""

import functools

import jax
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.evaluate.features.readings import read_grid, read_means, read_tokens
from ser_jax.models.blocks import layer_norm
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT

pytestmark = pytest.mark.slow

IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
WIDTH, DEPTH = 8, 6


def vit(**settings):
    return ViT(WIDTH, DEPTH, 2, patch_size=4, image_size=16, **settings)


def made_up_variables(encoder):
    """Numbers of the right shapes: initialising takes a compilation."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        around = 1.0 if path[-1].key in ("scale", "var") else 0.0
        return (around + 0.2 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    shapes = jax.eval_shape(encoder.init, jax.random.key(0), IMAGES)
    return jax.tree_util.tree_map_with_path(fill, shapes)


@functools.partial(jax.jit, static_argnums=0)
def encode(encoder, variables):
    return encoder.apply(variables, IMAGES)


def read(reading):
    return np.asarray(jax.jit(reading.read)(reading.variables, IMAGES))


@functools.partial(jax.jit, static_argnums=(0, 2))
def shorter(encoder, variables, depths):
    """Class tokens after so many blocks each, through the final norm."""
    params, tokens = variables["params"], []
    for depth in depths:
        blocks = jax.tree.map(lambda x, depth=depth: x[:depth], params["blocks"])
        cut = encoder.clone(depth=depth, grid_layers=(), cls_layers=())
        tokens.append(encode(cut, {"params": {**params, "blocks": blocks}}).cls)
    return tokens


@pytest.mark.slow
@pytest.mark.parametrize("cls_insert, blocks", [(0, 4), (2, 4), (4, 2), (5, 1)])
@pytest.mark.parametrize("read_before", [{}, {"cls_layers": (6,)}])
def test_class_tokens_of_the_last_blocks_that_have_one(cls_insert, blocks, read_before):
    """Red if a patch token is read where there is no class token yet."""
    encoder = vit(cls_insert=cls_insert, **read_before)
    variables = made_up_variables(encoder)
    reading = read_tokens(encoder, variables)
    rows = read(reading)
    depths = tuple(range(DEPTH - blocks + 1, DEPTH + 1))
    expected = shorter(vit(cls_insert=cls_insert), variables, depths)
    out = encode(encoder, variables)
    mean = np.mean(out.tokens, axis=1)
    features = {
        "cls1": [out.cls],
        "cls1_avg": [out.cls, mean],
        "patch_avg": [mean],
    }
    if blocks > 1:
        features |= {"cls4": expected, "cls4_avg": [*expected, mean]}
    assert reading.columns.keys() == features.keys()
    for name, parts in features.items():
        assert_close(rows[:, reading.columns[name]], np.concatenate(parts, axis=1))


def test_a_norm_learned_at_an_earlier_layer_is_not_the_final_one():
    """EquiMod, decoupled: its class token at block 4 has a norm of its own."""
    encoder = vit(cls_layers=(4,))
    variables = made_up_variables(encoder)
    assert "norm_cls_4" in variables["params"]
    reading = read_tokens(encoder, variables)
    rows = read(reading)[:, reading.columns["cls4"]]
    (expected,) = shorter(encoder, variables, (4,))
    assert_close(rows[:, WIDTH : 2 * WIDTH], expected)


def test_a_resnet_has_one_feature():
    encoder = ResNet((1, 1), "basic", 16, num_filters=4, small_images=True)
    variables = made_up_variables(encoder)
    reading = read_tokens(encoder, variables)
    assert reading.columns == {"cls1": slice(0, 8)}
    assert_close(read(reading), encode(encoder, variables).cls)


@pytest.mark.parametrize("regularized", [True, False])
def test_a_grid_is_read_through_its_own_norm_or_a_plain_one(regularized):
    encoder = vit(grid_layers=(2,) if regularized else ())
    variables = made_up_variables(encoder)
    reading = read_grid(encoder, variables, 2)
    assert reading.columns == {"grid2": slice(0, 16 * WIDTH)}
    asked = encoder.clone(grid_layers=(2,))
    own = variables["params"].get("norm_grid_2")
    plain = {"scale": np.ones(WIDTH), "bias": np.zeros(WIDTH)}
    params = variables["params"] | {"norm_grid_2": own or plain}
    grid = np.asarray(encode(asked, {"params": params}).grids[2].tokens)
    assert_close(read(reading), grid.reshape(3, -1))
    if not regularized:
        again = jax.jit(layer_norm("n").apply)({"params": plain}, grid)
        assert_close(again, grid, rel=1e-3)  # already of mean 0 and deviation 1


def test_means_of_every_layer():
    """Red if layers are out of order, or one is read without its norm."""
    encoder = vit(cls_insert=2, grid_layers=(2,))
    variables = made_up_variables(encoder)
    reading = read_means(encoder, variables)
    rows = read(reading)
    assert [*reading.columns] == [f"mean{k}" for k in range(1, DEPTH + 1)]
    for layer in (1, 2, DEPTH):
        grid = read(read_grid(encoder, variables, layer))
        mean = grid.reshape(len(IMAGES), -1, WIDTH).mean(axis=1)
        assert_close(rows[:, reading.columns[f"mean{layer}"]], mean)
