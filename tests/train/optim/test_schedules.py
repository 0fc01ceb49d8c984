"""Schedules against the recorded reference and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.train.optim.schedules import cosine_momentum, equiv_factor, warmup_cosine


def values(schedule, steps):
    return jax.jit(jax.vmap(schedule))(jnp.asarray(steps))


def assert_recorded(schedule, expected, steps=None):
    """Compares at every step; float32 against float64, on the schedule's scale."""
    steps = np.arange(len(expected)) if steps is None else steps
    atol = 2e-7 * np.max(np.abs(expected))
    np.testing.assert_allclose(values(schedule, steps), expected, rtol=1e-6, atol=atol)


def in_steps(settings, name):
    """One schedule's settings, and the same with epochs as steps."""
    per_epoch = settings["schedules"]["iters_per_epoch"]
    own = settings["schedules"][name]
    steps = {
        f"{key.removesuffix('_epochs')}_steps": value * per_epoch
        for key, value in own.items()
        if key.endswith("_epochs")
    }
    return own, steps | {"total_steps": settings["schedules"]["epochs"] * per_epoch}


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", ["cosine", "cosine_warm_from", "dino_weight_decay", "dino_teacher_momentum"]
)
def test_cosines_match_the_reference(golden, name):
    data = golden("optim_schedules")
    own, steps = in_steps(data.settings, name)
    schedule = warmup_cosine(
        own["base"],
        **steps,
        start=own.get("start", 0.0),
        end=own["final"],
        inclusive=True,
    )
    assert_recorded(schedule, data[f"schedule/{name}"])


@pytest.mark.parity
def test_teacher_momentum_is_the_momentum_cosine(golden):
    data = golden("optim_schedules")
    own, steps = in_steps(data.settings, "dino_teacher_momentum")
    schedule = cosine_momentum(own["base"], total_steps=steps["total_steps"])
    assert_recorded(schedule, data["schedule/dino_teacher_momentum"])


@pytest.mark.parity
@pytest.mark.parametrize(
    "name",
    [
        "cosine_lambda",
        *(f"equiv_ratio_{kind}" for kind in ("constant", "base", "ascend", "descend")),
    ],
)
def test_equivariance_factors_match_the_reference(golden, name):
    data = golden("optim_schedules")
    own, steps = in_steps(data.settings, name)
    ratio = own.get("ratio", 0.0)
    start, end = own.get("start", ratio), own.get("end", own.get("base", ratio))
    if name == "cosine_lambda":
        start = 0.0
    assert_recorded(equiv_factor(start, end, **steps), data[f"schedule/{name}"])


@pytest.mark.parity
def test_moco_schedules_match_the_reference(golden):
    data = golden("optim_schedules")
    settings = data.settings["moco_schedule"]
    steps_per_epoch = 1000  # epochs are recorded as fractions
    steps = data["moco_lr/epochs"] * steps_per_epoch
    total = settings["epochs"] * steps_per_epoch
    learning_rate = warmup_cosine(
        settings["peak_lr"],
        warmup_steps=settings["warmup_epochs"] * steps_per_epoch,
        total_steps=total,
    )
    assert_recorded(learning_rate, data["moco_lr/lr"], steps)
    momentum = cosine_momentum(settings["moco_m"], total_steps=total)
    assert_recorded(momentum, data["moco_momentum/m"], steps)


@pytest.mark.parity
def test_barlow_twins_rates_match_the_reference(golden):
    data = golden("optim_schedules")
    settings = data.settings["bt_schedule"]
    weights, biases = (
        settings[f"learning_rate_{group}"] for group in ("weights", "biases")
    )
    per_epoch = settings["iters_per_epoch"]
    peak = weights * settings["batch_size"] / 256
    schedule = warmup_cosine(
        peak,
        warmup_steps=10 * per_epoch,  # fixed in the original
        total_steps=settings["epochs"] * per_epoch,
        end=peak / 1000,
    )
    # columns: a ViT's only group, a ResNet's weights, its biases
    for column, factor in enumerate((1.0, 1.0, biases / weights)):
        assert_recorded(
            lambda step, factor=factor: factor * schedule(step),
            data["bt_lr/lr"][:, column],
            data["bt_lr/steps"],
        )


def test_warmup_cosine_by_hand():
    schedule = warmup_cosine(2.0, warmup_steps=4, total_steps=12, end=0.5)
    np.testing.assert_allclose(
        values(schedule, [0, 1, 4, 8, 12, 99]),
        [0.0, 0.5, 2.0, 1.25, 0.5, 0.5],
        rtol=1e-6,
    )


def test_inclusive_warmup_reaches_the_peak_on_its_last_step():
    settings = {"warmup_steps": 4, "total_steps": 12, "start": 0.5}
    outside = values(warmup_cosine(2.0, **settings), np.arange(5))
    inside = values(warmup_cosine(2.0, **settings, inclusive=True), np.arange(5))
    np.testing.assert_allclose(outside, [0.5, 0.875, 1.25, 1.625, 2.0])
    np.testing.assert_allclose(inside, [0.5, 1.0, 1.5, 2.0, 2.0])


def test_inclusive_warmup_of_one_step_is_its_start():
    schedule = warmup_cosine(
        2.0, warmup_steps=1, total_steps=3, start=0.5, inclusive=True
    )
    np.testing.assert_allclose(values(schedule, [0, 1]), [0.5, 2.0])


def test_constant_factor_is_exact_and_zero_outside_its_steps():
    schedule = equiv_factor(0.3, 0.3, total_steps=9, warmup_steps=2, rest_steps=3)
    expected = np.float32([0, 0, 0.3, 0.3, 0.3, 0.3, 0, 0, 0])
    np.testing.assert_array_equal(values(schedule, np.arange(9)), expected)


def test_warmup_must_end_before_the_run():
    with pytest.raises(ValueError, match="warmup_steps.*5 of 5"):
        warmup_cosine(1.0, warmup_steps=5, total_steps=5)


@pytest.mark.parametrize("warmup, rest", [(3, 2), (-1, 0), (0, -1)])
def test_factor_must_be_left_some_steps(warmup, rest):
    with pytest.raises(ValueError, match="rest_steps"):
        equiv_factor(1.0, 1.0, total_steps=5, warmup_steps=warmup, rest_steps=rest)
