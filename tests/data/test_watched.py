"""Waiting for batches: deadlines, signals, workers that stop, end or are left alone."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ser_jax.data import loader, sources
from ser_jax.data.crops import CropSpec
from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.watched import Watched

CROPS = RandomCrops((CropSpec("a", 8),))


class Slow:
    """Batches that never come once `count` have."""

    def __init__(self, count):
        self._left, self.is_closed = count, False

    def __next__(self):
        while self._left == 0 and not self.is_closed:
            time.sleep(0.01)
        self._left -= 1
        return self._left

    def close(self):
        self.is_closed = True


def test_a_batch_that_does_not_come_is_an_error_in_time():
    slow = Slow(1)
    batches = Watched(lambda: slow, timeout_s=0.5)
    assert next(batches) == 0
    with pytest.raises(
        TimeoutError, match=r"no batch came for 0.5 s \(loader.timeout_s"
    ):
        next(batches)
    slow.close()
    batches.close()


def test_one_that_is_not_wanted_any_more_is_not_waited_for():
    slow = Slow(0)
    batches = Watched(lambda: slow, timeout_s=100.0)
    assert batches.take(lambda: False) is None
    slow.close()
    batches.close()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return sources.open_source("digits", "test[:64]", tmp_path_factory.mktemp("data"))


def with_worker(source, timeout_s):
    return loader.train_loader(
        source,
        CROPS,
        batch_size=8,
        seed=0,
        num_threads=1,
        prefetch_batches=1,
        num_workers=1,
        timeout_s=timeout_s,
    )


@pytest.mark.slow
def test_a_worker_that_ended_or_is_stopped_is_named(source):
    """Red if a run waits for it for ever, or dies of it without a word.

    Or if a signal that a run should save at takes its worker away first.
    """
    batches = with_worker(source, timeout_s=120.0)  # until the worker has started
    assert np.shape(next(batches)["crops"]["a"]) == (8, 8, 8, 3)
    batches._timeout_s = 3.0
    (worker,) = batches._workers()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        os.kill(worker.pid, number)  # as to the whole group: meant for the run
    for _ in range(20):
        next(batches)
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError, match=f"worker {worker.pid} is stopped"):
        for _ in range(20):
            next(batches)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=f"{worker.pid} has ended by SIGKILL"):
        next(batches)
    batches.close()


PARENT = """
import os, sys, time
from absl import flags
from ser_jax.data import loader, sources
from test_watched import with_worker
if __name__ == "__main__":
    flags.FLAGS(["x"])
    batches = with_worker(sources.open_source("digits", "test[:64]", sys.argv[1]), 60.0)
    next(batches)
    print(batches._workers()[0].pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(source, tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, tmp_path / "parent.py", tmp_path],
        env=os.environ | {"PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    pid, end = int(done.stdout), time.monotonic() + 10
    while time.monotonic() < end and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{pid}")
