"""A further seed is within the spread, what is no such seed is not: made-up curves."""

import numpy as np
import pytest

from ser_jax.methods.metric import Metric, Panel
from ser_jax.report.spread import compare, spread

NUM_STEPS = 120
STEPS = np.arange(2, NUM_STEPS + 1, 2)
LOSS = Metric("loss", Panel("loss"), "total")
ACCURACY = Metric("accuracy", Panel("accuracy"), "k-NN")


def seed_curves(rng, memory, spread_early=5.0):
    """A falling loss and a rising accuracy; noise with a memory, larger at first."""

    def noise(steps, size):
        walk = np.zeros(len(steps))
        drawn = rng.normal(size=len(steps))
        for i in range(len(steps)):
            last = walk[i - 1] if i else drawn[i]
            walk[i] = memory * last + np.sqrt(1 - memory**2) * drawn[i]
        return size * walk * (1 + (spread_early - 1) * np.exp(-steps / 20))

    probes = np.arange(0, NUM_STEPS + 1, 20)
    loss = 6 + 4 * np.exp(-STEPS / 30) + noise(STEPS, 0.05)
    accuracy = 0.8 - 0.5 * np.exp(-probes / 30) + noise(probes, 0.01)
    return {
        "loss": np.stack([STEPS, loss], axis=1),
        "accuracy": np.stack([probes, accuracy], axis=1),
    }


def outside(run, seeds, metrics=(LOSS, ACCURACY)):
    """Whether anything is."""
    found = compare(run, seeds, metrics, NUM_STEPS)
    return any(windows.is_outside.any() for windows in found.values())


@pytest.mark.parametrize("memory", [0.0, 0.8, 0.99])
@pytest.mark.parametrize("num_seeds", [3, 5])
def test_a_further_seed_is_within(memory, num_seeds):
    """Red if more than one in a hundred or so is told apart."""
    rng = np.random.default_rng(0)
    draw = [
        [seed_curves(rng, memory) for _ in range(num_seeds + 1)] for _ in range(100)
    ]
    assert sum(outside(run, seeds) for run, *seeds in draw) <= 3


def test_where_a_run_leaves_is_found():
    rng = np.random.default_rng(1)
    run, *seeds = [seed_curves(rng, 0.5) for _ in range(6)]
    steps, values = run["loss"].T
    run["loss"] = np.stack([steps, values + np.where(steps > 60, 1.0, 0)], axis=1)
    windows = compare(run, seeds, (LOSS, ACCURACY), NUM_STEPS)
    assert windows["loss"].is_outside.tolist() == [False] * 6 + [True] * 6
    np.testing.assert_allclose(windows["loss"].shares[6], 66 / NUM_STEPS)
    assert not windows["accuracy"].is_outside.any()


def test_equal_seeds_leave_room_for_another_device():
    curves = [{"loss": np.stack([STEPS, np.full(60, 8.0)], axis=1)}] * 3
    assert not outside({"loss": curves[0]["loss"] * [1, 1.004]}, curves)
    assert outside({"loss": curves[0]["loss"] * [1, 1.006]}, curves)
    zeros = {"loss": curves[0]["loss"] * [1, 0]}  # a term that is not there
    assert not outside(zeros, [zeros] * 3)


def test_seeds_that_keep_their_distance_count_once_and_others_by_window():
    rng = np.random.default_rng(2)
    offsets = np.repeat(rng.normal(size=(4, 1)), 12, axis=1)
    deviation, freedom = spread(offsets)
    np.testing.assert_allclose(freedom, 3)
    np.testing.assert_allclose(deviation, np.std(offsets[:, 0], ddof=1))
    _, freedom = spread(rng.normal(size=(400, 12)))
    np.testing.assert_allclose(freedom / 399, [3, 4, *[5] * 8, 4, 3], rtol=0.05)


def test_a_window_has_at_least_its_own_spread():
    rng = np.random.default_rng(3)
    seeds = rng.normal(size=(5, 12)) * ([10] + [1] * 11)
    deviation, _ = spread(seeds)
    np.testing.assert_allclose(deviation[0], np.std(seeds[:, 0], ddof=1))
    assert (deviation[1:] >= np.std(seeds[:, 1:], axis=0, ddof=1) - 1e-12).all()


def test_a_run_is_compared_where_it_has_logged():
    """Red if a run that has not ended, or logs at other steps, is held to others."""
    rng = np.random.default_rng(4)
    run, *seeds = [seed_curves(rng, 0.0) for _ in range(5)]
    early = {"loss": run["loss"][:13]}  # to step 26
    (windows,) = compare(early, seeds, (LOSS, ACCURACY), NUM_STEPS).values()
    np.testing.assert_allclose(windows.shares * NUM_STEPS, [6, 16, 24])
    seldom = {"loss": run["loss"][4::20] + [1, 0]}  # steps 11, 51, 91
    seldom["loss"] = np.concatenate([seldom["loss"], [[NUM_STEPS + 30, 99.0]]])
    windows = compare(seldom, seeds, (LOSS,), NUM_STEPS)["loss"]
    np.testing.assert_allclose(windows.shares * NUM_STEPS, [11, 51, 91])
    between = [(seed["loss"][4, 1] + seed["loss"][5, 1]) / 2 for seed in seeds]
    np.testing.assert_allclose(windows.seeds[:, 0], between)
    assert not compare({"other": run["loss"]}, seeds, (LOSS,), NUM_STEPS)


def test_positive_metrics_are_compared_by_their_logarithms():
    rng = np.random.default_rng(5)
    norms = np.exp(rng.normal(size=(6, 60)))
    run, *seeds = [{"loss": np.stack([STEPS, values], axis=1)} for values in norms]
    windows = compare(run, seeds, (LOSS,), NUM_STEPS)["loss"]
    assert (windows.low > 0).all() and not windows.is_outside.any()
    middle = np.exp(np.log(windows.seeds).mean(axis=0))
    np.testing.assert_allclose(np.sqrt(windows.low * windows.high), middle)
    assert outside({"loss": run["loss"] * [1, 0]}, seeds)
    lower = [{"loss": seed["loss"] - [0, 9]} for seed in seeds]
    windows = compare(lower[0], lower, (LOSS,), NUM_STEPS)["loss"]
    mean = windows.seeds.mean(axis=0)
    np.testing.assert_allclose((windows.low + windows.high) / 2, mean)
