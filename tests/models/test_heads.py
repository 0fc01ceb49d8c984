"""Heads: DINO's against the reference, initial values, what options add."""

import functools

import jax
import numpy as np
import pytest
from helpers.interop_torch import dino_head
from helpers.support import assert_close

from ser_jax.methods.objectives.dino import DINOHeads
from ser_jax.models.heads import BatchNormMlp, DinoMlp, Prototypes


def init(module, rng, *args, **kwargs):
    x = jax.random.normal(rng, (6, 8))
    return x, jax.jit(lambda: module.init(rng, x, *args, **kwargs))()


@pytest.mark.parity
@pytest.mark.parametrize("name", ["head", "head_bn"])
def test_dino_head_matches_the_reference(golden, name):
    data = golden("dino_loss_head")
    params, stats = dino_head(data.group(f"{name}/sd/"))
    mlp = params["mlp"]
    num_layers = sum(key.startswith("fc") for key in mlp)
    bottleneck_dim, output_dim = params["prototypes"]["direction"].shape
    heads = DINOHeads(
        hidden_dim=mlp["fc1"]["kernel"].shape[1],
        bottleneck_dim=bottleneck_dim,
        output_dim=output_dim,
        num_layers=num_layers,
        head_batch_norm="bn1" in mlp,
        norm_last_layer=False,
    )

    def weighted(params, x):
        y, _ = heads.apply(
            {"params": params, "batch_stats": stats},
            x,
            True,
            method="student",
            mutable="batch_stats",
        )
        return (y * data[f"{name}/cot_y"]).sum(), y

    grads, y = jax.jit(jax.grad(weighted, argnums=(0, 1), has_aux=True))(
        params, data[f"{name}/x"]
    )
    assert_close(y, data[f"{name}/y"])
    assert_close(grads[1], data[f"{name}/grad_x"])
    expected, _ = dino_head(data.group(f"{name}/grad/"))
    jax.tree.map(assert_close, grads[0], expected)


def test_prototypes_are_cosines_times_a_gain(rng):
    x, variables = init(Prototypes(16, unit_gain=False), rng)
    direction = np.asarray(variables["params"]["direction"])
    gain = np.linspace(0.5, 2, 16)[None]
    norms = np.linalg.norm(direction, axis=0, keepdims=True)
    trained = {"params": {"direction": direction, "gain": gain}}
    assert_close(
        Prototypes(16, unit_gain=False).apply(trained, x),
        x @ (direction / norms) * gain,
    )
    # As torch's linear layer: uniform up to 1 / sqrt(d).
    limit = 1 / np.sqrt(x.shape[1])
    assert 0.9 * limit < np.abs(direction).max() <= limit


def test_a_unit_gain_is_no_parameter(rng):
    x, variables = init(Prototypes(16, unit_gain=True), rng)
    assert set(variables["params"]) == {"direction"}
    _, free = init(Prototypes(16, unit_gain=False), rng)
    assert free["params"]["gain"].shape == (1, 16)
    np.testing.assert_array_equal(
        Prototypes(16, unit_gain=True).apply(variables, x),
        Prototypes(16, unit_gain=False).apply(free, x),
    )


def test_dino_mlp_ends_in_unit_vectors_and_starts_small(rng):
    x, variables = init(DinoMlp(32, 24, 3), rng, train=True)
    z = jax.jit(functools.partial(DinoMlp(32, 24, 3).apply, train=True))(variables, x)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1.0, rtol=1e-5)
    kernel = variables["params"]["fc2"]["kernel"]
    assert 0.018 < np.std(kernel) < 0.022  # not cut at 2 standard deviations
    assert not np.any(variables["params"]["fc2"]["bias"])


@pytest.mark.parametrize("last_batch_norm", [False, True])
def test_batch_norm_mlp_options(rng, last_batch_norm):
    module = BatchNormMlp(16, 4, 2, hidden_bias=True, last_batch_norm=last_batch_norm)
    x, variables = init(module, rng, train=True)
    params, stats = variables["params"], variables["batch_stats"]
    assert set(params["fc1"]) == {"kernel", "bias"} and set(params["fc2"]) == {"kernel"}
    assert ("bn2" in stats) == last_batch_norm and "bn2" not in params
    apply = functools.partial(module.apply, train=True, mutable="batch_stats")
    z, _ = jax.jit(apply)(variables, x)
    standardized = np.allclose(np.std(z, axis=0), 1.0, atol=1e-3)
    assert standardized == last_batch_norm
