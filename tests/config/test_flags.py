"""What programs do before they work."""

import os
from platform import node
from types import SimpleNamespace

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from ser_jax.config import flags as command_line
from ser_jax.config.processes import _OF_A_TASK


@pytest.mark.parametrize(
    "error, said",
    [
        (AssertionError(), "it is not installed"),
        (RuntimeError("Unable to initialize backend 'tpu': none\nmore"), "'tpu': none"),
    ],
)
def test_a_backend_that_is_not_here_is_one_line(monkeypatch, error, said):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(SystemExit, match="error: JAX finds no device of") as stopped:
        command_line.start_jax()
    assert said in str(stopped.value) and "\n" not in str(stopped.value)


def test_programs_compute_in_32_bits():
    with jax.enable_x64(True):
        before = jax.config.jax_enable_x64
    command_line.start_jax()
    assert before and not jax.config.jax_enable_x64


@pytest.fixture
def joined(monkeypatch):
    """What JAX is asked to do at the start, by flags and environment."""

    def start(*words, **environ):
        calls = []
        monkeypatch.setattr(
            jax.distributed, "initialize", lambda *a, **k: calls.append((a, k))
        )
        monkeypatch.setattr(command_line.os, "environ", os.environ | environ)
        with flagsaver.flagsaver():
            flags.FLAGS(["x", *words])
            command_line.start_jax()
        return calls

    return start


TWO_TASKS = {name: "0" for name in _OF_A_TASK} | {"SLURM_NTASKS": "2"}
TIMES = {"initialization_timeout": 300, "heartbeat_timeout_seconds": 100}


def test_a_lone_process_waits_for_nobody(joined, caplog):
    caplog.set_level("INFO")
    assert not joined() and not joined("--distributed=auto")
    assert not joined("--nodistributed", **TWO_TASKS) and not caplog.messages


@pytest.mark.parametrize("words, told_by", [([], "SLURM"), (["--distributed"], "--d")])
def test_several_processes_are_joined_and_the_log_says_why(
    joined, caplog, words, told_by
):
    caplog.set_level("INFO")
    environ = {} if words else TWO_TASKS
    assert joined(*words, **environ) == [((None, None, None), TIMES)]
    assert told_by in caplog.text and len(caplog.messages) == 1


def test_processes_by_hand_with_other_times(joined):
    words = "--coordinator=a:1 --num_processes=3 --process_id=2 --init_timeout_s=5"
    ((by_hand, times),) = joined(*words.split(), "--heartbeat_timeout_s=9")
    assert by_hand == ("a:1", 3, 2) and list(times.values()) == [5, 9]
    with pytest.raises(SystemExit, match="go together"):
        joined("--coordinator=a:1")


def test_processes_that_jax_does_not_find_are_one_line(monkeypatch, joined):
    def initialize(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(command_line, "scheduler", lambda _: "Open MPI")
    with pytest.raises(SystemExit, match=r"\(Open MPI\) were not.*address.*--coord"):
        command_line.start_jax()


@pytest.fixture
def kept(monkeypatch):
    """Folder of compiled programs after the start, by the flag and the environment."""
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}

    def start(flag=None, **env):
        monkeypatch.setattr(
            command_line, "_COMPILATION_CACHE", SimpleNamespace(value=flag)
        )
        for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, str(value))
        jax.config.update("jax_compilation_cache_dir", None)
        command_line.start_jax()
        return jax.config.jax_compilation_cache_dir

    yield start
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_users_cache_or_where_it_is_said(kept, tmp_path):
    assert kept(HOME=tmp_path) == f"{tmp_path}/.cache/ser_jax/{node()}"
    assert kept(XDG_CACHE_HOME=tmp_path / "x") == f"{tmp_path}/x/ser_jax/{node()}"
    assert kept(JAX_COMPILATION_CACHE_DIR="/a") == "/a"
    assert kept(flag="/b", JAX_COMPILATION_CACHE_DIR="/a") == "/b"


def test_programs_are_not_kept_where_that_is_not_wanted_or_not_possible(kept, tmp_path):
    (tmp_path / "file").touch()
    assert kept(HOME=tmp_path / "file") is None
    assert jax.config.jax_enable_compilation_cache
    assert kept(flag="off", HOME=tmp_path) is None
    assert not jax.config.jax_enable_compilation_cache
