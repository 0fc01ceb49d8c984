"""The parts of a report, as pieces of its page."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from ser_jax.evaluate.results_file import data_texts
from ser_jax.evaluate.task import Task
from ser_jax.evaluate.tasks import TASKS
from ser_jax.report.curves import draw_run, draw_runs
from ser_jax.report.detection import detection_pieces
from ser_jax.report.page import Heading, Note, Piece, Row, Table, figure
from ser_jax.report.pictures.corruption import corruption_picture
from ser_jax.report.pictures.depth import DepthCurves, depth_picture, kind_curves
from ser_jax.report.pictures.tradeoff import Tradeoff, tradeoff_picture
from ser_jax.report.results import (
    ABSENT,
    Column,
    are_of_one_data_set,
    other_results,
    result_rows,
    value_row,
)
from ser_jax.report.texts import (
    EVALUATED,
    PICTURES,
    SETTINGS,
    TRAINED,
)
from ser_jax.storage.runs import (
    RunRecord,
    differing_settings,
    rows_by_name,
    setting_text,
)
from ser_jax.storage.tables import flatten
from ser_jax.train.health import KNN_ACCURACY


def overview(columns: Sequence[Column]) -> Iterator[Piece]:
    """Main results, and what they are of."""
    names = [column.name for column in columns]
    found = [flatten(column.tasks) for column in columns]
    rows = []
    for task in TASKS.values():
        if task.headline:
            name, path = task.headline[0], f"{task.name}/{task.headline[1]}"
            rows.append(value_row(name, path, [of.get(path) for of in found]))
    rotations = [_last_layer_cosine(column) for column in columns]
    path = "equivariance/rotation/corrected"
    rows.append(value_row("token cosine under rotation, last layer", path, rotations))
    rows.append(
        value_row(
            "k-NN at the end of training",
            "knn/top1_k20",
            [_last_knn(c) for c in columns],
        )
    )
    yield Table(_caption("Main results.", rows), names, rows)
    if not are_of_one_data_set(columns):
        yield Note(
            "These are results on different data (see below): numbers of one row do "
            "not compare."
        )
    facts = rows_by_name(columns, _facts)
    rows = [value_row(name, "", values) for name, values in facts.items()]
    yield Table("What was trained and evaluated.", names, rows)


def training(runs: Sequence[RunRecord], scratch: epath.Path) -> Iterator[Piece]:
    """Curves, what training took, settings that differ."""
    path = scratch / "curves.png"
    if len(runs) == 1:
        is_drawn = draw_run(path, runs[0].curves)
        caption = "Metrics of the training run over its steps."
    else:
        is_drawn = draw_runs(path, runs)
        caption = "A panel a metric, a line a run; a loss compares only with its like."
    if is_drawn:
        yield figure(path, "Training curves", caption)
    else:
        yield Note("No training curves: no metric was logged.")
    names = [run.name for run in runs]
    spent = rows_by_name(runs, lambda run: flatten(run.summary.get("accounting", {})))
    if spent:
        rows = [value_row(name, "", values) for name, values in spent.items()]
        yield _folded("What training took", names, rows)
    for run in runs:
        if not run.is_finished:
            yield Note(
                f"{run.name} has not ended: its curves end at step {run.last_step}."
            )
    if len(runs) > 1:
        differing = differing_settings(runs)
        rows = [_setting_row(name, values) for name, values in differing.items()]
        yield _folded("Settings that differ", names, rows)


def results(
    title: str,
    tasks: Mapping[str, Task],
    columns: Sequence[Column],
    scratch: epath.Path,
) -> Iterator[Piece]:
    """Pictures and tables of some tasks, all encoders side by side."""
    found = [column for column in columns if column.tasks.keys() & tasks]
    if not found:
        yield Note("Not evaluated.", _command(columns[0].run))
        return
    if title == "Equivariance":
        yield from _depth(columns, scratch)
        yield from _tradeoff(columns, scratch)
    if title == "Robustness":
        yield from _corruptions(columns, scratch)
    if title == "Detection":
        yield from detection_pieces(columns, scratch)
    names = [column.name for column in columns]
    for name, task in tasks.items():
        rows = result_rows(columns, name)
        rest = [row for row in rows if task.is_detail(row.name)]
        first = [row for row in rows if row not in rest]
        if rows:
            yield Heading(name)
        if first:
            yield Table(_caption(task.caption, first), names, first)
        if rest:
            yield _folded(f"{name} in detail", names, rest, task.caption)


def of_run(run: RunRecord, columns: Sequence[Column]) -> Iterator[Piece]:
    """What a run has to itself: pictures, what was not evaluated, its settings."""
    for column in columns:
        left_out = column.results.get("left_out", {})
        for task, why in left_out.items():
            yield Note(f"{column.name}, {task} left out: {why}")
        wanted = [
            name
            for name, task in TASKS.items()
            if task.in_all
            and not task.optional
            and name not in {*column.tasks, *left_out}
        ]
        if wanted:
            what = f"{column.name}, not evaluated: {', '.join(wanted)}."
            yield Note(what, _command(run))
        if column.folder is not None:
            yield from _pictures(column, column.folder)
    for place, found in other_results(run).items():
        of_data = "; ".join(f"{k}: {x}" for k, x in data_texts(found).items())
        rows = [
            value_row(path, "", [value])
            for path, value in flatten(found["tasks"]).items()
        ]
        title = f"{run.name}, results on other data: {place}"
        yield _folded(title, [run.name], rows, f"{of_data}.")
    if run.settings is None and run.was_trained:
        yield Note("Settings: the run has saved none yet.")
    if run.settings is not None:
        rows = [_setting_row(name, [value]) for name, value in run.settings.items()]
        yield _folded("All settings", [run.name], rows)


def _caption(text: str, rows: Sequence[Row]) -> str:
    return f"{text} Bold: the best of a row." if any(r.best for r in rows) else text


def _folded(
    title: str, names: Sequence[str], rows: Sequence[Row], caption: str = ""
) -> Table:
    return Table(_caption(f"{title}. {caption}", rows), names, rows, fold=title)


def _pictures(column: Column, folder: epath.Path) -> Iterator[Piece]:
    names = column.pictures
    for kind in (kind for kind in PICTURES if kind in names):
        title, caption = PICTURES[kind]
        path = folder / str(names[kind])
        yield Heading(title)
        if path.is_file():
            yield figure(path, f"{title}: {column.name}", caption)
        else:
            command = _command(column.run)
            yield Note(f"{path} is not there.", command)


def _depth(columns: Sequence[Column], scratch: epath.Path) -> Iterator[Piece]:
    checkpoints = {
        column.name: DepthCurves(
            column.tasks.get("equivariance", {}),
            column.tasks.get("seis", {}),
            _regularized_layers(column.run),
        )
        for column in columns
    }
    if any(c.equivariance or c.seis for c in checkpoints.values()):
        path = depth_picture(scratch / "depth.png", checkpoints)
        yield figure(
            path,
            "Equivariance over depth",
            "A line a run, a column a kind of transform, over the encoder's layers: "
            "the farther from the dotted line of chance, the more equivariant; a faint "
            "vertical line is a layer that SER's term reads.",
        )


def _tradeoff(columns: Sequence[Column], scratch: epath.Path) -> Iterator[Piece]:
    """Equivariance against accuracy, where there are checkpoints to compare."""
    regularized = {k for column in columns for k in _regularized_layers(column.run)}
    checkpoints = {}
    for column in columns:
        curves = kind_curves(column.tasks.get("equivariance", {}), "corrected")
        top1 = column.tasks.get("linear", {}).get("top1")
        if top1 is None or "rotation" not in curves:
            continue
        by_layer = {int(layer): value for layer, value in curves["rotation"]}
        shown = by_layer.keys() & {*regularized, max(by_layer)}
        checkpoints[column.name] = Tradeoff({k: by_layer[k] for k in shown}, top1)
    if len(checkpoints) > 1:
        path = scratch / "tradeoff.png"
        yield figure(
            tradeoff_picture(path, checkpoints, accuracy="linear top-1"),
            "Equivariance against accuracy",
            "A point a run, up and to the right is better: the chance-corrected token "
            "cosine under rotations, at the layers that SER's term reads and at the "
            "last, against the linear head's top-1.",
        )


def _corruptions(columns: Sequence[Column], scratch: epath.Path) -> Iterator[Piece]:
    errors = {
        column.name: column.tasks.get("corruptions", {}).get("errors", {})
        for column in columns
    }
    if any(errors.values()):
        path = corruption_picture(scratch / "corruptions.png", errors)
        yield figure(
            path,
            "Error on corrupted images",
            "Top-1 error of the linear head, by corruption and by severity: lower is "
            "more robust, but compare with the error on clean images.",
        )


def _facts(column: Column) -> dict[str, Any]:
    run, settings = column.run, column.run.settings or {}
    facts: dict[str, Any] = {"folder": str(run.path)}
    facts |= {name: settings.get(path) for name, path in SETTINGS.items()}
    if run.was_trained:
        facts |= {"last step": run.last_step}
    facts |= {name: run.summary.get(key) for name, key in TRAINED.items()}
    facts |= {name: column.results.get(key) for name, key in EVALUATED.items()}
    return facts | data_texts(column.results)


def _last_knn(column: Column) -> float | None:
    curve = column.run.curves.get(KNN_ACCURACY.name)
    return None if curve is None else float(curve[-1, 1])


def _last_layer_cosine(column: Column) -> float | None:
    curves = kind_curves(column.tasks.get("equivariance", {}), "corrected")
    return float(curves["rotation"][-1, 1]) if "rotation" in curves else None


def _regularized_layers(run: RunRecord) -> tuple[int, ...]:
    settings = run.settings or {}
    if settings.get("regularizer.name") != "ser":
        return ()
    layers = settings.get("regularizer.layers") or [settings.get("regularizer.layer")]
    return tuple(k for k in layers if isinstance(k, int))


def _setting_row(name: str, values: Sequence[Any]) -> Row:
    return Row(name, [ABSENT if v is None else setting_text(v) for v in values])


def _command(run: RunRecord) -> str:
    path = shlex.quote(str(run.path))
    if not run.was_trained:
        return f"python -m ser_jax.evaluate --weights=... --results={path} --tasks=all"
    return f"python -m ser_jax.evaluate --checkpoint={path} --tasks=all"
