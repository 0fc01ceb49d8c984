"""What a page is made of, and the page: one file without scripts that opens offline.

Pieces hold plain text and numbers. HTML is `page.html`'s alone, which has a macro for
each kind of piece and escapes what it is given.
"""

import base64
import dataclasses
import struct
from collections.abc import Sequence
from typing import ClassVar

import jinja2

import ser_jax
from ser_jax.storage.files import PathLike, as_path

_PNG_START = b"\x89PNG\r\n\x1a\n"
_SIZE_AT = slice(16, 24)  # Width and height in a PNG file's first chunk.
_CSS_PX_PER_PX = 96 / 130  # Figures are saved at 130 dpi; CSS has 96 to the inch.


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading within a part.

    Attributes:
        text: The heading.
    """

    kind: ClassVar[str] = "heading"
    text: str


@dataclasses.dataclass(frozen=True)
class Note:
    """A note that something is not there.

    Attributes:
        text: What is not there.
        command: Command line that would make it; "" if none would.
    """

    kind: ClassVar[str] = "note"
    text: str
    command: str = ""


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


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the best of a row stands out.

    Attributes:
        caption: What it shows.
        columns: Heads of the columns of cells.
        rows: Its lines.
        fold: What is shown in its place until it is opened; "" shows the table.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    fold: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture, inside the page.

    Attributes:
        png: The file, base64.
        width: Its width on the page, in CSS pixels.
        height: Its height.
        alt: What it shows, for who cannot see it.
        caption: How to read it.
    """

    kind: ClassVar[str] = "figure"
    png: str
    width: int
    height: int
    alt: str
    caption: str


Piece = Heading | Note | Table | Figure


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the page; all are linked to at its top.

    Attributes:
        title: Its heading.
        pieces: What it holds.
    """

    title: str
    pieces: Sequence[Piece]


def figure(path: PathLike, alt: str, caption: str) -> Figure:
    """A picture, read from its file.

    Args:
        path: PNG file.
        alt: What it shows, for who cannot see it.
        caption: How to read it.

    Returns:
        The picture, as large as its inches.

    Raises:
        ValueError: If the file is no PNG.
    """
    content = as_path(path).read_bytes()
    if not content.startswith(_PNG_START) or len(content) < _SIZE_AT.stop:
        raise ValueError(f"{path} is no PNG file; delete it and evaluate again.")
    width, height = (
        round(px * _CSS_PX_PER_PX) for px in struct.unpack(">II", content[_SIZE_AT])
    )
    return Figure(base64.b64encode(content).decode(), width, height, alt, caption)


def page(title: str, parts: Sequence[Part]) -> str:
    """A whole document.

    Args:
        title: Its title and first heading.
        parts: What it holds.

    Returns:
        HTML.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ser_jax.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html")
    return template.render(
        title=title, parts=parts, version=ser_jax.__version__
    ).strip()
