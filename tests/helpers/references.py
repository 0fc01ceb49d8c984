"""Recorded runs as folders: see `reference_runs.py`."""

import json

from helpers import ROOT
from ser_jax.storage.metrics import MetricWriter
from ser_jax.storage.summary import write_summary

FOLDER = ROOT / "tests" / "fixtures" / "reference"


def recorded_lines():
    """The lines of the reference, new each time."""
    text = (FOLDER / "digits_tiny.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def write_run(path, line, last_step=None, **settings):
    """A line as a run's folder; one that has not ended if it is cut at a step."""
    rows = {}
    for name, points in line["curves"].items():
        for step, value in points:
            rows.setdefault(step, {})[name] = value
    writer = MetricWriter(path)
    for step in sorted(rows):
        if step <= (last_step or step):
            writer.write_scalars(step, rows[step])
    writer.close()
    config = line["config"] | {"seed": line["seed"], "max_steps": 0} | settings
    write_summary(path, {"steps": line["steps"], "device": "1 x cpu"}, config)
    return path
