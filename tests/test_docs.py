"""What README and docs/ say is there, is there."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
)
# Paths are written from the root, from the package, or from one of its folders.
BASES = (ROOT, ROOT / "ser_jax", ROOT / "docs", ROOT / "tests", ROOT / "benchmarks")
FILE = re.compile(r"[\w./-]+/[\w.-]+\.(?:py|md|sh|png|txt|xz)|\w+\.(?:py|sh|md)")
MADE = ("curves.png", "comparison.png", "sweep.png", "results.md", "comparison.md")


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
        if name in ("py", "md", "sh", "png", "json", "txt", "jsonl", "npz"):
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
