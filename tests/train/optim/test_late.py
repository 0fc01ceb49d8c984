"""Parameters that start late or never, against a loop as PyTorch would run it."""

import jax
import numpy as np
import optax
import pytest

from ser_jax.train.optim.late import delayed
from ser_jax.train.optim.optimizers import make_optimizer
from ser_jax.train.optim.schedules import warmup_cosine

START, NUM_STEPS = 2, 5
LATE = {"objective/prototypes": START}
RATE = warmup_cosine(0.1, warmup_steps=2, total_steps=NUM_STEPS, end=0.01, start=0.02)
BETAS = (0.8, 0.95)
DECAY = warmup_cosine(0.1, warmup_steps=0, total_steps=NUM_STEPS, end=0.5)


def parameters_and_gradients():
    rng = np.random.default_rng(0)

    def draw():
        return {
            "encoder": {"kernel": np.float32(rng.normal(size=(3, 2)))},
            "objective": {
                "prototypes": {"kernel": np.float32(rng.normal(size=(2, 4)))}
            },
        }

    return draw(), [draw() for _ in range(NUM_STEPS)]


def trained(optimizer, params, grads):
    update = jax.jit(optimizer.update)
    state, history = optimizer.init(params), []
    for grad in grads:
        updates, state = update(grad, state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history


def torch_adamw(params, grads, starts):
    """AdamW as PyTorch runs it, in float64; skipped while grad is None."""
    params = [np.float64(p) for p in jax.tree.leaves(params)]
    b1, b2 = BETAS
    moments = [(0.0, 0.0, 0)] * len(params)
    for step, grad in enumerate(grads):
        lr, decay = float(RATE(step)), float(DECAY(step))
        for i, g in enumerate(jax.tree.leaves(grad)):
            if step < starts[i]:
                continue
            mu, nu, count = moments[i]
            count += 1
            mu = b1 * mu + (1 - b1) * np.float64(g)
            nu = b2 * nu + (1 - b2) * np.float64(g) ** 2
            moments[i] = mu, nu, count
            root = np.sqrt(nu / (1 - b2**count)) + 1e-8
            params[i] = params[i] * (1 - lr * decay)
            params[i] = params[i] - lr * mu / (1 - b1**count) / root
        yield list(params)


def test_late_parameters_follow_pytorch_with_grad_none():
    params, grads = parameters_and_gradients()
    optimizer = make_optimizer(
        "adamw", RATE, weight_decay=DECAY, betas=BETAS, late=LATE
    )
    history = trained(optimizer, params, grads)
    expected = torch_adamw(params, grads, starts=(0, START))
    for after, wanted in zip(history, expected, strict=True):
        for actual, value in zip(jax.tree.leaves(after), wanted, strict=True):
            np.testing.assert_allclose(actual, value, rtol=1e-5, atol=1e-6)


OPTIMIZERS = {
    "adamw": {"name": "adamw", "clip_norm": 0.5},
    "lars outer": {"name": "lars"},
    "lars inner": {"name": "lars", "lars_form": "inner"},
    "sgd": {"name": "sgd"},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_late_parameters_stay_and_then_learn_as_if_new(case):
    """Bitwise: no moment, count or decay from before the start is left in them.

    Not jitted, as rounding is the compiler's choice.
    """
    settings = dict(OPTIMIZERS[case])
    name = settings.pop("name")
    params, grads = parameters_and_gradients()
    late = make_optimizer(name, RATE, weight_decay=DECAY, late=LATE, **settings)
    with jax.disable_jit():
        history = [p["objective"] for p in trained(late, params, grads)]
    for held in history[:START]:
        jax.tree.map(np.testing.assert_array_equal, held, params["objective"])
    new = make_optimizer(
        name, delayed(RATE, START), weight_decay=delayed(DECAY, START), **settings
    )
    own_grads = [grad["objective"] for grad in grads[START:]]
    with jax.disable_jit():
        fresh = trained(new, params["objective"], own_grads)
    jax.tree.map(np.testing.assert_array_equal, history[START:], fresh)
    assert np.any(
        fresh[0]["prototypes"]["kernel"] != history[0]["prototypes"]["kernel"]
    )


def test_a_start_at_step_zero_is_no_delay():
    params, grads = parameters_and_gradients()
    at_zero = make_optimizer(
        "adamw", RATE, weight_decay=DECAY, late={"objective/prototypes": 0}
    )
    without = make_optimizer("adamw", RATE, weight_decay=DECAY)
    jax.tree.map(
        np.testing.assert_array_equal,
        *(trained(optimizer, params, grads) for optimizer in (at_zero, without)),
    )


def test_frozen_parameters_neither_move_nor_decay():
    params, grads = parameters_and_gradients()
    optimizer = make_optimizer(
        "adamw", 0.1, weight_decay=0.5, frozen=("encoder/kernel",)
    )
    history = trained(optimizer, params, grads)
    jax.tree.map(
        np.testing.assert_array_equal, history[-1]["encoder"], params["encoder"]
    )
    moved = history[0]["objective"]["prototypes"]["kernel"]
    assert np.all(moved != params["objective"]["prototypes"]["kernel"])


@pytest.mark.parametrize(
    "settings", [{"frozen": ("encoder/k",)}, {"late": {"objective/proto": 1}}]
)
def test_a_path_that_names_nothing_is_refused(settings):
    optimizer = make_optimizer("adamw", 0.1, weight_decay=0.0, **settings)
    with pytest.raises(ValueError, match="name no parameter.*'encoder/kernel'"):
        optimizer.init(parameters_and_gradients()[0])


@pytest.mark.parametrize("path", ["objective", *LATE])
def test_a_parameter_named_twice_is_refused(path):
    optimizer = make_optimizer(
        "adamw", 0.1, weight_decay=0.0, frozen=(path,), late=LATE
    )
    with pytest.raises(ValueError, match="objective/prototypes/kernel is named by"):
        optimizer.init(parameters_and_gradients()[0])
