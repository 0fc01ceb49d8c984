"""What programs do before they work."""

from platform import node
from types import SimpleNamespace

import jax
import pytest

from ser_jax.config import flags as command_line


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
