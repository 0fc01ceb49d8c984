"""Every base with every regularizer: steps, gradient flow, any number of devices.

Every pair's loss is traced with the add-on at the first layer, and what comes before it
at the last; a sample, in which every method is, is compiled and run.
`pytest --release` runs all of them.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import (
    assert_close,
    made_up_state,
    real_batch,
    tiny_config,
    trace_loss,
    trace_start,
    train_two_steps,
)

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
# MoCo v3 trains with SER in train/test_step.py, DINO alone in config/test_configs.py.
SAMPLE = [
    *(("dino", "essl", 2), ("barlow_twins", "equimod", 1), ("simclr", "ser", 1)),
    *(("simclr", "stl", 2), ("byol", "augself", 1)),
]


@pytest.mark.parametrize("objective, regularizer, layer", PAIRS)
def test_pair_trains_two_steps(objective, regularizer, layer, release):
    overrides = {} if regularizer == "none" else {"regularizer.layer": layer}
    # One in two sees local views too.
    num_local = 2 if PAIRS.index((objective, regularizer, layer)) % 2 else 0
    experiment = experiment_of(
        objective, regularizer, **overrides, **{"objective.num_local": num_local}
    )
    if not release and (objective, regularizer, layer) not in SAMPLE:
        assert (trace_loss if layer < DEPTH else trace_start)(experiment)
        return
    before, after, metrics = train_two_steps(experiment)
    assert (metrics["loss_equiv"] == 0) == (regularizer == "none")
    for part in before:  # every part learns
        moved = jax.tree.map(lambda a, b: np.any(a != b), before[part], after[part])
        assert any(jax.tree.leaves(moved)), part


@pytest.mark.parametrize("regularizer", ADD_ONS)
def test_term_trains_the_blocks_up_to_its_layer_and_its_heads(regularizer):
    experiment = experiment_of("byol", regularizer)
    learner = experiment.learner

    def equiv_grad(variables, batch):
        views = learner.make_views(experiment.step_rng, batch, 0)

        def term(params):
            rng = experiment.step_rng
            return learner.loss(params, variables, views, rng, 0)[1].loss_equiv

        return jax.grad(term)(variables.params)

    variables = made_up_state(experiment).variables
    grads = jax.jit(equiv_grad)(variables, real_batch(experiment))
    for name, leaf in jax.tree_util.tree_leaves_with_path(grads["encoder"]["blocks"]):
        path = jax.tree_util.keystr(name)
        # The class token, near zero at the start, is all that is read after block 1.
        assert np.any(leaf[0]), path
        np.testing.assert_array_equal(leaf[1], 0.0, err_msg=path)
    for name, leaf in jax.tree_util.tree_leaves_with_path(grads["regularizer"]):
        assert np.any(leaf), jax.tree_util.keystr(name)
    for part in (grads["objective"], grads["encoder"]["norm"]):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(part))


# With MoCo v3 and SER, in train/test_many_devices.py, every loss once.
EVERY_OTHER_LOSS = [
    ("dino", "equimod"),
    ("barlow_twins", "augself"),
    ("simclr", "essl"),
    ("byol", "stl"),
]


def pytest_generate_tests(metafunc):
    if "pair" in metafunc.fixturenames:
        everything = metafunc.config.getoption("release")
        pairs = [(o, r) for o in OBJECTIVES for r in REGULARIZERS]
        pairs = pairs if everything else EVERY_OTHER_LOSS
        metafunc.parametrize("pair", pairs, ids="-".join)


def test_one_device_equals_eight(pair, release):
    """And two and four, for a release."""
    experiment = experiment_of(*pair)
    batch = real_batch(experiment)
    state = jax.jit(experiment.init_state)(experiment.init_rng)

    def run(state, batch):
        views = experiment.learner.make_views(experiment.step_rng, batch, 0)
        return jax.value_and_grad(experiment.learner.loss, has_aux=True)(
            state.variables.params,
            state.variables,
            views,
            experiment.step_rng,
            jnp.zeros((), jnp.int32),
        )

    def on(num_devices):
        mesh = make_mesh(jax.devices()[:num_devices])
        replica = jax.device_put(state, replicated(mesh))
        with jax.set_mesh(mesh):  # as the training step is compiled
            return jax.device_get(jax.jit(run)(replica, shard_batch(batch, mesh)))

    (loss, aux), grads = on(1)
    for num_devices in (2, 4, 8) if release else (8,):
        (its_loss, its_aux), its_grads = on(num_devices)
        np.testing.assert_allclose(loss, its_loss, rtol=1e-5)
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-4, 1e-5), aux, its_aux)
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-4, 1e-5), grads, its_grads)
