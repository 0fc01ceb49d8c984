"""The plan of the house: which folder may import which, and what no file does.

`FOLDERS` is the list of docs/map.md. A folder answers one question and imports only
folders that stand before it; one more door is one more line here, there and in README.
"""

import ast
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT

PACKAGE = ROOT / "ser_jax"
FOLDERS = (
    *("geometry", "storage", "data", "models", "interop", "views", "methods"),
    *("config", "train", "evaluate", "sweep", "report", "benchmark"),
)
DOORS = (*FOLDERS, "main")  # main.py ties them together, so it may import all
# What the mathematics rests on besides: it is read and tried without data or disk.
BELOW = {
    "geometry": (),
    "storage": (),
    "data": ("storage",),
    "models": ("geometry",),
    "interop": ("geometry", "storage", "data.crops", "models"),
    "views": ("geometry", "data.crops", "models.placement"),
    "methods": ("geometry", "data.crops", "models", "views"),
}
# A program that ties folders together, as main.py does: a run's encoder, written out.
INTEROP = PACKAGE / "interop" / "__main__.py"
PURE = ("geometry", "models", "views", "methods")
NOT_PURE = {
    *("absl", "clu", "etils", "grain", "logging", "matplotlib", "ml_collections"),
    *("orbax", "tensorboardX", "tensorflow_datasets", "tqdm"),
}
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 400


def imports(path: pathlib.Path) -> set[str]:
    """Full names of what a file imports, within functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
            assert node.level == 0, "imports say where from: ser_jax.folder.module"
    return found


def arrows_back(folder: str, names: set[str]) -> list[str]:
    """Imports of ours that a file of this folder may not have."""
    ours = sorted(n.removeprefix("ser_jax.") for n in names if n.startswith("ser_jax."))
    before = BELOW.get(folder, DOORS[: DOORS.index(folder)])
    allowed = (folder, *before)
    return [
        name
        for name in ours
        if not any(f"{name}.".startswith(f"{a}.") for a in allowed)
    ]


def test_the_doors_are_those_of_the_list():
    found = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.name not in ("__init__.py", "py.typed", "__pycache__")
    }
    assert found == set(DOORS) and len(DOORS) == 14


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_file(path):
    """Red if a file imports against the list, or grows past what one can read."""
    text, names = path.read_text(), imports(path)
    folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    outside = {name.split(".")[0] for name in names} - {"ser_jax"}
    if folder in DOORS and path != INTEROP:
        assert not arrows_back(folder, names)
    assert len(text.splitlines()) <= MOST_LINES, "where does the question change?"
    for word in ("# type: ignore", "# noqa", "print(jax"):
        assert word not in text
    assert "tensorflow" not in outside
    if folder in PURE:
        assert not outside & NOT_PURE
    if folder == "data":
        assert "jax" not in outside, "worker processes would import jax"
    if path.name not in ("sharding.py", "placement.py"):
        assert "PartitionSpec" not in text, "only these two place arrays"
    if "configdict" in text.lower():
        allowed = {"defaults", "presets", "experiment", "loop", "__main__", "open"}
        assert path.stem in {*allowed, "main", "dry_run"}, (
            "below these, plain arguments"
        )
    # What an experiment was built from is for the record. `jax.config` is not meant.
    assert not re.search(r"(?<!jax)\.config\.", text), "a field of Experiment, instead"


# Of the package's own files and the machine's: no user names them.
OWN_PATHS = {
    "config/flags.py",
    "config/presets.py",
    "data/watched.py",
    "train/notices.py",
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_one_module_turns_text_into_paths(path):
    """Red if a path that a user gave is no bucket's: only `as_path` knows them."""
    name = str(path.relative_to(PACKAGE))
    if name in OWN_PATHS | {"storage/files.py", "storage/bucket.py"}:
        return
    assert not paths_made(path.read_text()), "ser_jax.storage.files.as_path, instead"


def paths_made(text: str) -> list[str]:
    """Calls that make a path of a text."""
    calls = [node.func for node in ast.walk(ast.parse(text)) if type(node) is ast.Call]
    made = [ast.unparse(call) for call in calls]
    ways = r"(.*\.)?(Path|PosixPath|abspath|expanduser|resolve)"
    return [way for way in made if re.fullmatch(ways, way)]


def test_a_path_that_is_made_elsewhere_is_found():
    for way in ("pathlib.Path(x)", "epath.Path(x)", "os.path.abspath(x)", "Path(x)"):
        assert paths_made(f"y = f({way} / 'a')")
    assert not paths_made("y: epath.Path = as_path(x); z = pathlib.PurePath(y)")


def test_an_arrow_back_is_found():
    assert arrows_back("geometry", {"ser_jax.views.view.ViewSpec"})
    assert arrows_back("train", {"ser_jax.evaluate.probe.make_probe", "jax"})
    assert arrows_back("views", {"ser_jax.data.loader.train_loader"})
    assert arrows_back("methods", {"ser_jax.storage.files.write_text"})
    assert not arrows_back("views", {"ser_jax.data.crops.CropSpec"})
    assert not arrows_back("main", {"ser_jax.benchmark.step"})


def test_no_circles():
    """Red if importing one file needs another that needs the first."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES
    }

    def module_of(name: str) -> str | None:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name or None

    below = {
        module: {module_of(name) for name in imports(path)} - {None, module}
        for module, path in modules.items()
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for other in sorted(below[module]):
                visit(other, (*above, module))
            done.add(module)

    for module in modules:
        visit(module, ())


def test_every_folder_says_its_question_and_nothing_else():
    registries = {"objectives", "regularizers", "layouts"}
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent == PACKAGE or path.parent.name in registries:
            continue
        (statement,) = ast.parse(path.read_text()).body
        assert isinstance(statement, ast.Expr), path


def test_one_module_makes_paths_of_strings():
    """Red if a file beside `storage/files.py` reads "~" or makes paths absolute."""
    for path in FILES:
        if path != PACKAGE / "storage" / "files.py":
            assert not re.search(
                r"expanduser|abspath|\.absolute\(", path.read_text()
            ), path


@pytest.mark.slow
def test_the_core_trains_without_the_data_libraries():
    """Where only jax, flax, optax, orbax and ml_collections are: on a bare GPU machine.

    Red if building an experiment or its step imports what reads data.
    """
    absent = ("grain", "tensorflow_datasets", "clu", "simplejpeg", "cv2", "matplotlib")
    program = f"""
import sys
for name in {absent!r}: sys.modules[name] = None
sys.path.insert(0, {str(ROOT / "tests")!r})
import jax
from helpers.support import tiny_experiment
from ser_jax.benchmark.step import random_batch
from ser_jax.benchmark import figures
from ser_jax.storage import checkpoint
from ser_jax.train.step import make_train_step
e = tiny_experiment("none")
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
