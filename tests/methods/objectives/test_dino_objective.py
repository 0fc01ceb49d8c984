"""DINO: the reference's loss and running center, multi-crop, metrics, heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.methods.losses.dino import dino_cross_entropy, teacher_probs
from ser_jax.methods.objectives.base import GLOBAL_VIEWS
from ser_jax.methods.objectives.dino import DINO, TeacherOutput


def teacher(logits):
    """Outputs of a teacher whose bottleneck does not matter."""
    return {
        view: TeacherOutput(embedding=jnp.eye(*x.shape), logits=x)
        for view, x in zip(GLOBAL_VIEWS, logits, strict=True)
    }


@pytest.mark.parity
@pytest.mark.parametrize("group", ["two_crops", "four_crops"])
def test_matches_the_reference_with_its_running_center(golden, group):
    data = golden("dino_loss_head")
    settings = data.settings["loss"]
    num_crops = (
        2 * len(data[f"{group}/call0/student"]) // len(data[f"{group}/call0/teacher"])
    )
    objective = DINO(
        student_temp=settings["student_temp"],
        warmup_teacher_temp=settings["warmup_teacher_temp"],
        teacher_temp=settings["teacher_temp"],
        teacher_temp_warmup_epochs=settings["warmup_teacher_temp_epochs"],
        center_momentum=settings["center_momentum"],
        output_dim=settings["out_dim"],
        num_local=num_crops - 2,
    )
    names = [spec.name for spec in objective.views]

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(student, teacher_logits, state, epoch):
        value, _, state = objective.loss(
            dict(zip(names, jnp.split(student, num_crops), strict=True)),
            teacher(jnp.split(teacher_logits, 2)),
            state,
            epoch,
        )
        return value, state

    state = objective.init_state()
    calls = sorted({key.split("/")[0] for key in data.group(f"{group}/")})
    assert len(calls) > 1
    for call in calls:
        recorded = data.group(f"{group}/{call}/")
        (value, state), grad = loss(
            recorded["student"],
            recorded["teacher"],
            state,
            recorded["epoch"].astype(np.int32),
        )
        np.testing.assert_allclose(value, recorded["loss"], rtol=1e-5)
        assert_close(grad, recorded["grad_student"])
        assert_close(state["center"], recorded["center_after"])


def random_logits(num_views, b=4, k=6, seed=0):
    return list(np.random.default_rng(seed).normal(size=(num_views, b, k)))


def run(objective, student, teacher_logits, center=None, epoch=0):
    names = [spec.name for spec in objective.views]
    state = {"center": jnp.zeros((1, objective.output_dim))}
    if center is not None:
        state = {"center": center}
    return jax.jit(objective.loss)(
        dict(zip(names, student, strict=True)),
        teacher(teacher_logits),
        state,
        jnp.int32(epoch),
    )


def test_every_view_learns_from_every_other_global_view():
    objective = DINO(output_dim=6, num_local=2)
    student, logits = random_logits(4), random_logits(2, seed=1)
    center = jnp.asarray(random_logits(1, b=1, seed=2)[0])
    loss, _, _ = run(objective, student, logits, center)
    probs = [teacher_probs(x, center, objective.teacher_temp) for x in logits]
    pairs = [(1, 0), (2, 0), (3, 0), (0, 1), (2, 1), (3, 1)]
    cross_entropy = jax.jit(
        functools.partial(dino_cross_entropy, temperature=objective.student_temp)
    )
    expected = [np.mean(cross_entropy(student[v], probs[g])) for v, g in pairs]
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-6)


def test_the_epoch_sets_the_teacher_temperature():
    warming = DINO(
        output_dim=6, teacher_temp=0.5, teacher_temp_warmup_epochs=2, num_local=0
    )
    student, logits = random_logits(2), random_logits(2, seed=1)
    for epoch, temperature in ((0, 0.04), (1, 0.5), (7, 0.5)):
        constant = DINO(output_dim=6, teacher_temp=temperature)
        np.testing.assert_allclose(
            run(warming, student, logits, epoch=epoch)[0],
            run(constant, student, logits)[0],
            rtol=1e-5,
        )


def test_metrics_of_a_uniform_a_collapsed_and_a_spread_teacher():
    k = 8
    objective = DINO(output_dim=k)
    student = random_logits(2, b=k, k=k)

    def metrics(logits):
        return run(objective, student, [logits, logits])[1]

    uniform = metrics(jnp.ones((k, k)))
    np.testing.assert_allclose(uniform["teacher_entropy"], np.log(k), rtol=1e-5)
    np.testing.assert_allclose(uniform["teacher_kl_to_uniform"], 0.0, atol=1e-5)
    # The new center is a tenth of the outputs' mean: k entries of 0.1.
    np.testing.assert_allclose(uniform["center_norm"], 0.1 * np.sqrt(k), rtol=1e-5)

    collapsed = metrics(jnp.zeros((k, k)).at[:, 0].set(10.0))
    np.testing.assert_allclose(collapsed["teacher_entropy"], 0.0, atol=1e-5)
    np.testing.assert_allclose(collapsed["teacher_kl_to_uniform"], np.log(k), rtol=1e-5)

    spread = metrics(10.0 * jnp.eye(k))
    np.testing.assert_allclose(spread["teacher_entropy"], 0.0, atol=1e-5)
    np.testing.assert_allclose(spread["teacher_kl_to_uniform"], 0.0, atol=1e-5)
    # Embeddings are the k unit vectors: each dimension is 1 once, 0 otherwise.
    std = np.sqrt(1 / k - 1 / k**2)
    np.testing.assert_allclose(spread["embedding_std"], std, rtol=1e-5)


def test_nothing_flows_into_the_teacher_or_the_center():
    objective = DINO(output_dim=6)
    student, logits = random_logits(2), random_logits(2, seed=1)

    def loss(logits, center):
        value, _, state = run(objective, student, logits, center)
        return value + state["center"].sum()

    grads, _ = jax.grad(loss, argnums=(0, 1))(logits, jnp.zeros((1, 6)))
    assert not any(np.any(g) for g in grads)


@pytest.mark.parametrize("norm_last_layer", [False, True])
def test_heads_have_what_the_target_and_the_optimizer_name(rng, norm_last_layer):
    objective = DINO(
        hidden_dim=16,
        bottleneck_dim=8,
        output_dim=12,
        head_batch_norm=True,
        norm_last_layer=norm_last_layer,
    )
    heads, cls = objective.make_heads(), jnp.ones((4, 5))
    variables = jax.jit(lambda: heads.init(rng, cls, True, method="student"))()
    assert set(variables["params"]) == {"mlp", "prototypes"}
    assert set(variables["params"]) == set(objective.target.heads)
    assert ("gain" in variables["params"]["prototypes"]) != norm_last_layer

    def apply(method):
        return jax.jit(
            lambda v: heads.apply(v, cls, True, method=method, mutable="batch_stats")
        )(variables)

    out, _ = apply("target")
    assert out.embedding.shape == (4, 8) and out.logits.shape == (4, 12)
    np.testing.assert_array_equal(out.logits, apply("student")[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("student_temp", 0.0),
        ("warmup_teacher_temp", -0.1),
        ("teacher_temp", 0.0),
        ("teacher_temp_warmup_epochs", -1),
        ("center_momentum", 1.5),
        ("momentum", -0.1),
        ("hidden_dim", 0),
        ("bottleneck_dim", 0),
        ("output_dim", 0),
        ("num_layers", 0),
        ("num_local", -1),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"DINO: {name} must be .*, got {value}"):
        DINO(**{name: value})
