"""The end of a run: one JSON file, one table."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from ser_jax.storage.files import (
    PathLike,
    as_path,
    read_json,
    warn_once,
    write_json,
)
from ser_jax.storage.tables import flatten, table, to_text

# What is read, not only shown.
_KINDS = {"steps": int, "config": dict, "accounting": dict, "device": str}


def write_summary(
    workdir: PathLike,
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
) -> epath.Path:
    """Path of `summary.json`: the summary and, under "config", what produced it.

    Args:
        workdir: The run's directory.
        summary: Name to number, text, or a mapping of these. NaN and infinity, which
            JSON lacks, become null.
        config: The resolved config, as plain dictionaries.

    Returns:
        The path; the file is replaced as a whole.
    """
    path = as_path(workdir) / "summary.json"
    return write_json(path, {**summary, "config": config})


def read_summary(workdir: PathLike) -> dict[str, Any] | None:
    """What `write_summary` wrote.

    Args:
        workdir: The run's directory.

    Returns:
        The summary, with the config under "config"; None if there is none, or it is
        damaged, which is said once: the run is then one that has not ended.

    Raises:
        OSError: If the file cannot be read.
    """
    path = as_path(workdir) / "summary.json"
    if not path.exists():
        return None
    try:
        summary = read_json(path)
        for name, kind in _KINDS.items():
            if name in summary and type(summary[name]) is not kind:
                found = f"{name} is {summary[name]!r:.40}"
                raise ValueError(f"{path} is damaged: {found}, no {kind.__name__}")
    except ValueError as error:
        warn_once(path, f"{error}. The run is taken as one that has not ended.")
        return None
    return summary


def final_table(summary: Mapping[str, Any]) -> str:
    """A summary as a Markdown table that is also aligned as plain text.

    Args:
        summary: As for `write_summary`.

    Returns:
        Lines joined by line breaks; nested names are joined by "/".
    """
    rows = [(name, to_text(value)) for name, value in flatten(summary).items()]
    return table([("metric", "value"), *rows])
