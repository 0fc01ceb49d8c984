"""A run in a bucket: the local run's parameters, bit for bit, also after a kill."""

import dataclasses
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from helpers.runs import (
    assert_close_state,
    assert_same_state,
    final_state,
    losses,
    run,
)
from helpers.support import program_env, tiny_config, write_config

from ser_jax import main
from ser_jax.evaluate.open import open_run
from ser_jax.evaluate.results import evaluate
from ser_jax.report.write import report
from ser_jax.storage import lease
from ser_jax.storage.files import as_path, matching
from ser_jax.storage.reader import list_steps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local(tmp_path_factory, data_dir):
    """Four steps on a disk: state, losses by step, names of the files."""
    workdir = tmp_path_factory.mktemp("local")
    config = tiny_config()
    config.dataset.data_dir = data_dir
    config.log_every_steps, config.checkpoint.every_steps = 1, 2
    config.knn.every_epochs, config.optimizer.warmup_epochs = 0.0, 0.0
    run(config, workdir, 4)
    return final_state(config, workdir)[0], losses(workdir), workdir


@pytest.fixture
def workdir(bucket):
    return as_path(f"gs://{bucket}/run")


def names(workdir):
    """What lies in a workdir, the time of event files left out."""
    found = [path.name for path in matching(workdir, "*") if path.name != ".lock"]
    return [re.sub(r"tfevents\.\d+", "tfevents", name) for name in found]


def test_trained_killed_and_resumed_in_a_bucket_it_is_the_local_run(
    config, local, bucket, workdir, tmp_path, bucket_server, monkeypatch
):
    """Killed: what the bucket had before the third object of a save is all there is."""
    config.dataset.data_dir = f"gs://{bucket}/data"
    left, saves = {}, []

    def note(key):
        if "/checkpoints/4/" in key:
            saves.append(key)
            if len(saves) == 3:
                left.update(bucket_server.objects)

    bucket_server.before_write.append(note)
    run(config, workdir, 4)
    bucket_server.before_write.clear()
    state, step = final_state(config, workdir)
    assert step == 4
    assert_same_state(state, local[0])
    assert losses(workdir) == local[1]
    assert names(workdir) == names(local[2])
    assert len(saves) > 5

    bucket_server.objects.clear()
    bucket_server.objects.update(left)
    assert list_steps(workdir / "checkpoints") == [2]
    assert losses(workdir) == local[1]  # those of a save are uploaded before it
    monkeypatch.setattr(lease, "STALE_S", 0.5)  # the lock is there, too
    run(config, workdir, 3)
    assert max(losses(workdir)) == 3
    run(config, workdir, 4)
    assert_same_state(final_state(config, workdir)[0], local[0])
    assert losses(workdir) == local[1]
    assert main.run(config, workdir) == 0  # it has ended: the curves alone are drawn
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    check_evaluation(workdir, local[2], tmp_path)


def check_evaluation(workdir, here, scratch):
    """Evaluates and reports on a run in a bucket; it is as good as that on the disk."""

    def subject():
        run = open_run(workdir, batch_size=64)
        return dataclasses.replace(run, scratch=scratch)

    results = evaluate(subject(), ["knn", "linear"])
    local = evaluate(open_run(here, batch_size=64), ["knn"])
    assert results["tasks"]["knn"] == local["tasks"]["knn"]
    assert names(workdir / "eval" / "4-online") == [
        *("features", "linear_head_grid.npz", "results.json", "results.md")
    ]
    page = report([workdir])
    assert os.fspath(page) == f"{workdir}/report.html"
    assert "linear" in page.read_text()

    shutil.rmtree(scratch / "features")  # as on a machine that has not seen them
    anew = subject()
    object.__setattr__(anew, "_extract", None)  # what computes features
    on_disk = open_run(here, batch_size=64).features("eval").by_name
    for name, rows in anew.features("eval").by_name.items():
        np.testing.assert_array_equal(rows, on_disk[name])


def test_a_run_whose_lock_was_taken_saves_nothing_more(
    config, local, workdir, bucket_server, monkeypatch
):
    monkeypatch.setattr(lease, "RENEW_S", 0.05)

    def take(key):  # while the run waits for its first file to be there
        if key.endswith("run/parameters.txt"):
            (workdir / ".lock").write_text('{"holder": "process 7 on tpu-3"}')
            time.sleep(1)

    bucket_server.before_write.append(take)
    with pytest.raises(OSError, match="written to by process 7 on tpu-3"):
        run(config, workdir, 4)
    bucket_server.before_write.clear()
    assert list_steps(workdir / "checkpoints") == []
    assert "tpu-3" in (workdir / ".lock").read_text()


def test_two_processes_are_killed_in_mid_save_and_one_goes_on(
    config, local, bucket, workdir, tmp_path, bucket_server
):
    """By SIGKILL, with launch/local_processes.sh; the lock of the dead is no obstacle.

    As on a disk, other numbers of devices round otherwise.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = pathlib.Path(__file__).parents[2] / "launch" / "local_processes.sh"
    config.dataset.data_dir = f"gs://{bucket}/data"
    path = write_config(config, tmp_path / "config.py")
    saves = []

    def kill(key):
        if "/checkpoints/4/" in key:
            saves.append(key)
            if len(saves) == 3:
                os.killpg(started.pid, signal.SIGKILL)

    bucket_server.before_write.append(kill)
    with open(tmp_path / "log", "wb") as log:
        started = subprocess.Popen(
            ["bash", script, "2", path, workdir, "--config.max_steps=6"],
            env=program_env(num_devices=1) | {"SER_JAX_PORT": str(port)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        started.wait(timeout=300)
    bucket_server.before_write.clear()
    assert len(saves) >= 3, (tmp_path / "log").read_text()
    assert list_steps(workdir / "checkpoints") == [2]
    run(config, workdir, 4)
    for step, loss in losses(workdir).items():
        np.testing.assert_allclose(loss, local[1][step], rtol=1e-6)
    assert_close_state(final_state(config, workdir)[0], local[0], config)
