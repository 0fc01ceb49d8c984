"""Steps: records that cannot be read, alone and beside others; waits that are told."""

import types

import pytest

from ser_jax.data.sources import UnreadableRecordError
from ser_jax.train.progress import Stopwatch
from ser_jax.train.steps import Steps


class Loop(Steps):
    """Steps that compute nothing."""

    def _advance(self, crops):
        self._step += 1

    def _is_over(self):
        stop = self.should_stop(self._step)
        if stop:
            self._keep({})
        return stop


class Agreed:
    """Processes that stop two steps after one has asked for it."""

    received, asked_at, step = False, None, 0

    def ask_all(self):
        assert self.asked_at is None, "asked twice"
        self.asked_at = self.step

    def __call__(self, step):
        self.step = step
        return self.asked_at is not None and step == self.asked_at + 3


class Bad:
    """Too many records cannot be read, from the fourth batch on."""

    num_batches = 0

    def note(self, batch):
        self.num_batches += 1
        if self.num_batches > 3:
            raise UnreadableRecordError(f"batch {self.num_batches}")


@pytest.mark.parametrize("is_alone, last", [(True, 3), (False, 6)])
def test_what_was_trained_is_saved(is_alone, last):
    """Red if one of several processes leaves the others waiting."""
    saved = []
    resolved = types.SimpleNamespace(stop_step=10)
    experiment = types.SimpleNamespace(resolved=resolved, save_every_minutes=0.0)
    steps = Loop(
        experiment=experiment,
        mesh=None,
        state=types.SimpleNamespace(step=0),
        train_step=None,
        equiv_grad_norm=None,
        probe=None,
        write=None,
        progress=None,
        save=lambda step, *_: saved.append(step),
        should_stop=Agreed(),
        unreadable=Bad(),
    )
    steps._is_alone = is_alone
    loader = types.SimpleNamespace(take=lambda wanted: {})
    with pytest.raises(UnreadableRecordError, match="batch 4"):
        steps.run(loader)
    assert saved == [last]


def test_a_logged_row_says_and_warns_how_long_steps_waited(caplog):
    """Of the second row on: the first is that of a loader that starts."""
    rows, clock = [], iter(range(100))
    resolved = types.SimpleNamespace(stop_step=10)
    steps = Loop(
        experiment=types.SimpleNamespace(
            resolved=resolved,
            num_threads=10_000,
            num_workers=1,
            save_every_minutes=0.0,
        ),
        mesh=types.SimpleNamespace(local_devices=()),
        state=types.SimpleNamespace(step=0),
        train_step=None,
        equiv_grad_norm=None,
        probe=None,
        write=lambda step, values: rows.append(values["data_wait_frac"]),
        progress=types.SimpleNamespace(update=lambda *_: None, speeds=dict),
        save=None,
        should_stop=None,
        unreadable=types.SimpleNamespace(indices=()),
    )
    steps._waiting = Stopwatch(lambda: next(clock))
    for step in (1, 2, 3):
        with steps._waiting:
            pass
        steps._pending = (step, {"loss": 1.0, "grad_norm": 1.0}, True)
        steps._record()
    assert rows == [1 / 3] * 3
    assert ["33 % of the time" in message for message in caplog.messages] == [True]
