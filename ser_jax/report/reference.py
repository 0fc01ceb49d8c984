"""Runs of a recipe, several seeds, that the repository keeps to compare others with.

A file of `benchmarks/reference/` is a recipe's, a line in it a run: its seed, where,
when and by which command it was trained, its config but for what changes no curve, and
its curves, thinned. `benchmarks/reference.py` writes one.
"""

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ser_jax.config.differences import (
    CHANGE_NO_CURVE,
    changed_settings,
    flatten,
    is_among,
)
from ser_jax.config.recorded import complete
from ser_jax.report.curves import compared_metrics
from ser_jax.storage.files import PathLike, as_path, parse_object
from ser_jax.storage.metrics import Curves
from ser_jax.storage.runs import RunRecord, setting_text

FOLDER = as_path(__file__).parents[2] / "benchmarks" / "reference"
FEWEST_SEEDS = 3
_MOST_POINTS = 60  # of a curve
_MOST_NAMED = 8  # settings, in one line
# Without these in common, curves are not of one kind.
_KIND = ("objective.name", "regularizer.name", "dataset.name")
_FIELDS = {  # of a line
    **{"seed": int, "steps": int, "device": str, "date": str, "command": str},
    **{"versions": dict, "config": dict, "curves": dict},
}
Changed = Mapping[str, tuple[Any, Any]]  # Setting -> its value there and here.


@dataclasses.dataclass(frozen=True)
class Reference:
    """Runs of one recipe.

    Attributes:
        name: Of its file, without the ending.
        settings: Its config, flat, without what changes no curve.
        num_steps: Length of its runs.
        seeds: Curves of each run.
        lines: All that its file says of each.
    """

    name: str
    settings: dict[str, Any]
    num_steps: int
    seeds: tuple[Curves, ...]
    lines: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        """What is told of it in a sentence."""
        first = self.lines[0]
        return (
            f"{self.name}: {len(self.seeds)} seeds, {first['device']}, {first['date']}"
        )


def line_of(
    run: RunRecord, command: str, versions: Mapping[str, str], device: str = ""
) -> dict[str, Any]:
    """A run as a line of a file.

    Args:
        run: The run.
        command: What trained it.
        versions: Package -> its version.
        device: What trained it; "" is what the run says.

    Returns:
        The line's content.

    Raises:
        ValueError: If the run has not ended, or not at its recipe's end.
    """
    if not run.is_finished or (run.settings or {}).get("max_steps"):
        raise ValueError(
            f"{run.path} has not ended (step {run.last_step}): a reference is made of "
            "whole runs. Let it go on, without max_steps."
        )
    settings = recipe_of(run)
    ended = datetime.datetime.fromtimestamp(
        run.curves["wall_time"][-1, 1], datetime.UTC
    )
    names = [metric.name for metric in compared_metrics()]
    return {
        "seed": (run.settings or {}).get("seed", 0),
        "steps": run.last_step,
        "device": device or run.summary.get("device", "not known"),
        "date": ended.date().isoformat(),
        "command": command,
        "versions": dict(versions),
        "config": settings,
        "curves": {n: _thinned(run.curves[n]) for n in names if n in run.curves},
    }


def text_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines as their file holds them.

    Args:
        lines: Three or more runs of one recipe.

    Returns:
        JSON, a line a run.

    Raises:
        ValueError: If they are of several recipes, too few, or two of one seed.
    """
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    _reference("these runs", text.encode().splitlines())
    return text


def read_references(folder: PathLike = FOLDER) -> list[Reference]:
    """All references.

    Args:
        folder: Where they lie.

    Returns:
        One a file.

    Raises:
        ValueError: If a file is none, or there is no file.
    """
    paths = sorted(as_path(folder).glob("*.jsonl"))
    if not paths:
        raise ValueError(
            f"there are no reference runs in {folder}: they are part of the repository "
            "and of no wheel. Clone it and install it from there: pip install -e ."
        )
    return [read_reference(path) for path in paths]


def read_reference(path: PathLike) -> Reference:
    """A reference.

    Args:
        path: Its file.

    Returns:
        The runs in it.

    Raises:
        ValueError: If it is not what `text_of` gave.
    """
    file = as_path(path)
    found = _reference(str(file), file.read_bytes().splitlines())
    return dataclasses.replace(found, name=file.stem)


def recipe_of(run: RunRecord) -> dict[str, Any]:
    """A run's config, flat, without what changes no curve.

    Args:
        run: The run.

    Returns:
        Key -> value, as in JSON.

    Raises:
        ValueError: If the run's config is not known.
    """
    if run.settings is None:
        raise ValueError(
            f"the config of {run.path} is not known yet: its first checkpoint has it. "
            "Wait for that."
        )
    return without_seed(run.settings)


def without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config changes curves.

    Args:
        config: Plain nested dicts, or flat; settings that it lacks are those of the
            version that wrote it.

    Returns:
        Key -> value, as in JSON.
    """
    flat = flatten(complete(config))
    return {k: v for k, v in flat.items() if not is_among(k, CHANGE_NO_CURVE)}


def nearest(
    run: RunRecord, references: Sequence[Reference]
) -> tuple[Reference, Changed]:
    """The reference of a run's recipe, or of one like it.

    Args:
        run: The run.
        references: One or more.

    Returns:
        That which differs in the fewest settings, and which these are.

    Raises:
        ValueError: If none has the run's objective, regularizer and data set; names
            the nearest.
    """
    settings = recipe_of(run)
    found = [
        (reference, changed_settings(reference.settings, settings, ()))
        for reference in references
    ]
    reference, changed = min(
        found, key=lambda pair: (_is_other(pair[1]), len(pair[1]), pair[0].name)
    )
    if _is_other(changed):
        names = ", ".join(reference.name for reference in references)
        kind = ", ".join(str(settings.get(key)) for key in _KIND)
        raise ValueError(
            f"{run.path}: there are no reference runs of {kind}. There are: {names}. "
            f"The run differs from the nearest, {reference.name}, in "
            f"{changed_text(changed)}."
        )
    return reference, changed


def changed_text(changed: Changed) -> str:
    """Settings in which a run differs from a reference, in one line.

    Args:
        changed: What `nearest` gave.

    Returns:
        "KEY VALUE (there VALUE), ...", the run's value first.
    """
    kind_first = sorted(changed, key=lambda key: (key not in _KIND, key))
    texts = [
        f"{key} {setting_text(here)} (there {setting_text(there)})"
        for key in kind_first[:_MOST_NAMED]
        for there, here in [changed[key]]
    ]
    more = len(changed) - _MOST_NAMED
    return ", ".join(texts) + (f" and {more} more settings" if more > 0 else "")


def _is_other(changed: Changed) -> bool:
    return any(key in changed for key in _KIND)


def _thinned(curve: np.ndarray) -> list[list[float]]:
    """Some of its points, the first and the last among them: none is an average."""
    count = min(len(curve), _MOST_POINTS)
    chosen = curve[np.linspace(0, len(curve) - 1, count).round().astype(int)]
    return [[int(step), float(f"{value:.5g}")] for step, value in chosen]


def _reference(where: str, rows: Sequence[bytes]) -> Reference:
    lines = []
    for number, row in enumerate(rows, start=1):
        try:
            line = parse_object(row)
            lines.append(line | {"curves": _checked(line)})
        except ValueError as error:
            raise ValueError(
                f"{where}, line {number}, is no reference run: {error}"
            ) from error
    seeds = [line["seed"] for line in lines]
    if len(lines) < FEWEST_SEEDS or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{where}: expected {FEWEST_SEEDS} or more runs, each of another seed, got "
            f"seeds {', '.join(map(str, seeds)) or 'of none'}."
        )
    for line in lines[1:]:
        changed = changed_settings(lines[0]["config"], line["config"], ())
        if changed or line["steps"] != lines[0]["steps"]:
            text = changed_text(changed) or f"steps {line['steps']}"
            raise ValueError(
                f"{where}: seed {line['seed']} is of another recipe than seed "
                f"{seeds[0]}: it has {text}. Give runs that a seed alone tells apart."
            )
    curves = tuple(line.pop("curves") for line in lines)
    settings = without_seed(lines[0]["config"])
    return Reference(where, settings, lines[0]["steps"], curves, tuple(lines))


def _checked(line: dict[str, Any]) -> Curves:
    for name, kind in _FIELDS.items():
        if type(line.get(name)) is not kind:
            raise ValueError(f"{name} is {line.get(name)!r:.40}, no {kind.__name__}")
    if line["steps"] < 1:
        raise ValueError(f"steps is {line['steps']}, expected 1 or more")
    curves = {}
    for name, points in line["curves"].items():
        try:
            curve = np.array(points, float)
        except (TypeError, ValueError):
            curve = np.zeros(0)
        is_curve = curve.ndim == 2 and curve.shape[1] == 2 and np.isfinite(curve).all()
        if not is_curve or (np.diff(curve[:, 0]) <= 0).any():
            raise ValueError(f"{name} is no list of [step, value], in order")
        curves[name] = curve
    return curves
