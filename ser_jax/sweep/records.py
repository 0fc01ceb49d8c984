"""What a sweep keeps of every finished run: a line of one file, to go on from."""

import dataclasses
import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from ser_jax.config.differences import differences
from ser_jax.config.recorded import complete
from ser_jax.evaluate.results_file import read_results
from ser_jax.storage.files import parse_object, write_text
from ser_jax.storage.metrics import read_curves
from ser_jax.storage.runs import RESULTS_FILE
from ser_jax.storage.summary import read_summary
from ser_jax.storage.tables import flatten
from ser_jax.sweep.grid import SweepRun

EVALUATED = "eval"  # before the names of what `ser_jax.evaluate` found
_DIGITS = 6

RunName = tuple[str, int]  # cell and seed


@dataclasses.dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        cell: Its cell.
        seed: Its seed.
        steps: Its last step.
        evaluate: What `ser_jax.evaluate` was told.
        values: What it ended with, by name: its last metrics, its summary and, as
            "eval/<task>/...", its evaluation.
        device: Where it ran.
        date: When it ended, ISO 8601.
        config: Its config.
    """

    cell: str
    seed: int
    steps: int
    evaluate: list[str]
    values: dict[str, float]
    device: str
    date: str
    config: dict[str, Any]


def record_of(run: SweepRun, evaluate: Sequence[str]) -> Record:
    """The record of a run that has finished and been evaluated.

    Args:
        run: The run.
        evaluate: What `ser_jax.evaluate` was told; nothing: it has not been asked.

    Returns:
        The record.

    Raises:
        ValueError: If what evaluation wrote cannot be read.
        OSError: Likewise.
    """
    ended = read_summary(run.workdir) or {}
    ended.pop("config", None)
    found: dict[str, Any] = {
        name: curve[-1, 1] for name, curve in read_curves(run.workdir).items()
    }
    found |= flatten(ended)
    if evaluate:
        folder = run.workdir / "eval" / f"{run.stop_step}-{run.encoder}"
        found |= flatten({EVALUATED: read_results(folder / RESULTS_FILE)["tasks"]})
    return Record(
        run.cell,
        run.seed,
        run.stop_step,
        list(evaluate),
        {name: _rounded(x) for name, x in found.items() if _is_number(x)},
        ended.get("device", "-"),
        datetime.date.today().isoformat(),
        run.config,
    )


def read_records(path: epath.Path) -> dict[RunName, Record]:
    """The records in a file.

    Args:
        path: The file.

    Returns:
        Run -> its record; {} if there is no file.

    Raises:
        ValueError: If a line is no record; names it.
    """
    if not path.exists():
        return {}
    records = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = Record(**parse_object(line))
            complete(record.config)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}, line {number}, is no record of a sweep: {error}. Take the "
                "line out, and its run is done again."
            ) from error
        records[record.cell, record.seed] = record
    return records


def write_records(path: epath.Path, records: Iterable[Record]) -> None:
    """Writes a file of records.

    Args:
        path: The file; replaced as a whole.
        records: A line each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(json.dumps(dataclasses.asdict(r)) for r in records))


def is_recorded(
    run: SweepRun, records: Mapping[RunName, Record], evaluate: Sequence[str]
) -> bool:
    """Whether a run has a record of all that is asked of it.

    Args:
        run: The run.
        records: The records.
        evaluate: What `ser_jax.evaluate` is to be told.

    Raises:
        ValueError: If there is a record of another experiment of this name.
    """
    record = records.get((run.cell, run.seed))
    if record is None:
        return False
    changed = differences(complete(record.config), run.config)
    if record.steps != run.stop_step:
        changed.append(f"steps: {record.steps} -> {run.stop_step}")
    if changed:
        raise ValueError(
            f"there is a record of {run.cell} seed {run.seed} with other settings "
            "(there -> now):\n  " + "\n  ".join(changed) + "\nGive the settings it was "
            "made with, or another file of --records."
        )
    return record.evaluate == list(evaluate)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")
