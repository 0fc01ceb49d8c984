"""A stacked leaf is treated as the parameters it holds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ser_jax.models.vit import ViT
from ser_jax.train.optim.optimizers import make_optimizer
from ser_jax.train.optim.parameters import STACKED, not_1d, only_1d, parameter_name
from ser_jax.train.optim.schedules import warmup_cosine

DEPTH = 3


def blocks(seed):
    """Blocks whose parameters differ in size by orders of magnitude; one is zero."""
    rng = np.random.default_rng(seed)
    sizes = (10.0, 0.0, 0.01) if seed == 0 else (0.01, 1.0, 30.0)
    return [
        {
            "kernel": np.float32(size * rng.normal(size=(4, 2))),
            "bias": np.float32(size * rng.normal(size=4)),
        }
        for size in sizes
    ]


def stack(blocks):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)


def tree(blocks):
    """Parameters of an encoder: these blocks, and a norm of its own."""
    return {"encoder": {"blocks": blocks, "norm": {"scale": jnp.ones(4)}}}


def apart(blocks):
    """The same with every block under a name that is not that of stacked ones."""
    return {"encoder": {"block": blocks, "norm": {"scale": jnp.ones(4)}}}


SETTINGS = {
    "lars outer": {"name": "lars", "decay_mask": "no_1d"},
    "lars inner": {"name": "lars", "lars_form": "inner", "bias_lr_factor": 0.1},
    "adamw": {"name": "adamw", "decay_mask": "no_1d", "clip_norm": 0.3},
    "sgd": {"name": "sgd", "clip_norm": 0.3, "bias_lr_factor": 0.1},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_stacked_blocks_are_optimized_like_separate_ones(case):
    settings = dict(SETTINGS[case])
    optimizer = make_optimizer(
        settings.pop("name"),
        warmup_cosine(0.5, warmup_steps=1, total_steps=4, start=0.2),
        weight_decay=0.1,
        **settings,
    )

    @jax.jit
    def train(params, *grads):
        state = optimizer.init(params)
        for grad in grads:
            updates, state = optimizer.update(grad, state, params)
            params = optax.apply_updates(params, updates)
        return params

    separate = train(*(apart(blocks(seed)) for seed in range(3)))["encoder"]
    stacked = train(*(tree(stack(blocks(seed))) for seed in range(3)))["encoder"]
    expected = {"blocks": stack(separate["block"]), "norm": separate["norm"]}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9),
        stacked,
        expected,
    )


def test_masks_see_the_rank_of_a_single_block():
    params = tree(stack(blocks(0)))
    params["encoder"]["gain"] = jnp.ones(())
    mask = only_1d(params)["encoder"]
    assert mask["blocks"] == {"kernel": False, "bias": True}
    assert mask["norm"] == {"scale": True} and mask["gain"] is False
    jax.tree.map(
        lambda a, b: np.testing.assert_(a != b), mask, not_1d(params)["encoder"]
    )


def test_the_encoder_stacks_its_blocks_there_and_only_there():
    vit = ViT(width=8, depth=DEPTH, num_heads=2, patch_size=4, image_size=8)
    variables = jax.eval_shape(
        vit.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    )
    leaves = jax.tree_util.tree_leaves_with_path({"encoder": variables["params"]})
    shapes = {parameter_name(path): leaf.shape for path, leaf in leaves}
    stacked = {n for n, shape in shapes.items() if shape[0] == DEPTH}
    assert stacked and stacked == {n for n in shapes if n.startswith(f"{STACKED}/")}
