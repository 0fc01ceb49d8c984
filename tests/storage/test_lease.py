"""One writer to a folder of a bucket: refused, waiting, dead, stale, overtaken."""

import json
import threading
import time

import pytest

from ser_jax.storage import lease
from ser_jax.storage.files import as_path
from ser_jax.storage.lock import only_writer


@pytest.fixture
def folder(bucket, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    monkeypatch.setattr(lease, "STALE_S", 0.4)
    monkeypatch.setattr(lease, "_POLL_S", 0.02)
    return as_path(f"gs://{bucket}/run")


def content(folder):
    return json.loads((folder / ".lock").read_text())


def test_another_writer_is_refused_or_waits(folder):
    order = []

    def second():
        with only_writer(folder, wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    with only_writer(folder) as check:
        with pytest.raises(OSError, match="is being written to by process .*Wait for"):
            with only_writer(folder):
                pass
        thread.start()
        time.sleep(0.6)  # renewed all the time, so not stale
        order.append("first")
        check()
    thread.join()
    assert order == ["first", "second"]
    assert not (folder / ".lock").exists()


def test_a_lock_that_nobody_renews_is_taken_over(folder):
    other = {"holder": "process 1 on another machine", "process": None}
    (folder / ".lock").write_text(json.dumps(other))
    started = time.monotonic()
    with only_writer(folder):
        assert 0.4 < time.monotonic() - started < 5
        assert content(folder)["holder"] != other["holder"]


def test_the_lock_of_a_process_that_was_killed_here_is_free_at_once(
    folder, monkeypatch
):
    with only_writer(folder):
        mine = content(folder)
    monkeypatch.setattr(lease, "STALE_S", 10.0)
    mine["process"]["started"] = "1"  # another with its number
    (folder / ".lock").write_text(json.dumps(mine))
    started = time.monotonic()
    with only_writer(folder):
        assert time.monotonic() - started < 5


def test_who_has_lost_the_lock_is_told_and_takes_nothing_away(folder):
    with only_writer(folder) as check:
        check()
        (folder / ".lock").write_text('{"holder": "process 7 on tpu-3"}')
        deadline = time.monotonic() + 5
        with pytest.raises(OSError, match="process 7 on tpu-3, which took it over"):
            while time.monotonic() < deadline:
                check()
                time.sleep(0.02)
    assert content(folder)["holder"] == "process 7 on tpu-3"


def test_of_many_that_start_at_once_one_writes(folder):
    writing, refused = [], []

    def start():
        try:
            with only_writer(folder):
                writing.append(1)
                time.sleep(0.5)
        except OSError:
            refused.append(1)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(writing), len(refused)) == (1, 3)
