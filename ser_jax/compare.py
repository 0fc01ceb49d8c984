"""Command line: `python -m ser_jax.compare RUN1 RUN2 ... [--out=DIR]`.

Runs side by side: what they reached, where their settings differ, what they spent on an
image; and their curves, one line a run.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from ser_jax import command_line, summary
from ser_jax.tables import flatten, table, to_text

_OUT = flags.DEFINE_string(
    "out", "comparison", "Folder for comparison.md, comparison.png, comparison.json."
)

_EXAMPLE = "python -m ser_jax.compare /runs/moco_v3 /runs/moco_v3_ser"
_METRICS = (
    *("knn_accuracy", "loss", "loss_inv", "loss_equiv", "grad_norm_equiv"),
    *("embedding_std", "cls_std", "teacher_entropy", "contrastive_accuracy"),
    *("rotation_accuracy", "mean_correlation"),
)
_FROM_SUMMARY = ("images_per_s", "wall_s", "device")
_ABSENT = "-"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run has left behind.

    Attributes:
        name: Shortest end of its path that tells it from the others.
        path: Its workdir.
        curves: Its metrics.
        summary: Its summary; {} if it has not ended.
        settings: Its config, flat; None if it has saved none yet.
    """

    name: str
    path: pathlib.Path
    curves: summary.Curves
    summary: dict[str, Any]
    settings: dict[str, Any] | None

    @property
    def last_step(self) -> int:
        """Last step in its metrics."""
        return int(max((curve[-1, 0] for curve in self.curves.values()), default=0))

    @property
    def is_finished(self) -> bool:
        """Whether its summary is there and of its last step."""
        return self.summary.get("steps") == self.last_step


def compare(paths: Sequence[str], out: str) -> str:
    """Writes `comparison.md`, `comparison.png` and `comparison.json`.

    Args:
        paths: Workdirs of at least two runs.
        out: Folder for the files; made if absent.

    Returns:
        The text of `comparison.md`.

    Raises:
        ValueError: If there are fewer than two, one is given twice, or one is no run.
    """
    runs = read_runs(paths)
    folder = pathlib.Path(out).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "results": _results(runs),
        "accounting": _rows(
            runs, lambda run: flatten(run.summary.get("accounting", {}))
        ),
        "settings": differing_settings(runs),
    }
    report = _report(runs, parts)
    summary.write_text(folder / "comparison.md", report)
    columns = {
        run.name: {"path": str(run.path), "is_finished": run.is_finished}
        | {part: {key: row[i] for key, row in parts[part].items()} for part in parts}
        for i, run in enumerate(runs)
    }
    summary.write_json(folder / "comparison.json", {"runs": columns})
    _plot(runs, folder / "comparison.png")
    return report


def read_runs(paths: Sequence[str]) -> list[Run]:
    """The runs in the order given, also those that have not ended.

    Args:
        paths: Workdirs of at least two runs.

    Returns:
        One run a path.

    Raises:
        ValueError: If there are fewer than two, one is given twice, or one is no run.
    """
    if len(paths) < 2:
        raise ValueError(
            f"expected the workdirs of two or more runs, got {len(paths)}. For "
            f"example: {_EXAMPLE}"
        )
    resolved = [pathlib.Path(path).expanduser().resolve() for path in paths]
    for path in resolved:
        if resolved.count(path) > 1:
            raise ValueError(f"{path} is given twice; name each run once.")
    return [
        _read_run(name, path)
        for name, path in zip(_names(resolved), resolved, strict=True)
    ]


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs.

    Args:
        runs: Runs.

    Returns:
        Path in the config -> its value in each run, None where there is none.
    """
    rows = _rows(runs, lambda run: run.settings or {})
    known = [i for i, run in enumerate(runs) if run.settings is not None]
    return {
        key: row
        for key, row in sorted(rows.items())
        if any(row[i] != row[known[0]] for i in known)
    }


def _read_run(name: str, path: pathlib.Path) -> Run:
    files = [path / "metrics.jsonl", path / "summary.json"]
    if not files[0].exists():
        found = [*path.glob("*/metrics.jsonl"), *path.glob("*/*/metrics.jsonl")]
        below = sorted(str(file.parent) for file in found)
        hint = f" Below it there are: {', '.join(below[:8])}." if below else ""
        what = "has no metrics.jsonl" if path.is_dir() else "does not exist"
        raise ValueError(
            f"{path} is no run: it {what}. Give the --workdir of a run of "
            f"ser_jax.main.{hint}"
        )
    ended = summary.read_summary(path) if files[1].exists() else {}
    config = ended.pop("config", None) or _saved_config(path)
    settings = None if config is None else flatten(config, ".")
    return Run(name, path, summary.read_curves(path), ended, settings)


def _saved_config(path: pathlib.Path) -> dict[str, Any] | None:
    """The config in a run's newest checkpoint, if it has one that can be read."""
    from ser_jax.checkpoint_reader import read_meta  # Slow to import, seldom needed.

    with contextlib.suppress(OSError, ValueError):
        return read_meta(path / "checkpoints")["config"]
    return None


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Shortest ends of the paths that tell them apart."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _results(runs: Sequence[Run]) -> dict[str, list[Any]]:
    def results(run: Run) -> dict[str, Any]:
        found: dict[str, Any] = {"step": run.last_step}
        for metric in _METRICS:
            if metric in run.curves:
                found[metric] = float(run.curves[metric][-1, 1])
        if "knn_accuracy" in run.curves and run.curves["knn_accuracy"][0, 0] == 0:
            found["knn_accuracy_untrained"] = float(run.curves["knn_accuracy"][0, 1])
        ended = {name: run.summary.get(name) for name in _FROM_SUMMARY}
        return found | {k: value for k, value in ended.items() if value is not None}

    rows = _rows(runs, results)
    order = (
        "step",
        "knn_accuracy",
        "knn_accuracy_untrained",
        *_METRICS,
        *_FROM_SUMMARY,
    )
    return {name: rows[name] for name in order if name in rows}


def _rows(
    runs: Sequence[Run], read: Callable[[Run], dict[str, Any]]
) -> dict[str, list[Any]]:
    """What is read from each run, by name: one value a run, None where it has none."""
    columns = [read(run) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name) for column in columns] for name in names}


def _report(runs: Sequence[Run], parts: dict[str, dict[str, list[Any]]]) -> str:
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
        show = _setting_text if part == "settings" else to_text
        rows = [
            (name, *(_ABSENT if value is None else show(value) for value in row))
            for name, row in parts[part].items()
        ]
        lines.append(table([("", *(run.name for run in runs)), *rows]))
    return "\n".join(lines)


def _setting_text(value: Any) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(_setting_text, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plot(runs: Sequence[Run], path: pathlib.Path) -> None:
    drawings = []
    for metric in _METRICS:
        curves = {r.name: r.curves[metric] for r in runs if metric in r.curves}
        if metric.endswith("_equiv"):  # 0 throughout where there is no such term
            curves = {name: c for name, c in curves.items() if c[:, 1].any()}
        if curves:
            drawings.append((_panel(metric, runs), curves))
    if drawings:
        summary.draw_panels(path, drawings, shared_legend=True)


def _panel(metric: str, runs: Sequence[Run]) -> summary.Panel:
    """The panel that has this metric, with a line for each run instead."""
    own = next(panel for panel in summary.PANELS if metric in panel.labels)
    title = own.title
    if len(own.labels) > 1:
        title += f", {own.labels[metric]}"
    return own._replace(title=title, labels={run.name: run.name for run in runs})


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        command_line.fail(str(error))


def main(argv: list[str]) -> None:
    """Compares the runs that the command line names, and prints the tables."""
    report = command_line.run_or_fail(compare, argv[1:], _OUT.value)
    print(f"{report}\n\nWritten to {_OUT.value}.")


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
