"""Optimizers against the recorded reference and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ser_jax.train.optim.lars import lars
from ser_jax.train.optim.optimizers import make_optimizer
from ser_jax.train.optim.parameters import all_parameters, not_1d

RATES = np.float32([0.1, 0.2, 0.4])


def rate(step):
    """A learning rate that changes with every step."""
    return jnp.asarray(RATES)[step]


def trained(optimizer, params, grads):
    """Parameters after each of the gradients."""
    update = jax.jit(optimizer.update)
    state, history = optimizer.init(params), []
    for grad in grads:
        updates, state = update(grad, state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history


def assert_recorded(optimizer, data, prefix):
    names = sorted({k.split("/")[1] for k in data.arrays if k.startswith("lars/p")})
    steps = sorted(k[-1] for k in data.arrays if k.startswith("lars/g0_step"))
    assert names and steps
    params = {name: jnp.asarray(data[f"lars/{name}"]) for name in names}
    grads = [{n: data[f"lars/g{n[1:]}_step{step}"] for n in names} for step in steps]
    for step, after in zip(steps, trained(optimizer, params, grads), strict=True):
        for name in names:
            expected = data[f"{prefix}/{name}_after{step}"]
            np.testing.assert_allclose(after[name], expected, rtol=1e-6, atol=1e-6)


def above_1d(params):
    """Mask that leaves out 0-D parameters too."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


@pytest.mark.parity
@pytest.mark.parametrize(
    "version, mask, form",
    [
        ("moco", not_1d, "outer"),
        ("moco", not_1d, "inner"),
        ("utils_moco", above_1d, "outer"),
        ("bt_filtered", not_1d, "outer"),
        ("bt_unfiltered", all_parameters, "outer"),
    ],
)
def test_lars_matches_the_reference(golden, version, mask, form):
    # Recorded at a constant learning rate, where both forms are the same.
    data = golden("optim_schedules")
    settings = data.settings["lars"]
    assert version in settings["versions"]
    optimizer = lars(
        settings["lr"],
        settings["weight_decay"],
        mask,
        momentum=settings["momentum"],
        lars_form=form,
        trust_coefficient=settings["trust_coefficient"],
    )
    assert_recorded(optimizer, data, f"lars/{version}")


@pytest.mark.parity
def test_adamw_matches_the_reference(golden):
    data = golden("optim_schedules")
    settings = data.settings["adamw"]
    optimizer = make_optimizer(
        "adamw",
        settings["lr"],
        weight_decay=settings["weight_decay"],
        betas=tuple(settings["betas"]),
    )
    assert_recorded(optimizer, data, "adamw")


def parameters_and_gradients():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=3)}
    return params, [
        {name: rng.normal(size=p.shape) for name, p in params.items()} for _ in RATES
    ]


def float32(tree):
    return jax.tree.map(jnp.float32, tree)


@pytest.mark.parametrize("form", ["outer", "inner"])
def test_lars_by_hand_while_the_learning_rate_rises(form):
    params, grads = parameters_and_gradients()
    optimizer = make_optimizer(
        "lars",
        rate,
        weight_decay=0.1,
        decay_mask="no_1d",
        momentum=0.8,
        lars_form=form,
        bias_lr_factor=0.5,
    )
    history = trained(optimizer, float32(params), float32(grads))
    buffer = {name: 0.0 for name in params}
    for after, grad, lr in zip(history, grads, RATES, strict=True):
        for name, p in params.items():
            g, factor = grad[name], 0.5
            if name == "w":
                g, factor = g + 0.1 * p, 1.0
                g = g * 0.001 * np.linalg.norm(p) / np.linalg.norm(g)
            if form == "outer":
                buffer[name] = 0.8 * buffer[name] + g
                params[name] = p - factor * lr * buffer[name]
            else:
                buffer[name] = 0.8 * buffer[name] + lr * g
                params[name] = p - factor * buffer[name]
            np.testing.assert_allclose(after[name], params[name], rtol=1e-5)


def test_sgd_with_clipping_by_hand():
    params, grads = parameters_and_gradients()
    optimizer = make_optimizer(
        "sgd",
        rate,
        weight_decay=0.1,
        decay_mask="no_1d",
        momentum=0.8,
        clip_norm=1.5,
    )
    history = trained(optimizer, float32(params), float32(grads))
    buffer = {name: 0.0 for name in params}
    for after, grad, lr in zip(history, grads, RATES, strict=True):
        for name, p in params.items():
            decay = 0.1 if name == "w" else 0.0
            clip = min(1.0, 1.5 / (np.linalg.norm(grad[name]) + 1e-6))
            buffer[name] = 0.8 * buffer[name] + clip * grad[name] + decay * p
            params[name] = p - lr * buffer[name]
            np.testing.assert_allclose(after[name], params[name], rtol=1e-5)


def test_decay_follows_its_schedule_times_the_learning_rate():
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    optimizer = make_optimizer(
        "adamw",
        rate,
        weight_decay=lambda step: 0.3 + 0.1 * step,
        decay_mask="no_1d",
    )
    zeros = jax.tree.map(jnp.zeros_like, params)  # so that nothing but decay moves
    history = trained(optimizer, params, [zeros] * len(RATES))
    expected = np.cumprod(1 - RATES * [0.3, 0.4, 0.5])
    np.testing.assert_allclose([p["w"][0, 0] for p in history], expected, rtol=1e-6)
    np.testing.assert_array_equal(history[-1]["b"], 1.0)


@pytest.mark.parametrize("name", ["adamw", "lars", "sgd"])
def test_state_is_arrays_that_keep_their_types(name):
    """A change of type would compile the step anew and fail to restore."""
    params = {"objective": {"prototypes": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    optimizer = make_optimizer(
        name,
        rate,
        weight_decay=rate,
        decay_mask="no_1d",
        clip_norm=1.0,
        bias_lr_factor=0.5,
        late={"objective/prototypes": 2},
        frozen=("objective/bias",),
    )
    state = optimizer.init(params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    before = jax.tree.map(jax.typeof, state)

    def step(params, state):
        updates, state = optimizer.update(params, state, params)
        return optax.apply_updates(params, updates), state

    _, state = jax.jit(step, donate_argnums=(0, 1))(params, state)
    assert jax.tree.map(jax.typeof, state) == before


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "adam"}, "'adam' is not known; there are: adamw, lars, sgd"),
        ({"name": "adamw", "momentum": 0.9}, "adamw has no momentum, only betas"),
        ({"name": "sgd", "lars_form": "outer"}, "sgd has no lars_form, only momentum"),
        ({"name": "lars", "betas": (0.9, 0.95)}, "no betas, only momentum and lars_"),
        ({"name": "lars", "lars_form": "both"}, "'outer' or 'inner', got 'both'"),
        ({"name": "sgd", "decay_mask": "1d"}, "'all' or 'no_1d', got '1d'"),
        ({"name": "sgd", "bias_lr_factor": 0.0}, "positive, got 0.0; name .* frozen"),
        ({"name": "sgd", "clip_norm": -1.0}, "must be positive, got -1.0"),
        ({"name": "sgd", "late": {"encoder": -1}}, "steps >= 0, got {'encoder': -1}"),
    ],
)
def test_what_is_refused(settings, message):
    name = settings.pop("name")
    with pytest.raises(ValueError, match=message):
        make_optimizer(name, 0.1, weight_decay=0.0, **settings)
