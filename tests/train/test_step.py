"""The step: gradient flow, order of events, one compilation, any number of devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close, real_batch, tiny_config, tiny_experiment

from ser_jax.methods.regularizers.base import NoRegularizer
from ser_jax.methods.regularizers.ser import SER
from ser_jax.train.experiment import build
from ser_jax.train.step import make_equiv_grad_norm, make_train_step

pytestmark = pytest.mark.slow


@functools.cache
def setup(**overrides):
    """Experiment, initial state and one batch, shared by the tests of this file."""
    experiment = tiny_experiment(**dict(overrides))
    state = jax.jit(experiment.init_state)(experiment.init_rng)
    return experiment, state, real_batch(experiment)


@functools.cache
def first_step():
    """State and metrics after it."""
    experiment, state, batch = setup()
    return jax.jit(step_of(experiment))(state, batch)


def step_of(experiment):
    return make_train_step(
        experiment.learner,
        experiment.optimizer,
        experiment.learning_rate,
        experiment.step_rng,
    )


def loss_and_grad(experiment, state, batch):
    def run(state, batch):
        views_rng, loss_rng = jax.random.split(experiment.step_rng)
        views = experiment.learner.make_views(views_rng, batch, state.step)
        return jax.value_and_grad(experiment.learner.loss, has_aux=True)(
            state.variables.params, state.variables, views, loss_rng, state.step
        )

    return jax.jit(run)(state, batch)


def test_loss_equiv_trains_early_blocks_and_its_projector_and_nothing_else():
    experiment, state, batch = setup()
    learner, layer = experiment.learner, experiment.config["regularizer"]["layer"]
    views = jax.jit(learner.make_views)(experiment.step_rng, batch, 0)

    def equiv(params, target_params):
        variables = state.variables.replace(target_params=target_params)
        return learner.loss(params, variables, views, experiment.step_rng, 0)[
            1
        ].loss_equiv

    grads, target_grads = jax.jit(jax.grad(equiv, argnums=(0, 1)))(
        state.variables.params, state.variables.target_params
    )
    for name, leaf in jax.tree_util.tree_leaves_with_path(grads["encoder"]["blocks"]):
        for block, grad in enumerate(leaf, start=1):
            key_bias = "qkv" in str(name) and "bias" in str(name)
            if block <= layer and not key_bias:  # part of the key bias has none
                assert np.any(grad), (name, block)
            if block > layer:
                np.testing.assert_array_equal(grad, 0.0)
    assert all(np.any(g) for g in jax.tree.leaves(grads["regularizer"]))
    assert all(np.any(g) for g in jax.tree.leaves(grads["encoder"]["norm_grid_1"]))
    for part in (
        grads["objective"],
        grads["encoder"]["norm"],
        grads["encoder"]["cls_token"],
        grads["encoder"]["patch_embed"],  # frozen
        target_grads,
    ):
        assert not any(np.any(g) for g in jax.tree.leaves(part))


def test_loss_inv_trains_every_block_and_the_heads():
    experiment, state, batch = setup()
    (_, _), grads = loss_and_grad(experiment, state, batch)
    for leaf in jax.tree.leaves(grads["encoder"]["blocks"]):
        assert all(np.any(block) for block in leaf)
    for head in ("projector", "predictor"):
        assert all(np.any(g) for g in jax.tree.leaves(grads["objective"][head]))


def test_weight_zero_is_no_regularizer_given_the_same_views():
    experiment, state, batch = setup(**{"regularizer.weight": 0.0})
    learner = experiment.learner
    # The encoder and the views stay SER's, the term is gone.
    without = dataclasses.replace(learner, regularizer=_ViewsOnly(learner.regularizer))
    views = jax.jit(learner.make_views)(experiment.step_rng, batch, 0)
    rest = (state.variables, views, experiment.step_rng, state.step)

    @jax.jit
    def both(params):
        grads = (jax.value_and_grad(x.loss, has_aux=True) for x in (learner, without))
        return [grad(params, *rest) for grad in grads]

    ((loss, aux), grads), ((plain_loss, _), plain_grads) = both(state.variables.params)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
    assert aux.loss_equiv > 0  # still measured
    for part in ("encoder", "objective"):
        jax.tree.map(
            lambda a, b: assert_close(a, b, 1e-5, 1e-6), grads[part], plain_grads[part]
        )


@dataclasses.dataclass(frozen=True)
class _ViewsOnly(NoRegularizer):
    """No term, but the views of another regularizer."""

    other: SER = SER()

    def views(self, objective):
        return self.other.views(objective)


def test_grad_norm_equiv_is_that_of_the_weighted_term():
    experiment, state, batch = setup(**{"regularizer.weight": 3.0})
    norm = jax.jit(make_equiv_grad_norm(experiment.learner, experiment.step_rng))
    views_rng, loss_rng = jax.random.split(
        jax.random.fold_in(experiment.step_rng, state.step)
    )
    views = jax.jit(experiment.learner.make_views)(views_rng, batch, 0)

    def equiv(params):
        loss = experiment.learner.loss(params, state.variables, views, loss_rng, 0)
        return 3.0 * loss[1].loss_equiv

    grads = jax.tree.leaves(jax.jit(jax.grad(equiv))(state.variables.params))
    expected = np.sqrt(sum(np.sum(np.square(g)) for g in grads))
    measured = norm(state, batch)["grad_norm_equiv"]
    np.testing.assert_allclose(measured, expected, rtol=1e-4)
    assert measured > 0


def test_grad_norm_equiv_reads_zero_where_the_term_has_no_gradient():
    experiment, state, batch = setup(**{"regularizer.equiv_grad": "none"})
    norm = jax.jit(make_equiv_grad_norm(experiment.learner, experiment.step_rng))
    assert norm(state, batch)["grad_norm_equiv"] == 0


def test_gradient_norms_of_the_blocks():
    experiment, state, batch = setup()
    learner, params = experiment.learner, state.variables.params
    _, metrics = first_step()
    views_rng, loss_rng = jax.random.split(
        jax.random.fold_in(experiment.step_rng, state.step)
    )

    @jax.jit
    def gradient(variables):
        views = learner.make_views(views_rng, batch, 0)
        moved = learner.advance_target(
            "before_forward", variables.target_params, params, 0
        )
        variables = variables.replace(target_params=moved)
        return jax.grad(learner.loss, has_aux=True)(
            params, variables, views, loss_rng, 0
        )

    blocks = gradient(state.variables)[0]["encoder"]["blocks"]
    for i in range(2):
        squares = [np.sum(np.square(leaf[i])) for leaf in jax.tree.leaves(blocks)]
        measured = metrics[f"grad_norm_block_{i + 1:02d}"]
        np.testing.assert_allclose(measured, np.sqrt(sum(squares)), rtol=1e-4)
    assert "grad_norm_block_03" not in metrics


def test_a_resnet_has_no_blocks_to_report():
    resnet = {"variant": "resnet18", "small_images": True, "freeze_patch_embed": False}
    resnet |= {"depth": 0, "num_heads": 0}
    overrides = {f"model.{name}": value for name, value in resnet.items()}
    experiment = tiny_experiment("none", **overrides)
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    step = jax.eval_shape(step_of(experiment), state, experiment.abstract_batch())
    assert "grad_norm" in step[1]
    assert not any(name.startswith("grad_norm_block") for name in step[1])


def test_target_moves_before_the_forward_towards_the_old_weights():
    experiment, state, batch = setup()
    after, metrics = first_step()
    m = experiment.config["objective"]["momentum"]
    assert metrics["ema_momentum"] == pytest.approx(m)
    old = {
        "encoder": state.variables.params["encoder"],
        "objective": {"projector": state.variables.params["objective"]["projector"]},
    }
    expected = jax.tree.map(
        lambda t, o: m * t + (1 - m) * o, state.variables.target_params, old
    )
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-7),
        after.variables.target_params,
        expected,
    )


def test_one_compilation_serves_every_group_element_and_the_state_is_donated():
    experiment, state, _ = setup()
    num_traces, step = 0, step_of(experiment)

    def counted(state, batch):
        nonlocal num_traces
        num_traces += 1
        return step(state, batch)

    state = jax.tree.map(jnp.copy, state)
    jitted = jax.jit(counted, donate_argnums=0)
    make_views = jax.jit(experiment.learner.make_views)
    drawn, losses = set(), []
    for seed in range(4):
        batch = real_batch(experiment, seed)
        views_rng, _ = jax.random.split(
            jax.random.fold_in(experiment.step_rng, state.step)
        )
        element = make_views(views_rng, batch, state.step)["equiv/0"].element
        drawn.add(np.asarray(element.grid_shape).tobytes())
        previous = state
        state, metrics = jitted(state, batch)
        losses.append(float(metrics["loss"]))
        assert jax.tree.leaves(previous.variables.params)[0].is_deleted()
    assert num_traces == 1 and len(drawn) == 4
    assert np.isfinite(losses).all() and int(state.step) == 4


def test_initial_target_is_a_copy_and_initial_weights_follow_the_seed():
    experiment, state, _ = setup()
    jax.tree.map(
        np.testing.assert_array_equal,
        state.variables.target_params["encoder"],
        state.variables.params["encoder"],
    )
    assert set(state.variables.target_params["objective"]) == {"projector"}
    other = tiny_experiment(seed=1)
    other_state = jax.jit(other.init_state)(other.init_rng)
    name = ("encoder", "blocks", "attn", "qkv", "kernel")
    pick = functools.partial(functools.reduce, lambda tree, key: tree[key], name)
    assert not np.array_equal(
        pick(state.variables.params), pick(other_state.variables.params)
    )


@pytest.mark.parametrize("objective, reads_target", [("dino", True), ("byol", False)])
def test_evaluation_reads_the_teacher_of_dino_and_else_the_online_encoder(
    objective, reads_target
):
    experiment = build(tiny_config(objective, "none"), 64)
    shapes = jax.eval_shape(experiment.init_state, experiment.init_rng).variables
    leaves, tree = jax.tree.flatten(shapes)
    numbered = jax.tree.unflatten(tree, range(len(leaves)))
    part = numbered.target_params if reads_target else numbered.params
    assert experiment.evaluated(numbered)["params"] == part["encoder"]
