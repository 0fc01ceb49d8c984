"""How a run ends before its time: signals, errors, numbers that are none, a lock."""

import os
import pathlib
import signal

import pytest
from helpers.runs import assert_same_state, final_state, run

from ser_jax import main
from ser_jax.data.crops import CropSpec
from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.data.sources import open_source
from ser_jax.storage.lock import only_writer
from ser_jax.train import loop

pytestmark = pytest.mark.slow


class Meets:
    """A loader in which something happens after some batches."""

    def __init__(self, loader, num_batches, event):
        self._loader, self._left, self._event = loader, num_batches, event
        self.close = loader.close

    def take(self, wanted):
        if self._left == 0:
            self._event()
        self._left -= 1
        return self._loader.take(wanted)


@pytest.fixture
def after_three(monkeypatch):
    """Sets what happens to the loader after three batches."""
    whole = loop.train_loader

    def happens(event):
        monkeypatch.setattr(
            loop,
            "train_loader",
            lambda *args, **how: Meets(whole(*args, **how), 3, event),
        )

    return happens


@pytest.mark.parametrize(
    "name, status",
    [("SIGTERM", 75), ("SIGINT", 130), ("SIGHUP", 75), ("SIGUSR1", 75)],
)
def test_a_signal_saves_and_stops_and_the_run_goes_on(
    plain, tmp_path, after_three, caplog, name, status
):
    plain.checkpoint.every_steps = 10**6
    plain.max_steps = 300
    after_three(lambda: signal.raise_signal(getattr(signal, name)))
    assert main.run(plain, tmp_path) == status
    saved = final_state(plain, tmp_path)[1]
    assert 3 <= saved <= 4
    assert f"{name}: saved step {saved}" in caplog.text
    assert not (tmp_path / "summary.json").exists()
    if name == "SIGTERM":  # what a scheduler sends before it runs the job again
        after_three(lambda: None)
        run(plain, tmp_path, saved + 1)
        assert final_state(plain, tmp_path)[1] == saved + 1


def test_whatever_ends_training_what_was_trained_is_saved(plain, tmp_path, after_three):
    """Red if an error of the loader costs the steps since the last checkpoint."""
    plain.checkpoint.every_steps = 10**6

    def fail():
        raise OSError("the disk is gone")

    after_three(fail)
    with pytest.raises(OSError, match="the disk is gone"):
        run(plain, tmp_path, 6)
    assert final_state(plain, tmp_path)[1] == 3


def test_a_record_that_cannot_be_read(plain, tmp_path):
    """Red if going on without it is another run after an interruption."""
    plain.dataset.data_dir = str(tmp_path / "data")
    plain.checkpoint.every_steps = 10**6
    source = open_source("digits", "train", tmp_path / "data")
    crops = RandomCrops((CropSpec("a", 8),))
    order = train_loader(
        source,
        crops,
        batch_size=plain.batch_size,
        seed=plain.seed,
        num_threads=1,
        prefetch_batches=1,
        start_step=2,
    )
    bad = int(next(order)["index"][5])
    order.close()
    shard = pathlib.Path(source.shards[0].path)
    data, image = bytearray(shard.read_bytes()), source[bad]["image"]
    data[bytes(data).index(image) + len(image) // 2] ^= 8
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=f"record {bad} of 'digits'.*max_bad_frac"):
        run(plain, tmp_path / "run", 5)
    assert final_state(plain, tmp_path / "run")[1] == 2
    plain.loader.max_bad_frac = 0.01
    for workdir in (tmp_path / "run", tmp_path / "other"):
        assert run(plain, workdir, 5)["unreadable_records"] == 1
    states = [final_state(plain, tmp_path / name)[0] for name in ("run", "other")]
    assert_same_state(*states)


def test_weights_that_are_not_finite_are_not_saved(plain, tmp_path):
    """Loss and gradient of that step are: red if only these are looked at."""
    plain.optimizer.base_lr = 1e42
    plain.checkpoint.every_steps = 1
    with pytest.raises(FloatingPointError, match=r"after step 1 \d+ of \d+ arrays"):
        run(plain, tmp_path, 8)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_one_run_at_a_time_trains_into_a_workdir(plain, tmp_path):
    with only_writer(tmp_path):
        with pytest.raises(OSError, match=rf"by process {os.getpid()} on .*another"):
            run(plain, tmp_path, 1)
    assert not (tmp_path / "checkpoints").exists()
