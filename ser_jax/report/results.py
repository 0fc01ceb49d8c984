"""What evaluations of runs have left behind, as columns of a report."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from ser_jax.evaluate.detection.metrics import FIGURES
from ser_jax.evaluate.results_file import OTHER_DATA, read_results
from ser_jax.evaluate.tasks import TASKS
from ser_jax.report.page import Row
from ser_jax.storage.files import is_within, matching
from ser_jax.storage.runs import RESULTS_FILE, RunRecord
from ser_jax.storage.tables import flatten, to_text

ABSENT = "-"
_FOLDER = re.compile(r"(\d+)-(online|target)")
_OF_OTHER_DATA = re.compile(rf"{_FOLDER.pattern}-.+")

_WITH_PICTURES = ("detection", "embed")  # among their other results


@dataclasses.dataclass(frozen=True)
class Column:
    """One evaluated encoder of a run, or a run that has not been evaluated.

    Attributes:
        name: The run's, with the encoder's if both have been evaluated.
        run: The run.
        folder: Where the results lie; None if there are none.
        results: What `ser_jax.evaluate` wrote; {} if it has not.
    """

    name: str
    run: RunRecord
    folder: epath.Path | None
    results: Mapping[str, Any]

    @property
    def tasks(self) -> Mapping[str, Any]:
        """Task -> its results."""
        return self.results.get("tasks", {})

    @property
    def pictures(self) -> Mapping[str, str]:
        """Kind of picture -> its file in the folder."""
        return _pictures(self.tasks)


def read_columns(runs: Sequence[RunRecord]) -> list[Column]:
    """The newest evaluation of each run.

    Args:
        runs: Runs.

    Returns:
        One a run; two if both its encoders were evaluated at that step. Of results
        alone, these.

    Raises:
        ValueError: If results are there and cannot be read.
    """
    columns = []
    for run in runs:
        if not run.was_trained:
            path = run.path / RESULTS_FILE
            columns.append(Column(run.name, run, run.path, _read(path)))
            continue
        found: dict[int, dict[str, epath.Path]] = {}
        for path in matching(run.path, "eval/*/results.json"):
            if match := _FOLDER.fullmatch(path.parent.name):
                found.setdefault(int(match[1]), {})[match[2]] = path
        if not found:
            columns.append(Column(run.name, run, None, {}))
            continue
        newest = found[max(found)]
        for encoder, path in newest.items():
            name = f"{run.name}, {encoder}" if len(newest) > 1 else run.name
            columns.append(Column(name, run, path.parent, _read(path)))
    return columns


def other_results(run: RunRecord) -> dict[str, Mapping[str, Any]]:
    """Evaluations of a run on data that are not its own, or are no longer.

    Args:
        run: The run.

    Returns:
        Folder below the run's -> what `ser_jax.evaluate` wrote there.
    """
    paths = [
        *(
            path
            for path in matching(run.path, "eval/*/results.json")
            if _OF_OTHER_DATA.fullmatch(path.parent.name)
        ),
        *matching(run.path, f"eval/*/{OTHER_DATA}/*/results.json"),
    ]
    return {str(path.parent.relative_to(run.path)): _read(path) for path in paths}


def are_of_one_data_set(columns: Sequence[Column]) -> bool:
    """Whether no two columns say that they are of different data."""
    said = [column.results["data"] for column in columns if "data" in column.results]
    return all(data == said[0] for data in said)


def result_rows(columns: Sequence[Column], task: str) -> list[Row]:
    """All numbers of a task, the best of each row marked where one is better.

    Args:
        columns: Columns of the table.
        task: The task.

    Returns:
        One row a number.
    """
    found = [flatten({task: column.tasks.get(task, {})}) for column in columns]
    return [
        value_row(path.removeprefix(f"{task}/"), path, [of.get(path) for of in found])
        for path in dict.fromkeys(path for of in found for path in of)
    ]


def value_row(name: str, path: str, values: Sequence[Any]) -> Row:
    """A row of values, the best of them marked.

    Args:
        name: What the row is called.
        path: "task/.../metric": the task says whether more is better; "" if it is none.
        values: One a column; None where there is none.

    Returns:
        The row. Nothing is marked where there is nothing to choose.
    """
    numbers = {
        i: value
        for i, value in enumerate(values)
        if isinstance(value, int | float) and math.isfinite(value)
    }
    best: frozenset[int] = frozenset()
    task, _, metric = path.partition("/")
    direction = TASKS[task].direction(metric) if task in TASKS else None
    if direction and len(set(numbers.values())) > 1:
        wanted = {"higher": max, "lower": min}[direction](numbers.values())
        best = frozenset(i for i, x in numbers.items() if x == wanted)
    return Row(name, [_text(value) for value in values], best)


def _read(path: epath.Path) -> dict[str, Any]:
    """Results whose parts that are drawn are what can be drawn."""
    results = read_results(path)
    try:
        _check(results["tasks"], path.parent)
    except ValueError as error:
        raise ValueError(
            f"{path} holds what ser_jax.evaluate does not write: {error}. Delete it "
            "and evaluate again."
        ) from error
    return results


def _check(tasks: Mapping[str, Any], folder: epath.Path) -> None:
    for task in ("equivariance", "seis"):
        for layer, transforms in tasks.get(task, {}).items():
            if layer.startswith("layer_"):
                path = f"{task}/{layer}"
                _want(path, layer.removeprefix("layer_").isdecimal())
                _want(path, isinstance(transforms, dict))
                for name, metrics in transforms.items():
                    _want(f"{path}/{name}", isinstance(metrics, dict))
                    for metric, value in metrics.items():
                        _want(f"{path}/{name}/{metric}", _is_number(value))
    _want("linear/top1", _is_number(tasks.get("linear", {}).get("top1")))
    errors = tasks.get("corruptions", {}).get("errors", {})
    _want("corruptions/errors", isinstance(errors, dict))
    for name, values in errors.items():
        path = f"corruptions/errors/{name}"
        _want(path, isinstance(values, list) and bool(values))
        _want(path, None not in values and all(map(_is_number, values)))
        _want(path, len(values) == len(next(iter(errors.values()))))
    detection = tasks.get("detection", {})
    seeds = detection.get("seeds", {})
    _want("detection/seeds", isinstance(seeds, dict))
    for name, of in {"": detection, **seeds}.items():
        path = f"detection/seeds/{name}" if name else "detection"
        _want(path, isinstance(of, dict))
        for figure in (*FIGURES, *(f"{x}_std" for x in FIGURES)):
            _want(f"{path}/{figure}", _is_number(of.get(figure)))
    for task in _WITH_PICTURES:
        of_task = tasks.get(task, {}).get("pictures", {})
        _want(f"{task}/pictures", isinstance(of_task, dict))
    for name, picture in _pictures(tasks).items():
        path = f"pictures/{name}"
        _want(path, isinstance(picture, str))
        if not is_within(folder / picture, folder):
            raise ValueError(f"{path}, {picture!r}, lies outside of its folder")


def _pictures(tasks: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(tasks.get("pictures", {}))
    for task in _WITH_PICTURES:
        found |= tasks.get(task, {}).get("pictures", {})
    return found


def _want(path: str, is_right: bool) -> None:
    if not is_right:
        raise ValueError(f"no {path} that could be shown")


def _is_number(value: Any) -> bool:
    return value is None or type(value) in (int, float)


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return to_text(value)
