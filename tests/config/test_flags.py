"""What programs do before they work."""

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
