"""Images of several sizes in one array of tokens: what each gives is its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.geometry import action, group
from ser_jax.models.outputs import Pictures
from ser_jax.models.vit import ViT

pytestmark = pytest.mark.slow
BASE = {
    **{"width": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "image_size": 16},
    "init_scheme": "dino",  # a class token that is not nearly zero
}
CASES = [
    {"pos_embed": "learned", "grid_layers": (1, 2), "cls_layers": (1, 2)},
    {"cls_insert": 1, "grid_layers": (1,), "remat": "products", "scan": False},
]


def batches(rng):
    """Places 0 to 120, then 96 that do not lie at a multiple of 32, then 16 that do."""
    drawn = group.Group(base_side=4)
    elements, _ = drawn.sample_pair(jax.random.key(0), 3)
    canvas = action.act_on_image(
        rng.normal(size=(3, 16, 16, 3)).astype(np.float32),
        elements,
        patch_size=4,
        max_side=drawn.max_side,
    )
    whole, small = (
        rng.normal(size=(b, side, side, 3)).astype(np.float32)
        for b, side in ((5, 16), (2, 8))
    )
    padded = Pictures(canvas, elements.grid_shape, drawn.num_slots)
    return [Pictures(whole), padded, Pictures(small)]


def readings(output):
    """All that an encoder gives, where there are tokens."""
    yield output.cls
    yield jnp.where(output.valid[..., None], output.tokens, 0)
    for grid in output.grids.values():
        yield jnp.where(grid.valid[..., None], grid.tokens, 0)
    yield from output.cls_at.values()


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_each_size_alone(case):
    """With stochastic depth, which is drawn for each image."""
    apart = ViT(**BASE, **case, drop_path_rate=0.5)
    pictures = batches(np.random.default_rng(0))
    params = jax.jit(apart.init)(jax.random.key(1), pictures[0].images)["params"]
    keep = [
        apart.drop_path_factors(jax.random.key(i), len(x.images))
        for i, x in enumerate(pictures)
    ]

    def run(model):
        def loss(params):
            outputs = model.apply({"params": params}, pictures, keep, method="together")
            found = [list(readings(output)) for output in outputs]
            weighted = [
                jnp.sum(jnp.sin((i + 1) * x))
                for i, x in enumerate(jax.tree.leaves(found))
            ]
            return sum(weighted), (found, outputs)

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    gradient, (found, _) = run(apart)
    packed_gradient, (packed, outputs) = run(apart.clone(attention="fused"))
    jax.tree.map(lambda a, b: assert_close(b, a, 1e-5, 1e-5), found, packed)
    jax.tree.map(lambda a, b: assert_close(b, a, 1e-5, 1e-6), gradient, packed_gradient)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(outputs))
