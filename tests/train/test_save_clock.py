"""Saving by the clock: in time, at one step of all processes, for few questions."""

import numpy as np
import pytest

from ser_jax.train import save_clock
from ser_jax.train.save_clock import SaveClock


class Processes:
    """Several clocks side by side, whose `broadcast` gives the first one's answer."""

    def __init__(self, monkeypatch):
        self.num_asked, self._answers = 0, []
        broadcast = save_clock.multihost_utils
        monkeypatch.setattr(broadcast, "broadcast_one_to_all", self._broadcast)

    def _broadcast(self, value):
        self.num_asked += 1
        self._answers.append(value)
        return np.asarray(self._answers[0])

    def saves(self, clocks, step):
        """What each says; red if one is asked and another is not."""
        self._answers = []
        due = [clock.is_due(step) for clock in clocks]
        assert len(self._answers) in (0, len(clocks)) and len(set(due)) == 1
        return due[0]


def saved_at(monkeypatch, step_s, minutes, num_steps):
    """Seconds at which a run of two processes saves, and its questions."""
    now = 0.0
    processes = Processes(monkeypatch)
    clocks = [
        SaveClock(minutes, 0, clock=lambda: now),
        SaveClock(minutes, 0, clock=lambda: 7 + 1.5 * now),  # it must not count
    ]
    seconds = []
    for step in range(1, num_steps + 1):
        now += step_s(step)
        if processes.saves(clocks, step):
            seconds.append(now)
            for clock in clocks:
                clock.saved(step)
    return seconds, processes.num_asked / len(clocks)


@pytest.mark.parametrize("step_s", [0.05, 1.0, 25.0])
def test_it_saves_in_time_and_asks_seldom(monkeypatch, step_s):
    num_steps = int(3900 / step_s)
    seconds, num_asked = saved_at(monkeypatch, lambda step: step_s, 10.0, num_steps)
    np.testing.assert_allclose(np.diff([0.0, *seconds]), 600.0, atol=step_s + 1e-6)
    assert len(seconds) == 6
    assert num_asked <= 7 * 2 * np.log2(2 * 600 / step_s)


def test_steps_that_become_slow_are_noticed(monkeypatch):
    """Red if the pace of the first steps is trusted for the whole time."""

    def step_s(step):
        return 0.001 if step < 3 else 5.0  # dispatched, not waited for

    seconds, _ = saved_at(monkeypatch, step_s, 1.0, 40)
    np.testing.assert_allclose(np.diff([0.0, *seconds]), 60.0, atol=15.0)


def test_none_is_wanted(monkeypatch):
    assert saved_at(monkeypatch, lambda step: 100.0, 0.0, 50) == ([], 0)
