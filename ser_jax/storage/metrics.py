"""Metrics on disk: `metrics.jsonl`, and TensorBoard event files beside it."""

import json
import math
import os
import pathlib
import sys
import time
import types
from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

_FILE_NAME = "metrics.jsonl"


class MetricWriter:
    """Writes one JSON object per line, at once, and TensorBoard events within 30 s.

    A line holds `step`, `wall_time` (seconds since 1970) and the metrics. JSON has no
    number for NaN and infinity: they are written as null.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        start_step: int = 0,
        is_primary: bool = True,
    ):
        """Opens the files, and forgets what a resumed run will write again.

        Args:
            workdir: Where they go; made if absent.
            start_step: Step the run resumes from; 0: a fresh start. Later rows are
                dropped (all of them at a fresh start), and TensorBoard is told to
                ignore later events.
            is_primary: Whether this process writes; the methods of others do nothing.
        """
        self._is_primary = is_primary
        if not is_primary:
            return
        workdir = pathlib.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / _FILE_NAME
        # A fresh start also forgets step 0, which an aborted run may have written.
        kept = [
            row for row in _read_rows(path) if row["step"] <= start_step and start_step
        ]
        partial = path.with_suffix(".tmp")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        partial.replace(path)
        self._file = path.open("a", encoding="utf-8")
        # In the presence of this module, tensorboard does without TensorFlow even where
        # that is installed, and saves the seconds its import takes.
        name = "tensorboard.compat.notf"
        sys.modules.setdefault(name, types.ModuleType(name))
        self._events = EventFileWriter(str(workdir), max_queue_size=1000, flush_secs=30)
        restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add_event(start_step + 1 if start_step else 0, session_log=restart)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one row.

        Args:
            step: Number of optimizer steps so far.
            scalars: Name to value: a Python, NumPy or JAX scalar.
        """
        if not self._is_primary:
            return
        values = {name: float(value) for name, value in scalars.items()}
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        row = {"step": step, "wall_time": time.time(), **finite}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._add_value(step, tag=name, simple_value=value)

    def write_text(self, name: str, text: str) -> None:
        """Writes one text for TensorBoard, at step 0.

        Args:
            name: Its title.
            text: Markdown.
        """
        if not self._is_primary:
            return
        plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
        tensor = tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING, string_val=[text.encode()]
        )
        metadata = summary_pb2.SummaryMetadata(plugin_data=plugin)
        self._add_value(0, tag=name, metadata=metadata, tensor=tensor)

    def close(self) -> None:
        """Writes what is still in memory and closes the files."""
        if self._is_primary:
            self._file.close()
            self._events.close()

    def _add_value(self, step: int, **fields: Any) -> None:
        value = summary_pb2.Summary.Value(**fields)
        self._add_event(step, summary=summary_pb2.Summary(value=[value]))

    def _add_event(self, step: int, **fields: Any) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=step, **fields)
        self._events.add_event(event)


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Rows of a run's `metrics.jsonl`, also while it is being written.

    Args:
        workdir: The run's directory.

    Returns:
        One dictionary per row, in the order written: `step`, `wall_time` and the
        metrics. What was not finite is NaN. Empty if there is no file.

    Raises:
        ValueError: If a complete line is not JSON.
    """
    return [
        {name: math.nan if value is None else value for name, value in row.items()}
        for row in _read_rows(pathlib.Path(workdir) / _FILE_NAME)
    ]


def _read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    # What follows the last line break is a row that a killed run did not finish.
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"line {number} of {path} is not JSON ({error}); remove the line"
            ) from error
    return rows
