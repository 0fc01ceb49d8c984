"""What runs have left behind: metrics, summaries, settings."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from etils import epath

from ser_jax.storage.files import PathLike, as_path, matching
from ser_jax.storage.metrics import METRICS_FILE, Curves, read_curves
from ser_jax.storage.summary import read_summary
from ser_jax.storage.tables import flatten

RESULTS_FILE = "results.json"  # of an evaluation, in its folder
_Source = TypeVar("_Source")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run has left behind, or an evaluation without one.

    Attributes:
        name: Shortest end of its path that tells it from the others.
        path: Its workdir; or a folder that holds results alone, as of weights that come
            without their run: then nothing of what follows is there.
        curves: Its metrics.
        summary: Its summary; {} if it has not ended.
        settings: Its config, flat; None if it has saved none yet.
    """

    name: str
    path: epath.Path
    curves: Curves
    summary: dict[str, Any]
    settings: dict[str, Any] | None

    @property
    def last_step(self) -> int:
        """Last step in its metrics."""
        return int(max((curve[-1, 0] for curve in self.curves.values()), default=0))

    @property
    def was_trained(self) -> bool:
        """Whether it is a run, and not results alone."""
        return not _are_results_alone(self.path)

    @property
    def is_finished(self) -> bool:
        """Whether its summary is there and of its last step."""
        return self.summary.get("steps") == self.last_step


def read_runs(paths: Sequence[PathLike]) -> list[RunRecord]:
    """The runs in the order given, also those that have not ended.

    Args:
        paths: Workdirs, and folders of results alone.

    Returns:
        One run a path.

    Raises:
        ValueError: If one is given twice, or one is no run.
    """
    resolved = [as_path(path) for path in paths]
    for path in resolved:
        if resolved.count(path) > 1:
            raise ValueError(f"{path} is given twice; name each run once.")
    return [
        _read_run(name, path)
        for name, path in zip(_names(resolved), resolved, strict=True)
    ]


def differing_settings(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs.

    Args:
        runs: Runs.

    Returns:
        Path in the config -> its value in each run, None where there is none.
    """
    rows = rows_by_name(runs, lambda run: run.settings or {})
    known = [i for i, run in enumerate(runs) if run.settings is not None]
    return {
        key: row
        for key, row in sorted(rows.items())
        if any(row[i] != row[known[0]] for i in known)
    }


def rows_by_name(
    sources: Sequence[_Source], read: Callable[[_Source], dict[str, Any]]
) -> dict[str, list[Any]]:
    """What is read from each source, by name.

    Args:
        sources: Runs, or what else is a column of a table.
        read: Gives one source's values by name.

    Returns:
        Name -> one value a source, None where it has none.
    """
    columns = [read(source) for source in sources]
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name) for column in columns] for name in names}


def setting_text(value: Any) -> str:
    """A setting as tables show it, in full.

    Args:
        value: Number, text, None or a list of these.

    Returns:
        The text.
    """
    if isinstance(value, list):
        return f"({', '.join(map(setting_text, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _are_results_alone(path: epath.Path) -> bool:
    """Whether a folder has results and no run: a workdir may have both."""
    return (path / RESULTS_FILE).exists() and not (path / METRICS_FILE).exists()


def _read_run(name: str, path: epath.Path) -> RunRecord:
    if _are_results_alone(path):
        return RunRecord(name, path, {}, {}, None)
    if not (path / METRICS_FILE).exists():
        found = [
            *matching(path, "*/metrics.jsonl"),
            *matching(path, "*/*/metrics.jsonl"),
        ]
        below = sorted(str(file.parent) for file in found)
        hint = f" Below it there are: {', '.join(below[:8])}." if below else ""
        what = "has no metrics.jsonl" if path.is_dir() else "does not exist"
        raise ValueError(
            f"{path} is no run: it {what}. Give the --workdir of a run of "
            f"ser_jax.main, or the --results of an evaluation.{hint}"
        )
    ended = read_summary(path) or {}
    config = ended.pop("config", None) or _saved_config(path)
    settings = None if config is None else flatten(config, ".")
    return RunRecord(name, path, read_curves(path), ended, settings)


def _saved_config(path: epath.Path) -> dict[str, Any] | None:
    """The config in a run's newest checkpoint, if it has one that can be read."""
    from ser_jax.storage.reader import read_meta  # Slow to import, seldom needed.

    with contextlib.suppress(OSError, ValueError):
        return read_meta(path / "checkpoints")["config"]
    return None


def _names(paths: Sequence[epath.Path]) -> list[str]:
    """Shortest ends of the paths that tell them apart."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names
