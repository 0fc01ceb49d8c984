"""Heads whose BatchNorm sees all views together, and those that see one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.made_up_views import made_up_view, outputs_from
from helpers.support import assert_close, made_up_state, real_batch, tiny_experiment

from ser_jax.methods.regularizers.equimod import EquiMod

pytestmark = pytest.mark.slow


def losses(experiment):
    """The learner's loss, and a function of class tokens that gives it by hand."""
    learner, variables = experiment.learner, made_up_state(experiment).variables
    rng, step = jax.random.key(0), jnp.zeros((), jnp.int32)
    views = jax.jit(learner.make_views)(rng, real_batch(experiment), step)
    _, aux = jax.jit(learner.loss)(variables.params, variables, views, rng, step)
    names = ("global/0", "global/1")
    cls = [
        learner.encoder.apply(
            {"params": variables.params["encoder"]}, views[name].images
        ).cls
        for name in names
    ]
    heads = learner.objective.make_heads()

    def apply(x):
        stats = variables.batch_stats["student"]["objective"]
        params = {"params": variables.params["objective"], "batch_stats": stats}
        return heads.apply(params, x, True, method="student", mutable="batch_stats")[0]

    def by_hand(embedded):
        return learner.objective.loss(
            dict(zip(names, embedded, strict=True)), {}, {}, 0
        )[0]

    together = np.split(np.asarray(apply(jnp.concatenate(cls))), 2)
    return aux.loss_inv, by_hand(together), by_hand([apply(x) for x in cls])


@pytest.mark.parametrize("joint", [True, False])
def test_projector_of_simclr(joint):
    loss, together, apart = losses(
        tiny_experiment(
            "none", objective="simclr", **{"objective.joint_batch_norm": joint}
        )
    )
    assert abs(together - apart) > 1e-2
    assert_close(loss, together if joint else apart, 1e-5)


def test_each_author_s_own_is_the_default():
    joint = {
        name: tiny_experiment("none", objective=name).learner.objective.joint_batch_norm
        for name in ("simclr", "byol", "moco_v3", "dino", "barlow_twins")
    }
    assert [name for name, value in joint.items() if value] == ["simclr"]


@pytest.mark.parametrize("joint", [True, False])
def test_projector_of_equimod(joint):
    """The published one sees the plain image beside the two views."""
    names, keys = ("global/0", "global/1", "plain"), jax.random.split(jax.random.key(0))
    features = {
        name: i + jax.random.normal(jax.random.fold_in(keys[0], i), (8, 6))
        for i, name in enumerate(names)
    }
    views = {name: made_up_view(i, 8) for i, name in enumerate(names)}
    regularizer = EquiMod(layer=3, hidden_dim=8, output_dim=4, joint_batch_norm=joint)
    heads = regularizer.make_heads()
    args = (outputs_from(features, 3), {}, views, True)
    variables = heads.init(keys[1], *args)
    outputs, _ = heads.apply(variables, *args, mutable="batch_stats")

    def project(x):
        return heads.apply(
            variables,
            x,
            method=lambda heads, x: heads.projector(x, train=True),
            mutable="batch_stats",
        )[0]

    if joint:
        expected = jnp.split(project(jnp.concatenate([*features.values()])), 3)
    else:
        expected = [project(x) for x in features.values()]
    assert_close(outputs.views, jnp.concatenate(expected[:2]))
    assert_close(outputs.plain, expected[2])
