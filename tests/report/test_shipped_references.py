"""What `benchmarks/reference/` holds is whole, and configs say what they rest on."""

import ast
import re
import shlex

import pytest
from helpers import ROOT

from ser_jax.config.differences import changed_settings
from ser_jax.report.curves import compared_metrics
from ser_jax.report.reference import FOLDER, read_reference, without_seed
from ser_jax.report.spread import compare
from ser_jax.sweep.grid import load_config
from ser_jax.train.experiment import build

CONFIGS = sorted((ROOT / "configs").glob("*.py"))
REFERENCES = sorted(FOLDER.glob("*.jsonl"))
MOST_BYTES = 60_000


def names(docstring):
    """The files behind "Reference run:"; None without such a line."""
    found = re.search(
        r"^Reference run: ([^\n]+(?:\n\S[^\n]*)*)", docstring, re.MULTILINE
    )
    if not found:
        return None
    text = found[1].replace("\n", " ")
    return [] if text == "not run." else re.findall(r"[\w/.]+\.jsonl", text) or None


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_names_its_reference_or_says_there_is_none(path):
    """Red without a line "Reference run: FILE" or "Reference run: not run."."""
    files = names(ast.get_docstring(ast.parse(path.read_text())))
    assert files is not None
    assert not [file for file in files if ROOT / file not in REFERENCES]


def test_what_names_no_reference_is_found():
    assert names("A recipe.\n\nReference run: not run.") == []
    assert names("A.\n\nReference run: benchmarks/reference/a.jsonl.") == [
        "benchmarks/reference/a.jsonl"
    ]
    assert names("A recipe.") is None and names("Reference run: soon.") is None


def test_every_reference_is_named_by_a_config():
    named = {
        ROOT / file
        for path in CONFIGS
        for file in names(ast.get_docstring(ast.parse(path.read_text()))) or []
    }
    assert named == set(REFERENCES)


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_a_reference_is_of_the_config_in_its_command(path):
    """Red if the recipe has changed since: train the seeds anew."""
    assert len(path.read_bytes()) < MOST_BYTES
    reference = read_reference(path)
    for line in reference.lines:
        words = shlex.split(line["command"].replace("configs/", f"{ROOT}/configs/"))
        config = load_config([word for word in words if word.startswith("--config")])
        assert config.seed == line["seed"]
        recipe = build(config, 1000 * config.batch_size).config
        changed = changed_settings(without_seed(recipe), reference.settings, ())
        assert not changed, "the recipe has other settings now"


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_every_seed_of_a_reference_is_within_the_others(path):
    reference = read_reference(path)
    for i, run in enumerate(reference.seeds):
        others = [*reference.seeds[:i], *reference.seeds[i + 1 :]]
        windows = compare(run, others, compared_metrics(), reference.num_steps)
        assert windows
        assert not any(of.is_outside.any() for of in windows.values())
