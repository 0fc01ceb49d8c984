"""Numbers that are not finite: the run ends, leaves the update out, or goes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.runs import run

from ser_jax.storage.metrics import read_metrics
from ser_jax.storage.reader import read_meta
from ser_jax.train import loop
from ser_jax.train.finite import Divergence, skipping
from ser_jax.train.step import TrainState

NAN = float("nan")


@pytest.fixture
def seeds(monkeypatch):
    """Seed and first step of each loader that was opened."""
    opened, whole = [], loop.train_loader

    def noted(*args, **how):
        opened.append((how["seed"], how["start_step"]))
        return whole(*args, **how)

    monkeypatch.setattr(loop, "train_loader", noted)
    return opened


@pytest.fixture
def losses_are(monkeypatch):
    """Sets what the steps give as losses; they change nothing else."""

    def given(*losses, skipped=None):
        left = iter(losses)

        def step(state, batch):
            metrics = {"loss": next(left), "grad_norm": 1.0}
            if skipped is not None:
                metrics["skipped_steps"] = float(np.isnan(metrics["loss"]))
            return state.replace(step=state.step + 1), metrics

        monkeypatch.setattr(loop, "compile_train_step", lambda *_: step)

    return given


@pytest.mark.slow
def test_rolled_back_it_goes_on_in_another_order_of_the_data(
    plain, tmp_path, losses_are, seeds, caplog
):
    plain.divergence.policy = "rollback"
    losses_are(1, 2, 3, NAN, 4, 5, 6, 7)
    assert run(plain, tmp_path, 6)["steps"] == 6
    assert "Back to step 2" in caplog.text and "(1 of 3)" in caplog.text
    (seed, first), (other, second) = seeds
    assert (first, second) == (0, 2) and other != seed
    rows = [(row["step"], row["loss"]) for row in read_metrics(tmp_path)]
    assert rows == [(1, 1), (2, 2), (3, 4), (4, 5), (5, 6), (6, 7)]
    assert read_meta(tmp_path / "checkpoints")["data_order"] == 1
    losses_are(8)  # a run that goes on keeps its order
    run(plain, tmp_path, 7)
    assert seeds[-1] == (other, 6)


@pytest.mark.slow
def test_rollbacks_come_to_an_end(plain, tmp_path, losses_are, seeds):
    plain.divergence.update(policy="rollback", max_rollbacks=2)
    losses_are(*[NAN] * 6)
    with pytest.raises(FloatingPointError, match="checkpoint: none yet") as error:
        run(plain, tmp_path, 6)
    assert len({seed for seed, _ in seeds}) == 3
    assert "policy=skip" in str(error.value) and "rollback" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_what_a_diverged_run_advises_is_accepted(plain, tmp_path, losses_are, policy):
    losses_are(1, 2, 3, NAN)
    with pytest.raises(FloatingPointError, match=f"divergence.policy=.*{policy} "):
        run(plain, tmp_path, 4)
    plain.divergence.policy = policy
    losses_are(3, 4)
    assert run(plain, tmp_path, 4)["loss_last"] == 4


@pytest.mark.slow
def test_skipped_updates_are_counted_over_resumes(plain, tmp_path, losses_are, caplog):
    losses_are(1, NAN, 2, NAN, skipped=True)
    run(plain, tmp_path, 4)
    assert caplog.text.count("is left out: loss nan, gradient norm 1.0") == 2
    losses_are(NAN, skipped=True)
    run(plain, tmp_path, 5)
    counted = [row["skipped_steps"] for row in read_metrics(tmp_path)]
    assert counted == [0, 1, 1, 2, 3]


@pytest.mark.slow
def test_too_many_skipped_in_a_row_end_the_run(plain, tmp_path, losses_are):
    plain.divergence.max_skipped = 2
    losses_are(NAN, 1, NAN, NAN, 1, skipped=True)
    with pytest.raises(FloatingPointError, match="2 updates in a row .* at step 4"):
        run(plain, tmp_path, 5)


@pytest.mark.parametrize("bad", ["loss", "grad_norm", "variables", "opt_state", None])
def test_a_step_that_is_not_finite_changes_nothing_but_counts(bad):
    """Red if one of the four is not looked at, or a state is half the new one."""

    def number(name, value):
        return jnp.asarray(NAN if name == bad else value)

    def step(state, batch):
        after = TrainState(
            state.step + 1,
            {"a": jnp.full(2, 3.0), "b": number("variables", 4.0)},
            (number("opt_state", 5.0), state.opt_state[1] + 1),
        )
        return after, {n: number(n, 1.0) for n in ("loss", "grad_norm")}

    before = TrainState(
        jnp.asarray(7),
        {"a": jnp.zeros(2), "b": jnp.zeros(())},
        (jnp.zeros(()), jnp.asarray(7)),
    )
    after, metrics = jax.jit(skipping(step))(before, None)
    expected = before if bad else step(before, None)[0]
    for part in ("variables", "opt_state"):
        found, wanted = (jax.tree.leaves(getattr(x, part)) for x in (after, expected))
        for a, b in zip(found, wanted, strict=True):
            if jnp.issubdtype(a.dtype, jnp.floating):
                np.testing.assert_array_equal(a, b)
    assert int(after.step) == int(after.opt_state[1]) == 8
    assert metrics["skipped_steps"] == (bad is not None)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"policy": "ignore"}, "one of stop, skip, rollback, got 'ignore'"),
        ({"max_skipped": 0}, "max_skipped must be at least 1, got 0"),
        ({"max_rollbacks": 0}, "max_rollbacks must be at least 1, got 0"),
    ],
)
def test_other_policies_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Divergence(**settings)
