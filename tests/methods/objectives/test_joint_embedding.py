"""Barlow Twins, SimCLR, BYOL: published constants, multi-crop, heads, settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.methods.losses.barlow_twins import cross_correlation, redundancy_reduction
from ser_jax.methods.losses.contrastive import nt_xent
from ser_jax.methods.losses.cosine import cosine_regression
from ser_jax.methods.objectives.barlow_twins import BarlowTwins
from ser_jax.methods.objectives.base import GLOBAL_VIEWS, unordered_pairs
from ser_jax.methods.objectives.byol import BYOL
from ser_jax.methods.objectives.simclr import SimCLR

# Many small compilations.
pytestmark = pytest.mark.slow


@functools.partial(jax.jit, static_argnums=0)
def barlow_pair(objective, a, b):
    c = cross_correlation(a, b)
    return redundancy_reduction(c, off_diagonal_weight=objective.off_diagonal_weight)


@functools.partial(jax.jit, static_argnums=0)
def simclr_pair(objective, a, b):
    """Google's constant: a mean over the anchors of each view, summed."""
    loss, _ = nt_xent(a, b, temperature=objective.temperature)
    return loss[0].mean() + loss[1].mean()


OBJECTIVES = [BarlowTwins, SimCLR, BYOL]
PAIR_LOSS = {BarlowTwins: barlow_pair, SimCLR: simclr_pair}


def outputs(objective, b=5, d=3):
    """Random student and target outputs by view."""
    rng = np.random.default_rng(0)

    def draw(names):
        return {name: rng.normal(size=(b, d)).astype(np.float32) for name in names}

    student = draw(spec.name for spec in objective.views)
    return student, draw(objective.target.views) if objective.target else {}


def run(objective):
    student, target = outputs(objective)
    loss, metrics, state = jax.jit(objective.loss)(student, target, {}, 0)
    assert state == {}
    return loss, metrics, student, target


def test_pairs_hold_a_global_view_and_come_once():
    assert unordered_pairs(0) == (GLOBAL_VIEWS,)
    assert set(unordered_pairs(2)) == {
        ("global/0", "global/1"),
        *(("global/0", "local/0"), ("global/0", "local/1")),
        *(("global/1", "local/0"), ("global/1", "local/1")),
    }
    assert len(unordered_pairs(2)) == 5


@pytest.mark.parametrize("num_local", [0, 2])
@pytest.mark.parametrize("method", [BarlowTwins, SimCLR])
def test_symmetric_loss_is_the_mean_over_pairs(method, num_local):
    objective = method(num_local=num_local)
    loss, _, student, _ = run(objective)
    g0, g1, *local = (student[spec.name] for spec in objective.views)
    pairs = [(g0, g1)] + [(g, x) for g in (g0, g1) for x in local]
    expected = np.mean([PAIR_LOSS[method](objective, a, b) for a, b in pairs])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_simclr_of_equimod_is_the_mean_over_all_anchors():
    google, equimod = (run(SimCLR(reduction=r))[0] for r in ("sum", "mean"))
    np.testing.assert_allclose(equimod, google / 2, rtol=1e-6)
    with pytest.raises(ValueError, match="'sum' or 'mean'"):
        SimCLR(reduction="half")


@pytest.mark.parametrize("num_local", [0, 2])
def test_byol_is_twice_the_mean_over_ordered_pairs(num_local):
    objective = BYOL(num_local=num_local)
    loss, _, student, target = run(objective)
    regression = jax.jit(cosine_regression)
    losses = [
        np.mean(regression(student[view], target[other]))
        for view in student
        for other in target
        if view != other
    ]
    assert len(losses) == 2 * (1 + num_local)
    np.testing.assert_allclose(loss, 2 * np.mean(losses), rtol=1e-5)
    if num_local == 0:  # the published form: both directions summed
        np.testing.assert_allclose(loss, losses[0] + losses[1], rtol=1e-5)


@pytest.mark.parametrize("method", OBJECTIVES)
def test_embedding_std_tells_spread_from_collapse(method):
    objective = method()
    k = 4
    for embeddings, std in (
        (np.eye(k), np.sqrt(1 / k - 1 / k**2)),
        (np.ones((k, k)), 0.0),
    ):
        views = dict.fromkeys(GLOBAL_VIEWS, embeddings)
        _, metrics, _ = jax.jit(objective.loss)(views, views, {}, 0)
        np.testing.assert_allclose(metrics["embedding_std"], std, atol=1e-6)


def test_agreement_metrics():
    z = np.random.default_rng(0).normal(size=(6, 3))
    same = dict.fromkeys(GLOBAL_VIEWS, z)
    opposite = dict(zip(GLOBAL_VIEWS, (z, -z), strict=True))
    for views, correlation, accuracy in ((same, 1.0, 1.0), (opposite, -1.0, 0.0)):
        _, metrics, _ = jax.jit(BarlowTwins().loss)(views, {}, {}, 0)
        np.testing.assert_allclose(metrics["mean_correlation"], correlation, rtol=1e-4)
        _, metrics, _ = jax.jit(SimCLR().loss)(views, {}, {}, 0)
        np.testing.assert_allclose(metrics["contrastive_accuracy"], accuracy)


@pytest.mark.parametrize("method", OBJECTIVES)
def test_heads(rng, method):
    objective = method(hidden_dim=16, output_dim=4)
    heads = objective.make_heads()
    cls = jax.random.normal(rng, (8, 6))
    variables = jax.jit(lambda: heads.init(rng, cls, True, method="student"))()

    def apply(name):
        return jax.jit(
            lambda v: heads.apply(v, cls, True, method=name, mutable="batch_stats")[0]
        )(variables)

    z = apply("student")
    assert z.shape == (8, 4) and z.dtype == jnp.float32
    # Only SimCLR's head ends in a BatchNorm.
    ends_standardized = np.allclose(np.std(z, axis=0), 1.0, atol=1e-2)
    assert ends_standardized == (method is SimCLR)
    params = variables["params"]
    if method is BYOL:
        assert set(params) == {"projector", "predictor"}
        for mlp in params.values():
            assert "bias" in mlp["fc1"] and "bias" not in mlp["fc2"]
        assert set(objective.target.heads) == {"projector"}
        assert objective.target.advance == "after_update"
        assert not np.allclose(apply("target"), z)
    else:
        assert set(params) == {"projector"} and objective.target is None
        assert len([key for key in params["projector"] if "fc" in key]) == 3


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        (BarlowTwins, "off_diagonal_weight", 0.0),
        (SimCLR, "temperature", -0.1),
        (SimCLR, "num_layers", 0),
        (BYOL, "momentum", 1.1),
        *((m, "hidden_dim", 0) for m in OBJECTIVES),
        *((m, "output_dim", 0) for m in OBJECTIVES),
        *((m, "num_local", -1) for m in OBJECTIVES),
    ],
)
def test_settings_out_of_range_are_refused(method, name, value):
    message = rf"{method.__name__}: {name} must be .*, got {value}"
    with pytest.raises(ValueError, match=message):
        method(**{name: value})


def test_a_shift_of_all_features_does_not_move_barlow_twins(monkeypatch):
    """The projector's BatchNorm takes it out: an encoder's last bias has no gradient.

    In float32 what is left is rounding (5e-6 in the recorded step, as much as in ours),
    which says nothing; in float64 it is seen to be none.
    """
    monkeypatch.setattr(jnp, "float32", jnp.float64)  # the parts ask for it by name
    with jax.enable_x64(True):
        heads = BarlowTwins(hidden_dim=8, output_dim=4).make_heads()
        views = jax.random.normal(jax.random.key(0), (2, 6, 5))
        variables = heads.init(jax.random.key(1), views[0], True, method="student")

        @jax.jit
        @functools.partial(jax.grad, argnums=(0, 1))
        def grads(shift, views):
            z_a, z_b = (
                heads.apply(
                    variables,
                    view + shift,
                    True,
                    method="student",
                    mutable=["batch_stats"],
                )[0]
                for view in views
            )
            correlation = cross_correlation(z_a, z_b)
            return redundancy_reduction(correlation, off_diagonal_weight=0.005)

        of_shift, of_views = grads(jnp.zeros((1, 5)), views)
    assert of_views.dtype == np.float64 and np.abs(of_views).max() > 0.01
    assert np.abs(of_shift).max() < 1e-12
