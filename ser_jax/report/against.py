"""A run against the reference runs of its recipe: is its curve a normal one?

What "within the spread" means: `spread.py`.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from ser_jax.report.curves import compared_metrics
from ser_jax.report.page import Piece, Row, Table, figure
from ser_jax.report.pictures.spread import spread_picture
from ser_jax.report.reference import (
    Changed,
    Reference,
    changed_text,
    nearest,
    read_references,
)
from ser_jax.report.spread import Windows, compare
from ser_jax.storage.runs import RunRecord, setting_text
from ser_jax.storage.tables import table, to_text

_COLUMNS = ("verdict", "at step", "this run", "a further seed")


@dataclasses.dataclass(frozen=True)
class Against:
    """A run and its reference.

    Attributes:
        run: The run.
        reference: Runs of its recipe, or of one like it.
        changed: Settings in which it differs from them.
        num_steps: Length of the run when it ends.
        windows: Name of a metric -> what is compared, from first to last.
    """

    run: RunRecord
    reference: Reference
    changed: Changed
    num_steps: float
    windows: dict[str, Windows]

    @property
    def picture(self) -> str:
        """Name of its picture's file."""
        return f"reference_{self.run.name.replace('/', '_')}.png"

    def steps(self, windows: Windows) -> np.ndarray:
        """Steps of the run at which windows have their values, mean, `[k]`."""
        return windows.shares * self.num_steps

    def verdict(self) -> str:
        """One line: whether all is within the spread, what leaves it, and why."""
        left = {
            name: self.steps(windows)[windows.is_outside.argmax()]
            for name, windows in self.windows.items()
            if windows.is_outside.any()
        }
        first = sorted(left, key=lambda name: left[name])
        places = [f"{name} from about step {left[name]:.0f}" for name in first]
        kept = f"the reference runs ({self.reference})"
        if not self.windows:
            found = f"has logged nothing yet that can be compared with {kept}"
        elif left:
            found = f"is outside the spread of {kept}: {', '.join(places)}"
        else:
            found = f"is within the spread of {kept} in all {len(self.windows)} metrics"
        about = "" if self.run.is_finished else f", at step {self.run.last_step},"
        text = f"{self.run.name}{about} {found}."
        if self.changed:
            text += f" Its settings are not theirs: {changed_text(self.changed)}."
        return text

    def rows(self) -> list[Row]:
        """A row a metric: where it leaves the spread, or its last window."""
        rows = []
        for name, windows in self.windows.items():
            is_out = bool(windows.is_outside.any())
            i = int(windows.is_outside.argmax()) if is_out else -1
            cells = (
                "outside from" if is_out else "within to",
                f"{self.steps(windows)[i]:.0f}",
                to_text(windows.run[i]),
                f"{to_text(windows.low[i])} to {to_text(windows.high[i])}",
            )
            rows.append(Row(name, cells))
        return rows


def hold_against(runs: Sequence[RunRecord]) -> list[Against]:
    """Each run that was trained against the reference of its recipe.

    Args:
        runs: Runs; those that have not ended over the steps that they have.

    Returns:
        One a run.

    Raises:
        ValueError: If there is no reference of a run's kind, or its config is not
            known yet, or none was trained.
    """
    trained = [run for run in runs if run.was_trained]
    if not trained:
        raise ValueError("--reference is for runs; these are results alone.")
    references = read_references()
    return [_against(run, *nearest(run, references)) for run in trained]


def text(all_runs: Sequence[Against]) -> str:
    """What there is to say, as Markdown.

    Args:
        all_runs: Runs and their references.

    Returns:
        A verdict a run, and a table of its metrics.
    """
    lines = ["# Against reference runs"]
    for of in all_runs:
        rows = [(row.name, *row.cells) for row in of.rows()]
        lines += ["", of.verdict()]
        lines += ["", table([("", *_COLUMNS), *rows])] if rows else []
    return "\n".join(lines)


def pieces(all_runs: Sequence[Against], scratch: epath.Path) -> Iterator[Piece]:
    """The same on a page, with a picture of each run in `scratch`.

    Args:
        all_runs: Runs and their references.
        scratch: Folder for the pictures.

    Yields:
        A table, a picture and, where settings differ, another table, of each run.
    """
    for of in all_runs:
        yield Table(of.verdict(), _COLUMNS, of.rows())
        if of.windows:
            scales = {m.name: m.panel.scale for m in compared_metrics()}
            path = spread_picture(
                scratch / of.picture, of.windows, of.num_steps, scales
            )
            yield figure(
                path,
                f"{of.run.name} against reference runs",
                "Averages in windows of the run: in colour this run, a red dot where "
                "it is outside; grey lines are the reference's seeds, and a further "
                "seed should stay in the band throughout in 99 of 100 cases.",
            )
        if of.changed:
            yield Table(
                "Settings that differ from the reference's.",
                ("reference", of.run.name),
                [
                    Row(key, [*map(setting_text, pair)])
                    for key, pair in of.changed.items()
                ],
            )


def _against(run: RunRecord, reference: Reference, changed: Changed) -> Against:
    """Runs of other lengths are compared at the same share of their schedules."""
    (epochs, own_epochs), (batch, own_batch) = (
        changed.get(key, (reference.settings[key],) * 2)
        for key in ("total_epochs", "batch_size")
    )
    ratio = own_epochs / epochs * batch / own_batch
    curves = {name: curve / [ratio, 1] for name, curve in run.curves.items()}
    windows = compare(curves, reference.seeds, compared_metrics(), reference.num_steps)
    return Against(run, reference, changed, reference.num_steps * ratio, windows)
