"""Notices that a machine is about to go, from a metadata server of our own."""

import http.server
import os
import signal
import threading
import time

import pytest

from ser_jax.train import notices
from ser_jax.train.preemption import StopSignal, exit_status

MAINTENANCE = "TERMINATE_ON_HOST_MAINTENANCE"


@pytest.fixture
def metadata(monkeypatch):
    """What the server says of each key; it is asked 50 times a second."""
    says = {"maintenance-event": "NONE", "preempted": "FALSE"}

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            key = self.path.removeprefix("/computeMetadata/v1/instance/")
            is_sound = self.headers["Metadata-Flavor"] == "Google" and key in says
            self.send_response(200 if is_sound else 403)
            self.end_headers()
            self.wfile.write(says.get(key, "").encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("GCE_METADATA_HOST", f"localhost:{server.server_port}")
    monkeypatch.setenv("http_proxy", "http://localhost:1")
    monkeypatch.setattr(notices, "_POLL_S", 0.02)
    yield says
    server.shutdown()
    server.server_close()


def comes(should_stop, within_s=10.0):
    end = time.monotonic() + within_s
    while not should_stop(1) and time.monotonic() < end:
        time.sleep(0.01)
    return should_stop(1)


@pytest.mark.parametrize(
    "key, value, name",
    [
        ("maintenance-event", MAINTENANCE, MAINTENANCE),
        ("preempted", "TRUE", "PREEMPTED"),
    ],
)
def test_a_notice_stops_as_a_signal_does(metadata, key, value, name):
    with StopSignal() as should_stop:
        assert not comes(should_stop, 0.1)
        metadata[key] = value
        assert comes(should_stop) and should_stop.name == name
        # What the system sends all programs once it goes down. Red if it is the second.
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop.name == name
    assert exit_status(name) == 75


def test_a_machine_that_moves_goes_on(metadata):
    metadata["maintenance-event"] = "MIGRATE_ON_HOST_MAINTENANCE"
    with StopSignal() as should_stop:
        assert not comes(should_stop, 0.2)


def test_a_server_that_does_not_answer_is_named_once(metadata, monkeypatch, caplog):
    monkeypatch.setenv("GCE_METADATA_HOST", "localhost:1")
    with StopSignal() as should_stop:
        assert not comes(should_stop, 0.2)
        monkeypatch.setenv("GCE_METADATA_HOST", "")
    assert len(caplog.records) == 1 and "localhost:1" in caplog.text


@pytest.mark.parametrize(
    "product, is_asked", [("Google Compute Engine", True), ("", False)]
)
def test_only_googles_machines_listen(tmp_path, monkeypatch, product, is_asked):
    """Red if a laptop looks for a server that it has not."""
    asked = threading.Event()
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.setattr(notices, "_PRODUCT", tmp_path / "product_name")
    monkeypatch.setattr(notices, "_read", lambda *_: asked.set())
    if product:
        (tmp_path / "product_name").write_text(f"{product}\n")
    with notices.listening(lambda name: None):
        assert asked.wait(5.0 if is_asked else 0.1) == is_asked
