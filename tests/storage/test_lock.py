"""One writer to a folder: the other is refused, or waits."""

import threading

import pytest

from ser_jax.storage.lock import only_writer


def test_another_writer_is_refused_or_waits(tmp_path):
    order = []

    def second():
        with only_writer(tmp_path, wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    with only_writer(tmp_path):
        with pytest.raises(OSError, match="is being written to by process .*Wait for"):
            with only_writer(tmp_path):
                pass
        thread.start()
        thread.join(timeout=0.05)
        assert thread.is_alive()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
