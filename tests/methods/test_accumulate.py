"""A batch encoded part by part trains as the whole batch does, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close, made_up_state, real_batch, tiny_config

from ser_jax.benchmark.program import Program
from ser_jax.methods import accumulate
from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.methods.regularizers import REGULARIZERS
from ser_jax.train.compiled import compile_train_step
from ser_jax.train.experiment import build
from ser_jax.train.sharding import make_mesh, replicated, shard_batch
from ser_jax.train.step import make_equiv_grad_norm

pytestmark = pytest.mark.slow
# Negatives, statistics of heads and of a batch, a center. On eight devices all of b1,
# 12 of 24 images, lies among SER's b2: three rows a device for two parts.
SAMPLE = [("simclr", "ser", 8), ("barlow_twins", "stl", 1), ("dino", "equimod", 1)]


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        cases = list(SAMPLE)
        if metafunc.config.getoption("release"):
            cases += [(o, r, 1) for o in OBJECTIVES for r in REGULARIZERS]
        metafunc.parametrize("case", cases, ids=lambda case: "-".join(map(str, case)))


def experiment_of(objective, regularizer, **overrides):
    settings = {"batch_size": 24} | overrides
    if regularizer == "augself":  # without colours to tell apart
        settings["regularizer.color_weight"] = 0.0
    return build(tiny_config(objective, regularizer, **settings), 64)


@pytest.fixture
def in_64_bits(monkeypatch):
    """Whatever is float32 is float64, so that rounding explains no difference."""
    monkeypatch.setattr(jnp, "float32", jnp.float64)
    with jax.enable_x64(True):
        yield


def wide(x):
    return x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x


def test_loss_gradient_and_statistics_are_those_of_the_whole_batch(case, in_64_bits):
    """Stochastic depth too: each row has its draw of the batch."""
    objective, regularizer, num_devices = case
    settings = {"model.drop_path_rate": 0.5}
    experiment = experiment_of(objective, regularizer, **settings)
    learner = experiment.with_encoder(dtype=jnp.float64).learner
    variables = jax.tree.map(wide, made_up_state(experiment).variables)
    batch = real_batch(experiment)
    rngs = tuple(jax.random.split(experiment.step_rng))

    @jax.jit
    def whole(variables, batch):
        views = learner.make_views(rngs[0], batch, 0)
        return jax.value_and_grad(learner.loss, has_aux=True)(
            variables.params, variables, views, rngs[1], 0
        )

    @jax.jit
    def in_parts(variables, batch):
        return accumulate.value_and_grad(
            *(learner, lambda *loss: loss, variables, batch, rngs, 0),
            num_parts=2 if num_devices > 1 else 5,
        )

    expected, grads = whole(variables, batch)
    mesh = make_mesh(jax.devices()[:num_devices])
    with jax.set_mesh(mesh):
        placed = jax.device_put(variables, replicated(mesh)), shard_batch(batch, mesh)
        program = in_parts.lower(*placed).compile()
    found, found_grads = program(*placed)
    assert jax.tree.leaves(found_grads)[0].dtype == np.float64
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-10, 1e-12), found, expected)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-9, 1e-12), found_grads, grads)
    sent = Program(program.as_text()).collectives(num_devices)
    assert not any(",16,16,3]" in row.shape for row in sent)  # no picture moves
    num_weights = sum(x.size for x in jax.tree.leaves(variables.params["encoder"]))
    reduced = [row for row in sent if row.kind == "all-reduce"]
    large = [row.times for row in reduced if row.wire_bytes > 8 * num_weights]
    assert large == [1] * (num_devices > 1)  # the gradient, once for all parts


def test_the_gradient_of_the_term_alone():
    experiment = experiment_of("barlow_twins", "augself")
    state, batch = made_up_state(experiment), real_batch(experiment)

    def norm(num_parts):
        measure = make_equiv_grad_norm(
            experiment.learner, experiment.step_rng, num_parts
        )
        return jax.jit(measure)(state, batch)["grad_norm_equiv"]

    expected = norm(1)
    assert expected > 0
    np.testing.assert_allclose(norm(4), expected, rtol=1e-4)


def test_memory_falls_with_the_setting():
    """Red if what a part needs outlives it, or the setting reaches no step."""

    def memory(num_parts):
        settings = {"batch_size": 256, "optimizer.accumulate_steps": num_parts}
        experiment = experiment_of("byol", "none", **settings)
        state = jax.eval_shape(experiment.init_state, experiment.init_rng)
        step = compile_train_step(experiment, state, make_mesh(jax.devices()[:1]))
        return step.memory_analysis().temp_size_in_bytes

    plain, in_parts = memory(1), memory(16)
    assert in_parts < plain / 6, (plain, in_parts)
