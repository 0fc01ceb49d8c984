"""Pieces of a page of HTML that needs nothing but itself: no script, no request.

Text is escaped where it goes in, so arguments are plain text unless called `html`.
"""

import base64
import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
body { font: 15px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif;
  color: #1c2530; background: #fff; max-width: 1100px; margin: 0 auto;
  padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem; padding-bottom: .25rem;
  border-bottom: 1px solid #d5dbe2; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .3rem; }
p { max-width: 50rem; margin: .4rem 0; }
nav { color: #5b6672; }
a { color: #1b4f8a; }
code { font: .88em ui-monospace, "DejaVu Sans Mono", monospace; background: #f2f4f7;
  padding: .1em .35em; border-radius: 3px; overflow-wrap: anywhere; }
.table { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; min-width: 34rem; }
caption { text-align: left; color: #5b6672; padding-bottom: .3rem; }
th, td { padding: .22rem .8rem; border-bottom: 1px solid #e6eaef; text-align: right;
  font-variant-numeric: tabular-nums; vertical-align: top; }
th:first-child { text-align: left; font-weight: 400; padding-left: 0; }
thead th { font-weight: 600; border-bottom: 1.5px solid #9aa5b1; }
td { overflow-wrap: anywhere; }
td.best { font-weight: 700; background: #eaf3ec; }
figure { margin: 1rem 0 1.4rem; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: #45505c; font-size: .9rem; margin-top: .4rem; max-width: 50rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: #1b4f8a; font-size: .92rem; }
.missing { color: #7a4b00; background: #fff8e8; border-left: 3px solid #e3b341;
  padding: .35rem .8rem; font-size: .92rem; }
""".strip()
_PNG_START = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: What the line is about.
        cells: Text of each column.
        best: Columns that hold the best value.
    """

    name: str
    cells: Sequence[str]
    best: frozenset[int] = frozenset()


def page(title: str, parts: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A whole document.

    Args:
        title: Its title and first heading.
        parts: Heading and HTML of each part; all are linked to at the top.

    Returns:
        The document.
    """
    links, body = [], []
    for i, (name, pieces) in enumerate(parts):
        links.append(f'<a href="#part-{i}">{escape(name)}</a>')
        body += [f'<h2 id="part-{i}">{escape(name)}</h2>', *pieces]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        f'<nav aria-label="Contents">{" · ".join(links)}</nav>\n'
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>"
    )


def heading(text: str) -> str:
    """A heading within a part.

    Args:
        text: The heading.

    Returns:
        HTML.
    """
    return f"<h3>{escape(text)}</h3>"


def missing(what: str, command: str | None = None) -> str:
    """A note that something is not there.

    Args:
        what: What is not there.
        command: Command line that would make it.

    Returns:
        HTML.
    """
    run = "" if command is None else f" Run <code>{escape(command)}</code>"
    return f'<p class="missing">{escape(what)}{run}</p>'


def table(caption: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A table; the best of a row stands out.

    Args:
        caption: What it shows.
        columns: Heads of the columns of cells.
        rows: Its lines.

    Returns:
        HTML.
    """
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("", *columns))
    num, lines = len(columns), []
    for row in rows:
        tags = ('<td class="best">' if i in row.best else "<td>" for i in range(num))
        cells = "".join(
            f"{tag}{escape(cell)}</td>"
            for tag, cell in zip(tags, row.cells, strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(row.name)}</th>{cells}</tr>')
    return (
        f'<div class="table"><table>\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def details(text: str, html: str) -> str:
    """Something folded away.

    Args:
        text: What it is.
        html: What shows when opened.

    Returns:
        HTML.
    """
    return f"<details><summary>{escape(text)}</summary>\n{html}\n</details>"


def figure(path: pathlib.Path, alt: str, caption: str) -> str:
    """A picture, inside the page.

    Args:
        path: PNG file.
        alt: What it shows, for who cannot see it.
        caption: How to read it.

    Returns:
        HTML.

    Raises:
        ValueError: If the file is no PNG.
    """
    content = path.read_bytes()
    if not content.startswith(_PNG_START):
        raise ValueError(f"{path} is no PNG file; delete it and evaluate again.")
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
