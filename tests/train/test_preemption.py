"""Signals that ask a run to stop."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from ser_jax.train.preemption import StopSignal, exit_status


@pytest.mark.parametrize(
    "name, status", [("SIGINT", 130), ("SIGTERM", 75), ("SIGHUP", 75), ("SIGUSR1", 75)]
)
def test_a_signal_is_noticed_and_given_back(name, status):
    before = signal.getsignal(getattr(signal, name))
    with StopSignal() as should_stop:
        assert not should_stop(1)
        os.kill(os.getpid(), getattr(signal, name))
        assert should_stop(2) and should_stop.name == name
    assert signal.getsignal(getattr(signal, name)) is before
    assert exit_status(name) == status


def test_what_is_ignored_stays_ignored(monkeypatch):
    """As `nohup` starts a program: red if the terminal's end stops it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as should_stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not should_stop(1)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_the_program_at_once():
    program = """
import os, signal
from ser_jax.train.preemption import StopSignal
with StopSignal():
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    print("still here")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == -signal.SIGTERM and not done.stdout


def test_a_thread_trains_without_listening():
    """Red if Python's refusal to let it listen ends the training."""
    heard = []

    def train():
        with StopSignal() as should_stop:
            heard.append(should_stop(1))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert heard == [False]
