"""What a report shows of detection: AP over sizes, and how runs differ."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from ser_jax.evaluate.detection.metrics import FIGURES
from ser_jax.report.page import Note, Piece, Row, Table, figure
from ser_jax.report.pictures.detection import detection_picture
from ser_jax.report.results import ABSENT, Column, value_row

_Spread = tuple[float | None, float | None]  # mean and standard deviation


def detection_pieces(columns: Sequence[Column], scratch: epath.Path) -> Iterator[Piece]:
    """AP over sizes and, of two runs or more, differences from the first.

    Args:
        columns: Encoders; at least one has results of detection.
        scratch: Folder for the picture.

    Yields:
        A figure, a table, a note where heads were not trained alike.
    """
    found = {column.name: column.tasks.get("detection", {}) for column in columns}
    yield figure(
        detection_picture(scratch / "detection.png", found),
        "AP over sizes of objects",
        "COCO's AP, mean over heads, by the size of objects in the original pictures: "
        "a dot is a head's seed, a line the standard deviation over these.",
    )
    measured = {name: of for name, of in found.items() if of}
    if len(measured) < 2:
        return
    first, *others = measured
    differences = [f"{name} − {first}" for name in others]
    rows = [_row(name, list(measured.values())) for name in FIGURES]
    yield Table(
        "Differences of detection: mean ± standard deviation over the seeds of heads; "
        "that of a difference is the root of the sum of both squares. Bold: the best.",
        [*measured, *differences],
        rows,
    )
    settings = [of.get("setting") for of in measured.values()]
    if any(setting != settings[0] for setting in settings):
        yield Note(
            "These heads were not all trained or measured alike (see setting, below): "
            "they differ by more than their encoders."
        )


def _row(name: str, found: Sequence[Mapping[str, Any]]) -> Row:
    """A figure of each, and the differences of all others from the first."""
    measured = [(of.get(name), of.get(f"{name}_std")) for of in found]
    first, *others = measured
    cells = [_text(*of) for of in measured]
    cells += [_text(*_difference(of, first), sign="+") for of in others]
    path, values = f"detection/{name}", [value for value, _ in measured]
    return Row(name, cells, value_row(name, path, values).best)


def _difference(of: _Spread, first: _Spread) -> _Spread:
    (b, b_std), (a, a_std) = of, first
    return (
        None if a is None or b is None else b - a,
        None if a_std is None or b_std is None else math.hypot(a_std, b_std),
    )


def _text(value: float | None, spread: float | None, sign: str = "") -> str:
    if value is None:
        return ABSENT
    text = f"{value:{sign}.4f}"
    return text if spread is None else f"{text} ± {spread:.4f}"
