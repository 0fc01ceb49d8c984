"""Runs side by side as text: what they reached, how they differ, what they spent."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from ser_jax.report.curves import compared_metrics, draw_runs
from ser_jax.storage.files import write_json, write_text
from ser_jax.storage.runs import (
    RunRecord,
    differing_settings,
    rows_by_name,
    setting_text,
)
from ser_jax.storage.tables import flatten, table, to_text
from ser_jax.train.health import KNN_ACCURACY

_FROM_SUMMARY = ("images_per_s", "wall_s", "device")
_ABSENT = "-"


def compare(runs: Sequence[RunRecord], folder: epath.Path) -> str:
    """Writes `comparison.md`, `comparison.png` and `comparison.json`.

    Args:
        runs: At least two.
        folder: Folder for the files; made if absent.

    Returns:
        The text of `comparison.md`.

    Raises:
        ValueError: If there are fewer than two.
    """
    if len(runs) < 2:
        raise ValueError(
            f"--markdown sets runs side by side: expected the workdirs of two or more, "
            f"got {len(runs)}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "results": _results(runs),
        "accounting": rows_by_name(
            runs, lambda run: flatten(run.summary.get("accounting", {}))
        ),
        "settings": differing_settings(runs),
    }
    text = _text(runs, parts)
    write_text(folder / "comparison.md", text)
    columns = {
        run.name: {"path": str(run.path), "is_finished": run.is_finished}
        | {part: {key: row[i] for key, row in parts[part].items()} for part in parts}
        for i, run in enumerate(runs)
    }
    write_json(folder / "comparison.json", {"runs": columns})
    draw_runs(folder / "comparison.png", runs)
    return text


def _results(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    knn, compared = KNN_ACCURACY.name, [m.name for m in compared_metrics()]

    def results(run: RunRecord) -> dict[str, Any]:
        found: dict[str, Any] = {"step": run.last_step}
        for name in compared:
            if name in run.curves:
                found[name] = float(run.curves[name][-1, 1])
        if knn in run.curves and run.curves[knn][0, 0] == 0:
            found[f"{knn}_untrained"] = float(run.curves[knn][0, 1])
        ended = {name: run.summary.get(name) for name in _FROM_SUMMARY}
        return found | {k: value for k, value in ended.items() if value is not None}

    rows = rows_by_name(runs, results)
    order = ("step", knn, f"{knn}_untrained", *compared, *_FROM_SUMMARY)
    return {name: rows[name] for name in order if name in rows}


def _text(runs: Sequence[RunRecord], parts: dict[str, dict[str, list[Any]]]) -> str:
    titles = {
        "results": "Last values",
        "accounting": "Spent on training",
        "settings": "Settings that differ",
    }
    lines = ["# Comparison", "", *(f"- {run.name}: {run.path}" for run in runs)]
    lines += [
        f"- {run.name} has not ended: its values are those of step {run.last_step}"
        + ("." if run.settings else ", and its settings are not known yet.")
        for run in runs
        if not run.is_finished
    ]
    for part, title in titles.items():
        lines += ["", f"## {title}", ""]
        if not parts[part]:
            lines.append("None.")
            continue
        show = setting_text if part == "settings" else to_text
        rows = [
            (name, *(_ABSENT if value is None else show(value) for value in row))
            for name, row in parts[part].items()
        ]
        lines.append(table([("", *(run.name for run in runs)), *rows]))
    return "\n".join(lines)
