"""What README and docs/ say is there, is there."""

import functools
import json
import re
import runpy
import shlex
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT

import ser_jax
from ser_jax.config.differences import flatten

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
)
# Paths are written from the root, from the package, or from one of its folders.
BASES = (ROOT, ROOT / "ser_jax", ROOT / "docs", ROOT / "tests", ROOT / "benchmarks")
FILE = re.compile(r"[\w./-]+/[\w.-]+\.(?:py|md|sh|png|txt|xz)|\w+\.(?:py|sh|md)\b")
# In bash blocks as in indented ones, after settings of the environment.
COMMAND = re.compile(r"^ *(?:\w+=\S+ )*(python -m ser_jax\..+)$", re.MULTILINE)
DEFINED = re.compile(r'DEFINE_\w+\(\s*"(\w+)"|^    (\w+): .+ = option\(', re.MULTILINE)
MADE = (
    *("curves.png", "comparison.png", "sweep.png"),
    *("results.md", "comparison.md", "reference.md"),
)


def exists(path: str) -> bool:
    return any((base / path).exists() for base in BASES) or (
        "/" not in path and any(ROOT.glob(f"*/**/{path}"))
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_path_exists(page):
    """Red if a page names a file or links to one that has moved."""
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    named = [
        name for span in re.findall(r"`([^`\n]+)`", text) for name in FILE.findall(span)
    ]
    commands = re.findall(r"(?:configs|launch)/\w+\.(?:py|sh)", text)
    missing = [
        link for link in links if not (page.parent / link.partition("#")[0]).exists()
    ] + [
        name
        for name in (*named, *commands)
        if not (name.startswith(("/tmp/", "RUN", "IMAGES")) or exists(name))
        and not any(name.endswith(made) for made in MADE)
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_module_and_name_exists(page):
    """Red if a page says `folder/module.name` of what is not there."""
    for path, name in re.findall(
        r"`([a-z_/]+/[a-z_0-9]+)\.([A-Za-z_]\w+)", page.read_text()
    ):
        if name in ("py", "md", "sh", "png", "json", "txt", "jsonl", "npz", "ipynb"):
            continue
        file = ROOT / "ser_jax" / f"{path}.py"
        assert file.exists(), f"{path}.{name}"
        assert re.search(rf"\b{name}\b", file.read_text()), f"{path}.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_test_that_is_named_exists(page):
    """Red if a page leans on a test that has another name now."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+_\w+_\w+)`", page.read_text())
    assert not [name for name in named if f"def {name}(" not in tests]


def test_readmes_list_of_folders_is_the_rules():
    """Red if README's table and the structure test name other folders, or an order."""
    from test_structure import DOORS

    rows = re.findall(
        r"^\| `(\w+)(?:/|\.py)` \|", (ROOT / "README.md").read_text(), re.M
    )
    assert tuple(rows) == DOORS


def test_ci_runs_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "python .ci/readme.py" in script
    assert 'pip install -q -e ".[test]" && pytest' in script
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, '.ci'); import readme;"
            "print(*readme.commands(), sep=chr(10))",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert len(done.stdout.splitlines()) >= 15


@functools.cache
def flags() -> set[str]:
    """Names of the flags of all programs, tasks' options among them."""
    text = "".join(path.read_text() for path in (ROOT / "ser_jax").rglob("*.py"))
    return {name for pair in DEFINED.findall(text) for name in pair if name}


@functools.cache
def settings(config: str) -> set[str]:
    """Names of the settings of `configs/<name>.py:<preset>`."""
    path, _, preset = config.partition(":")
    get_config = runpy.run_path(str(ROOT / path))["get_config"]
    config = get_config(preset) if preset else get_config()
    return {f"config.{name}" for name in flatten(config.to_dict())}


def what_is_not_there(command: str) -> list[str]:
    """Words of a command that no program takes.

    Raises:
        ValueError: If its config has no such preset.
    """
    _, _, module, *words = shlex.split(command, comments=True)
    path = ROOT / module.replace(".", "/")
    is_program = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
    given = dict(word[2:].partition("=")[::2] for word in words if word[:2] == "--")
    known = flags()
    if given.get("config", "...") != "...":
        known = known | settings(given["config"])
    return ([] if is_program else [module]) + [
        f"--{name}"
        for name in given
        if name not in known and name.removeprefix("no") not in known
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_is_one(page):
    """Red if a page types a program, flag, config, preset or setting there is not.

    `.ci/readme.py` runs the commands of the pages for those who begin.
    """
    text = page.read_text().replace("\\\n", " ")
    missing = {c: what_is_not_there(c) for c in COMMAND.findall(text)}
    assert not {c: words for c, words in missing.items() if words}
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_what_is_no_command_is_found():
    typed = "python -m ser_jax.trian --config=configs/dino.py:ser --workdri=RUN"
    assert what_is_not_there(f"{typed} --config.optimizer.lr=1") == [
        *("ser_jax.trian", "--workdri", "--config.optimizer.lr")
    ]
    with pytest.raises(ValueError, match="no preset is called 'sre'"):
        what_is_not_there("python -m ser_jax.main --config=configs/dino.py:sre")


def test_ci_builds_the_site():
    script = (ROOT / ".ci" / "run").read_text()
    assert 'pip install -q -e ".[docs]"' in script and "mkdocs build --strict" in script


def test_ci_runs_the_notebook_and_its_file_shows_what_it_draws():
    """Red if it has lost its outputs, holds an error, or is too large to keep."""
    script = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"nbconvert --execute .* docs/tour\.ipynb", script)
    text = (ROOT / "docs" / "tour.ipynb").read_text()
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in cells) and len(text) < 400_000
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == ser_jax.__version__
