"""Schedules and AdamW against the recorded reference and by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ser_jax.optim.optimizers import adamw
from ser_jax.optim.schedules import cosine_momentum, warmup_cosine


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
    momentum = cosine_momentum(settings["moco_m"], total_steps=total)
    for step, lr, m in zip(
        steps, data["moco_lr/lr"], data["moco_momentum/m"], strict=True
    ):
        np.testing.assert_allclose(learning_rate(step), lr, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(momentum(step), m, rtol=1e-6)


@pytest.mark.parity
def test_adamw_matches_the_reference(golden):
    data = golden("optim_schedules")
    settings = data.settings["adamw"]
    names = sorted({k.split("/")[1] for k in data.arrays if k.startswith("lars/p")})
    params = {name: jnp.asarray(data[f"lars/{name}"]) for name in names}
    optimizer = adamw(
        optax.constant_schedule(settings["lr"]),
        weight_decay=settings["weight_decay"],
        b1=settings["betas"][0],
        b2=settings["betas"][1],
    )
    state = optimizer.init(params)
    steps = sorted(k[-1] for k in data.arrays if k.startswith("lars/g0_step"))
    assert steps
    for step in steps:
        grads = {n: data[f"lars/g{n[1:]}_step{step}"] for n in names}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name in names:
            expected = data[f"adamw/{name}_after{step}"]
            np.testing.assert_allclose(params[name], expected, rtol=1e-6, atol=1e-6)


def test_warmup_cosine_by_hand():
    schedule = warmup_cosine(2.0, warmup_steps=4, total_steps=12, end=0.5)
    np.testing.assert_allclose(
        [schedule(s) for s in (0, 1, 4, 8, 12, 99)],
        [0.0, 0.5, 2.0, 1.25, 0.5, 0.5],
        rtol=1e-6,
    )


def test_warmup_must_end_before_the_run():
    with pytest.raises(ValueError, match="warmup_steps"):
        warmup_cosine(1.0, warmup_steps=5, total_steps=5)


def test_frozen_parameters_neither_move_nor_decay():
    params = {"encoder": {"patch_embed": jnp.ones(3), "norm": jnp.ones(3)}}
    optimizer = adamw(
        optax.constant_schedule(0.1),
        weight_decay=0.5,
        frozen=("encoder/patch_embed",),
    )
    state = optimizer.init(params)
    updates, _ = optimizer.update(params, state, params)
    np.testing.assert_array_equal(updates["encoder"]["patch_embed"], 0.0)
    assert np.all(updates["encoder"]["norm"] < 0)


def test_a_frozen_path_that_names_nothing_is_refused():
    optimizer = adamw(
        optax.constant_schedule(0.1), weight_decay=0.0, frozen=("encoder/patch",)
    )
    with pytest.raises(ValueError, match="name no parameter.*encoder/patch_embed"):
        optimizer.init({"encoder": {"patch_embed": jnp.ones(3)}})
