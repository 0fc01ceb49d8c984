"""The end of a run: one JSON file, one table."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from ser_jax.storage.files import PathLike, write_json
from ser_jax.storage.tables import flatten, table, to_text


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
    path = epath.Path(workdir) / "summary.json"
    return write_json(path, {**summary, "config": config})


def read_summary(workdir: PathLike) -> dict[str, Any]:
    """What `write_summary` wrote.

    Args:
        workdir: The run's directory.

    Returns:
        The summary, with the config under "config".
    """
    return json.loads((epath.Path(workdir) / "summary.json").read_text())


def final_table(summary: Mapping[str, Any]) -> str:
    """A summary as a Markdown table that is also aligned as plain text.

    Args:
        summary: As for `write_summary`.

    Returns:
        Lines joined by line breaks; nested names are joined by "/".
    """
    rows = [(name, to_text(value)) for name, value in flatten(summary).items()]
    return table([("metric", "value"), *rows])
