"""What the site has that no file of docs/ has: mkdocs calls the two functions below.

1. benchmarks/, CONTRIBUTING.md and CHANGELOG.md, to which pages link, are pages, too.
2. A notebook is a page, with the outputs that its file holds: nothing is run here.
3. Every folder of ser_jax/ has a page with the docstrings of its modules.
4. `folder/module.py` and `folder/module.name` lead to them, wherever they are named.
5. On a method's page `<!-- equation -->` is the docstring of its module, and
   `<!-- differences -->` its rows of docs/map.md: each is written in one place.
"""

import ast
import functools
import pathlib
import posixpath
import re

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "ser_jax"
BESIDE = (
    *ROOT.glob("benchmarks/*.md"),
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
)
NAMED = re.compile(r"(?<![`\[])`(?:ser_jax/)?([a-z]\w*(?:/\w+)+)\.([\w.]+)`(?!`)")


def on_files(files: Files, config) -> Files:
    """Adds the pages that are not in docs/."""
    for path in BESIDE:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, content=path.read_text()))
    for path in ROOT.glob("docs/*.ipynb"):
        resources = {"unique_key": path.stem, "output_files_dir": path.stem}
        text, resources = MarkdownExporter().from_filename(str(path), resources)
        files.append(File.generated(config, f"{path.stem}.md", content=text))
        for name, picture in resources["outputs"].items():
            files.append(File.generated(config, name, content=picture))
    for folder in sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")):
        text = f"# `{folder}`\n\n::: ser_jax.{folder}\n"
        files.append(File.generated(config, f"api/{folder}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config, files: Files) -> str:
    """A page's text with what it leaves to others, and links that lead there."""
    uri = page.file.src_uri
    source = f"docs/{uri}" if (ROOT / "docs" / uri).exists() else uri
    if uri.startswith("methods/"):
        title = re.match(r"# (.+)\n", markdown)[1]
        markdown = markdown.replace(
            "<!-- equation -->", equation(pathlib.Path(uri).stem)
        ).replace("<!-- differences -->", differences(title))
    return NAMED.sub(to_docstring, site_links(markdown, source))


def site_links(markdown: str, source: str) -> str:
    """Links between files of the repository, as links between pages of the site.

    Args:
        markdown: A page's text.
        source: Its path in the repository.
    """

    def page_of(path: str) -> str:
        return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))

    def moved(match: re.Match[str]) -> str:
        if "://" in match[1] or match[1].startswith("#"):
            return match[0]
        target = posixpath.normpath(f"{posixpath.dirname(source)}/{match[1]}")
        target = page_of(target.lstrip("/"))
        here = posixpath.dirname(page_of(source)) or "."
        return f"]({posixpath.relpath(target, here)})"

    return re.sub(r"\]\(([^)\s]+)\)", moved, markdown)


def to_docstring(match: re.Match[str]) -> str:
    """`folder/module.name` as a link, if that has a docstring on the site."""
    path = PACKAGE / f"{match[1]}.py"
    name = "" if match[2] == "py" else match[2]
    if not path.exists() or (name and name not in documented(path)):
        return match[0]
    module = f"ser_jax.{match[1].replace('/', '.')}".removesuffix(".__init__")
    return f"[{match[0]}][{module}{name and '.'}{name}]"


@functools.cache
def documented(path: pathlib.Path) -> set[str]:
    """Public functions, classes and methods of a file that have a docstring."""
    found = set()

    def walk(nodes: list[ast.stmt], before: str) -> None:
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                if node.name[0] != "_" and ast.get_docstring(node):
                    found.add(before + node.name)
                if isinstance(node, ast.ClassDef):
                    walk(node.body, f"{before}{node.name}.")

    walk(ast.parse(path.read_text()).body, "")
    return found


def equation(method: str) -> str:
    """The docstring of a method's module, without its first line."""
    (path,) = PACKAGE.glob(f"methods/[or]*/{method}.py")
    return ast.get_docstring(ast.parse(path.read_text())).partition("\n")[2]


def differences(title: str) -> str:
    """The rows of docs/map.md on a method, under the heading of their table.

    A group of rows begins with the method in bold, and a colon.
    """
    rows, heading, wanted = [], "", False
    for line in (ROOT / "docs" / "map.md").read_text().splitlines():
        if line.startswith("| | "):
            heading = line
        elif group := re.match(r"\| \*\*(.+?)\*\*:", line):
            wanted = title in group[1]
        if wanted and line.startswith("| "):
            rows = rows or [heading, re.sub(r"[^|]+", "---", heading)]
            rows.append(re.sub(r"\]\((?=\w+\.md)", "](../", line))
        wanted = wanted and line.startswith("| ")
    if not rows:
        raise ValueError(f"docs/map.md has no row that begins '| **{title}**: '.")
    return "\n".join(rows)
