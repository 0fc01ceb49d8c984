"""Test set-up: eight CPU devices, strict ranks, parsed flags, reference data."""

import atexit
import importlib.metadata
import json
import os
import pathlib
import shutil
import tempfile

if importlib.metadata.version("jaxlib").startswith("0.10."):
    # XLA's newer code generator for CPUs takes three times as long to compile. Later
    # versions have no other, and end at a flag they do not know.
    os.environ["XLA_FLAGS"] = " ".join(
        [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_use_fusion_emitters=false"]
    )
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Workers and the programs that tests start share what was compiled once.
    cache = tempfile.mkdtemp(prefix="ser_jax_tests_")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import numpy as np
import pytest
from absl import flags

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile far longer than they run.
jax.config.update("jax_disable_most_optimizations", True)
# grain's worker processes read absl flags.
flags.FLAGS.mark_as_parsed()

GOLDEN_DIR = pathlib.Path(
    os.environ.get("SER_GOLDEN_DIR") or pathlib.Path(__file__).parent / "golden"
)


class Golden:
    """One file of reference data: arrays by name, and the settings beside them."""

    def __init__(self, name: str):
        path = GOLDEN_DIR / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"{path} is absent; point SER_GOLDEN_DIR at the full set")
        with np.load(path) as arrays:
            self.arrays = dict(arrays)
        self.settings = json.loads(path.with_suffix(".json").read_text())

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose name starts with `prefix`, the prefix cut off."""
        return {
            k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)
        }


@pytest.fixture
def golden():
    """Loads reference data by file name, or skips with the reason."""
    return Golden


@pytest.fixture
def rng():
    return jax.random.key(0)


@pytest.fixture
def figures(monkeypatch):
    """The Matplotlib figures that are saved."""
    from matplotlib.figure import Figure  # Few tests need it.

    saved, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *args, **look: (
            saved.append(figure),
            save(figure, *args, **look),
        ),
    )
    return saved
