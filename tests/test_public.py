"""The functions that the package offers to other programs."""

import subprocess
import sys

import pytest

import ser_jax
from ser_jax.train import step


def test_folders_are_callable_and_still_folders():
    assert ser_jax.train.step is step
    for name in ser_jax.__all__:
        assert callable(getattr(ser_jax, name)), name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = ser_jax.trian


@pytest.mark.slow
def test_importing_defines_no_flags_and_is_quick():
    """Red if a module with public functions defines flags, or the package needs jax.

    A user's own program has flags of the same names.
    """
    program = """
import sys
import ser_jax
assert "jax" not in sys.modules and "numpy" not in sys.modules
from absl import flags
flags.DEFINE_string("config", "mine", "Mine.")
for name in ("workdir", "checkpoint", "html", "tasks", "traceback", "step"):
    flags.DEFINE_string(name, "mine", "Mine.")
for name in ser_jax.__all__:
    ser_jax._public(name)
flags.FLAGS(["mine"])
assert flags.FLAGS.workdir == flags.FLAGS.step == "mine"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
