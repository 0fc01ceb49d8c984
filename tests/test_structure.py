"""Rules of the code base that a reviewer should not have to check."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "ser_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
# Each layer may import itself and what stands before it.
LAYERS = [{"geometry"}, {"models", "views"}, {"methods"}]
CORE = set().union(*LAYERS)


def part(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_file(path):
    text, names = path.read_text(), imports(path)
    assert len(text.splitlines()) <= 300, "split the file"
    for word in ("# type: ignore", "# noqa", "print(jax"):
        assert word not in text
    assert not any(name.split(".")[0] == "tensorflow" for name in names)
    if part(path) in CORE:
        rank = next(i for i, layer in enumerate(LAYERS) if part(path) in layer)
        allowed = set().union(*LAYERS[: rank + 1]) | {"data"}
        inside = {n.split(".")[1] for n in names if n.startswith("ser_jax.")}
        assert inside <= allowed, f"imports upwards: {inside - allowed}"
        outside = {n.split(".")[0] for n in names} - {"ser_jax"}
        assert not outside & {
            *("absl", "clu", "grain", "ml_collections", "orbax"),
            *("tensorflow_datasets", "matplotlib", "logging"),
        }
    if part(path) == "data" and "jax" in {n.split(".")[0] for n in names}:
        raise AssertionError("worker processes would import jax")
    if path.name != "sharding.py":
        assert "PartitionSpec" not in text, "only sharding.py places arrays"
    if "configdict" in text.lower():
        allowed = {"defaults", "presets", "experiment", "loop", "__main__", "open"}
        assert path.stem in {*allowed, "main"}, "below these, plain arguments"
    # What an experiment was built from is for the record. `jax.config` is not meant.
    assert not re.search(r"(?<!jax)\.config\.", text), "a field of Experiment, instead"


def test_the_core_trains_without_the_data_libraries():
    """Where only jax, flax, optax, orbax and ml_collections are: on a bare GPU machine.

    Red if building an experiment or its step imports what reads data.
    """
    absent = ("grain", "tensorflow_datasets", "clu", "simplejpeg", "cv2", "matplotlib")
    program = f"""
import sys
for name in {absent!r}: sys.modules[name] = None
sys.path.insert(0, {str(PACKAGE.parent / "tests")!r})
import jax
from helpers.support import tiny_experiment
from ser_jax.benchmark import __main__
from ser_jax.benchmark.step import random_batch
from ser_jax.storage import checkpoint
from ser_jax.train.step import make_train_step
e = tiny_experiment()
state = jax.jit(e.init_state)(e.init_rng)
step = make_train_step(e.learner, e.optimizer, e.learning_rate, e.step_rng)
state, metrics = jax.jit(step)(state, random_batch(e))
print(float(metrics["loss"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert np.isfinite(float(done.stdout))


def test_train_step_names_no_method():
    files = PACKAGE / "train" / "step.py", PACKAGE / "methods" / "learner.py"
    text = "".join(path.read_text() for path in files)
    imported = set().union(*map(imports, files))
    assert not any("moco" in name or ".ser" in name.lower() for name in imported)
    assert "isinstance(self.objective" not in text
