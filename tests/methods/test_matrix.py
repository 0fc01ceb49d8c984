"""Every base with every regularizer: steps, gradient flow, any number of devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close, real_batch, tiny_config, train_two_steps

from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.methods.regularizers import REGULARIZERS
from ser_jax.train.experiment import build
from ser_jax.train.sharding import make_mesh, replicated, shard_batch

pytestmark = pytest.mark.slow

DEPTH = 2
ADD_ONS = [name for name in REGULARIZERS if name != "none"]


def experiment_of(objective, regularizer, **overrides):
    # AugSelf needs colours to tell apart; without them there is less to compile.
    recipe = "augself" if regularizer == "augself" else "plain"
    config = tiny_config(objective, regularizer, **{"augment.recipe": recipe})
    config.optimizer.weight_decay = 0.0  # so that only a gradient moves a weight
    config.update_from_flattened_dict(overrides)
    return build(config, 64)


def layers_of(regularizer):
    return [1] if regularizer == "none" else [1, DEPTH]


PAIRS = [
    (objective, regularizer, layer)
    for objective, regularizer in itertools.product(OBJECTIVES, REGULARIZERS)
    for layer in layers_of(regularizer)
]


@pytest.mark.parametrize("objective, regularizer, layer", PAIRS)
def test_pair_trains_two_steps(objective, regularizer, layer):
    overrides = {} if regularizer == "none" else {"regularizer.layer": layer}
    # One in two sees local views too.
    num_local = 2 if PAIRS.index((objective, regularizer, layer)) % 2 else 0
    experiment = experiment_of(
        objective, regularizer, **overrides, **{"objective.num_local": num_local}
    )
    before, after, metrics = train_two_steps(experiment)
    assert (metrics["loss_equiv"] == 0) == (regularizer == "none")
    for part in before:  # every part learns
        moved = jax.tree.map(lambda a, b: np.any(a != b), before[part], after[part])
        assert any(jax.tree.leaves(moved)), part


@pytest.mark.parametrize("regularizer", ADD_ONS)
def test_term_trains_the_blocks_up_to_its_layer_and_its_heads(regularizer):
    experiment = experiment_of("byol", regularizer)
    learner = experiment.learner

    def equiv_grad(batch):
        state = experiment.init_state(experiment.init_rng)
        views = learner.make_views(experiment.step_rng, batch, 0)

        def term(params):
            rng = experiment.step_rng
            return learner.loss(params, state.variables, views, rng, 0)[1].loss_equiv

        return jax.grad(term)(state.variables.params)

    grads = jax.jit(equiv_grad)(real_batch(experiment))
    for name, leaf in jax.tree_util.tree_leaves_with_path(grads["encoder"]["blocks"]):
        path = jax.tree_util.keystr(name)
        # The class token, near zero at the start, is all that is read after block 1.
        assert np.any(leaf[0]), path
        np.testing.assert_array_equal(leaf[1], 0.0, err_msg=path)
    for name, leaf in jax.tree_util.tree_leaves_with_path(grads["regularizer"]):
        assert np.any(leaf), jax.tree_util.keystr(name)
    for part in (grads["objective"], grads["encoder"]["norm"]):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(part))


# With MoCo v3 and SER, in test_train_step.py, every loss once.
EVERY_OTHER_LOSS = [
    ("dino", "equimod"),
    ("barlow_twins", "augself"),
    ("simclr", "essl"),
    ("byol", "stl"),
]


@pytest.mark.parametrize("objective, regularizer", EVERY_OTHER_LOSS)
def test_one_device_equals_eight(objective, regularizer):
    experiment = experiment_of(objective, regularizer)
    batch = real_batch(experiment)

    def run(state, batch):
        views = experiment.learner.make_views(experiment.step_rng, batch, 0)
        return jax.value_and_grad(experiment.learner.loss, has_aux=True)(
            state.variables.params,
            state.variables,
            views,
            experiment.step_rng,
            jnp.zeros((), jnp.int32),
        )

    results = []
    for num_devices in (1, 8):
        mesh = make_mesh(jax.devices()[:num_devices])
        init = jax.jit(experiment.init_state, out_shardings=replicated(mesh))
        out = jax.jit(run)(init(experiment.init_rng), shard_batch(batch, mesh))
        results.append(jax.device_get(out))
    ((loss, aux), grads), ((loss_8, aux_8), grads_8) = results
    np.testing.assert_allclose(loss, loss_8, rtol=1e-5)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4, 1e-5), aux, aux_8)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4, 1e-5), grads, grads_8)
