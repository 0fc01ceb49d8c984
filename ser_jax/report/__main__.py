"""Command line: `python -m ser_jax.report WORKDIR [WORKDIR ...] [--html=PATH]`.

One HTML page on trained and evaluated runs: what they are, how they trained, what they
reached, side by side. It holds its pictures and opens offline.
"""

import pathlib
import tempfile
from collections.abc import Iterator, Sequence

from absl import app, flags

from ser_jax.config import flags as command_line
from ser_jax.evaluate.tasks import TASKS
from ser_jax.report import page as report_html
from ser_jax.report import sections
from ser_jax.report.results import Column, read_columns
from ser_jax.storage.files import write_text
from ser_jax.storage.runs import RunRecord, read_runs

_HTML = flags.DEFINE_string(
    "html",
    None,
    "The page; if not given, report.html in the workdir of a single run, else here.",
)

_EXAMPLE = "python -m ser_jax.report /runs/moco_v3 /runs/moco_v3_ser"


def report(paths: Sequence[str], html: str | None = None) -> str:
    """Writes the page.

    Args:
        paths: Workdirs of at least one run.
        html: The file; None is `report.html`, in the workdir if there is one run, in
            the current directory if there are several.

    Returns:
        Where it was written.

    Raises:
        ValueError: If no run is named, one is given twice or is no run, or its results
            cannot be read.
    """
    if not paths:
        raise ValueError(f"expected the workdir of a run. For example: {_EXAMPLE}")
    runs = read_runs(paths)
    columns = read_columns(runs)
    folder = runs[0].path if len(runs) == 1 else pathlib.Path.cwd()
    path = pathlib.Path(html).expanduser() if html else folder / "report.html"
    with tempfile.TemporaryDirectory() as scratch:
        parts = list(_parts(runs, columns, pathlib.Path(scratch)))
    title = f"Report on {', '.join(run.name for run in runs)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, report_html.page(title, parts))
    return str(path)


def _parts(
    runs: Sequence[RunRecord], columns: Sequence[Column], scratch: pathlib.Path
) -> Iterator[tuple[str, list[str]]]:
    """The page's parts: heading and HTML."""
    yield "Overview", list(sections.overview(columns))
    yield "Training", list(sections.training(runs, scratch))
    for title in dict.fromkeys(task.section for task in TASKS.values()):
        if title is not None:
            tasks = {k: task for k, task in TASKS.items() if task.section == title}
            yield title, list(sections.results(title, tasks, columns, scratch))
    for run in runs:
        own = [column for column in columns if column.run is run]
        yield run.name, list(sections.of_run(run, own))


def main(argv: list[str]) -> None:
    """Reports on the runs that the command line names."""
    path = command_line.run_or_fail(report, argv[1:], _HTML.value)
    print(f"Written to {path}.")


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags_and_runs)
