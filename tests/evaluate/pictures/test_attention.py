"""The class token's attention: checked by redoing the last block with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.evaluate.pictures.attention import cls_attention
from ser_jax.models.blocks import Block, Mlp, layer_norm
from ser_jax.models.vit import ViT

IMAGES = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)


def vit(**settings):
    sizes = {"width": 8, "depth": 3, "num_heads": 2, "patch_size": 4, "image_size": 12}
    return ViT(**(sizes | settings))


def init(encoder):
    """Weights large enough for attention to differ from place to place."""
    variables = jax.jit(encoder.init)(jax.random.key(0), IMAGES)
    return jax.tree.map(lambda x: 2 * x, jax.device_get(variables))


def norm(params, x):
    return layer_norm("norm").apply({"params": params}, x)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"cls_insert": 1, "grid_layers": (1,)}])
def test_the_last_block_redone_with_it_gives_the_class_token(settings):
    encoder = vit(**settings)
    variables = init(encoder)
    attention = jax.jit(cls_attention, static_argnums=0)
    weights = attention(encoder, variables, IMAGES)
    assert weights.shape == (2, 2, 3, 3)
    cls, expected = redone(encoder, variables, weights)
    assert_close(cls, expected, rel=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def redone(encoder, variables, weights):
    """The class token by these weights of the last block, and the encoder's own."""
    params = variables["params"]
    x = last_input(encoder, variables)  # [b, 1 + n, d]
    last = jax.tree.map(lambda leaf: leaf[-1], params["blocks"])
    normed = norm(last["norm1"], x)
    qkv = last["attn"]["qkv"]
    packed = normed @ qkv["kernel"] + qkv["bias"][None, None]
    values = packed.reshape(2, 10, 3, 2, 4)[:, :, 2]  # [b, 1 + n, heads, e]
    patches = weights.reshape(2, 2, 9)
    own = 1 - patches.sum(axis=-1, keepdims=True)
    every = jnp.concatenate([own, patches], axis=-1)  # [b, heads, 1 + n]
    mixed = jnp.einsum("bhn,bnhe->bhe", every, values).reshape(2, 8)
    proj = last["attn"]["proj"]
    cls = x[:, 0] + mixed @ proj["kernel"] + proj["bias"][None]
    mlp = Mlp(32, jnp.float32, jax.nn.initializers.zeros)
    cls = (
        cls
        + mlp.apply({"params": last["mlp"]}, norm(last["norm2"], cls[:, None]))[:, 0]
    )
    return norm(params["norm"], cls), encoder.apply(variables, IMAGES).cls


def last_input(encoder, variables):
    """Tokens before the last block, class token first, without a norm."""
    seen = []

    class Spy(Block):
        def __call__(self, x, images, keep=None):
            seen.append(x.reshape(*images.size, -1))
            return super().__call__(x, images, keep)

    spied = type(
        "Spied",
        (ViT,),
        {
            "_block": lambda self: Spy(
                self.num_heads,
                self.mlp_ratio,
                self.dtype,
                jax.nn.initializers.zeros,
                jax.nn.initializers.zeros,
                parent=None,
            )
        },
    )
    fields = {
        name: getattr(encoder, name)
        for name in ("width", "depth", "num_heads", "patch_size", "image_size")
    }
    unrolled = spied(**fields, cls_insert=encoder.cls_insert, scan=False)
    with jax.disable_jit():  # of a block: what it sees is taken out
        unrolled.apply(variables, IMAGES)
    return seen[-1]


@pytest.mark.slow
def test_a_class_token_that_joins_at_the_last_block_is_refused():
    with pytest.raises(ValueError, match="joins after block 2 of 3"):
        cls_attention(vit(cls_insert=2), {}, IMAGES)
