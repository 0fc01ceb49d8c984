"""Metrics on disk: `metrics.jsonl`, and TensorBoard event files beside it."""

import json
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from tensorboardX import SummaryWriter

from ser_jax.storage.bucket import scheme_of
from ser_jax.storage.files import (
    PathLike,
    as_path,
    parse_object,
    warn_once,
    whole_file,
)
from ser_jax.storage.uploads import Uploads

Curves = dict[str, np.ndarray]  # Metric to its finite (step, value) pairs, `[n, 2]`.

METRICS_FILE = "metrics.jsonl"
_LAST_STEP = 2**53  # as far as a float can count


class MetricWriter:
    """Writes one JSON object per line, at once, and TensorBoard events within 30 s.

    In a bucket both are there within 30 s, or when `flush` returns.

    A line holds `step`, `wall_time` (seconds since 1970) and the metrics. JSON has no
    number for NaN and infinity: they are written as null.
    """

    def __init__(
        self,
        workdir: PathLike,
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
        folder = as_path(workdir)
        self._uploads = Uploads(folder) if scheme_of(folder) else None
        here = self._uploads.folder if self._uploads else folder
        here.mkdir(parents=True, exist_ok=True)
        path = here / METRICS_FILE
        # A fresh start also forgets step 0, which an aborted run may have written.
        kept = [
            row
            for row in _read_rows(folder / METRICS_FILE)
            if row["step"] <= start_step and start_step
        ]
        with whole_file(path) as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = path.open("a", encoding="utf-8")
        self._events = SummaryWriter(
            str(here),
            purge_step=start_step + 1 if start_step else 0,
            max_queue=1000,
            flush_secs=30,
            # Its own name has the second alone: a quick restart would write over it.
            filename_suffix=f".from_step_{start_step}",
        )
        self.flush()

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one row.

        Args:
            step: Number of optimizer steps so far.
            scalars: Name to value: a Python, NumPy or JAX scalar.

        Raises:
            OSError: If it cannot be written; names the file.
        """
        if not self._is_primary:
            return
        values = {name: float(value) for name, value in scalars.items()}
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        row = {"step": step, "wall_time": time.time(), **finite}
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:  # which does not say where
            raise OSError(error.errno, error.strerror, self._file.name) from error
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def write_text(self, name: str, text: str) -> None:
        """Writes one text for TensorBoard, at step 0.

        Args:
            name: Its title.
            text: Markdown.
        """
        if not self._is_primary:
            return
        self._events.add_text(name, text, 0)

    def flush(self) -> None:
        """Returns when all rows and events are in the bucket, if it is one."""
        if self._is_primary and self._uploads:
            self._events.flush()
            self._uploads.now()

    def close(self) -> None:
        """Writes what is still in memory and closes the files."""
        if self._is_primary:
            self._file.close()
            self._events.close()
            if self._uploads:
                self._uploads.close()


def read_metrics(workdir: PathLike) -> list[dict[str, float]]:
    """Rows of a run's `metrics.jsonl`, also while it is being written.

    A row that is none (no JSON object, no step, a value that is no number) is left out,
    which is said once.

    Args:
        workdir: The run's directory.

    Returns:
        One dictionary per row, in the order of their steps: `step`, `wall_time` and the
        metrics. What was not finite is NaN. Empty if there is no file.

    Raises:
        OSError: If the file cannot be read.
    """
    return [
        {name: math.nan if value is None else value for name, value in row.items()}
        for row in _read_rows(as_path(workdir) / METRICS_FILE)
    ]


def read_curves(workdir: PathLike) -> Curves:
    """A run's metrics by name, each as its finite `(step, value)` pairs, `[n, 2]`.

    Args:
        workdir: The run's directory.

    Returns:
        The curves, a step at most once: the last that was written of it. A metric that
        was never finite is absent.
    """
    points: dict[str, dict[float, float]] = {}
    for row in read_metrics(workdir):
        for name, value in row.items():
            if math.isfinite(value):
                points.setdefault(name, {})[row["step"]] = value
    return {name: np.array(list(of.items())) for name, of in points.items()}


def _read_rows(path: epath.Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    # What follows the last line break is a row that a killed run did not finish.
    lines = path.read_bytes().split(b"\n")[:-1]
    rows, problems = [], []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_checked(parse_object(line)))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        message = f"{path}: {len(problems)} of {len(lines)} rows are left out;"
        warn_once(path, f"{message} the first is {problems[0]}")
    return sorted(rows, key=lambda row: row["step"])


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """The row, what is not finite as None."""
    step = row.get("step")
    if type(step) is not int or not 0 <= step <= _LAST_STEP:
        raise ValueError(f"its step is {step!r:.40}, no whole number from 0 on")
    for name, value in row.items():
        if value is not None and type(value) not in (int, float):
            raise ValueError(f"{name} is {value!r:.40}, no number")
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in row.items()
    }
