"""A report on runs: one page, and their comparison as text."""

import tempfile
from collections.abc import Iterator, Sequence

from etils import epath

from ser_jax.evaluate.tasks import TASKS
from ser_jax.report import sections
from ser_jax.report.compare import compare
from ser_jax.report.page import Part, page
from ser_jax.report.results import Column, read_columns
from ser_jax.storage.files import PathLike, as_path, write_text
from ser_jax.storage.runs import RunRecord, read_runs

_EXAMPLE = "python -m ser_jax.report /runs/moco_v3 /runs/moco_v3_ser"


def report(
    workdirs: Sequence[PathLike],
    html: PathLike | None = None,
    markdown: PathLike | None = None,
) -> epath.Path:
    """Path of the page on trained and evaluated runs.

    Args:
        workdirs: Workdirs of at least one run, or folders of results alone (of weights
            that come without their run).
        html: The file; None is `report.html`, in the workdir if there is one run, else
            beside the comparison, or in the current directory.
        markdown: Folder for `comparison.md`, `comparison.json` and `comparison.png` on
            two or more runs; None writes none.

    Returns:
        The path.

    Raises:
        ValueError: Before anything is written, if no run is named, one is given twice
            or is no run, its results cannot be read, or one alone is to be compared.
    """
    if not workdirs:
        raise ValueError(f"expected the workdir of a run. For example: {_EXAMPLE}")
    runs = read_runs(workdirs)
    columns = read_columns(runs)
    folder = runs[0].path if len(runs) == 1 else as_path(markdown or ".")
    path = folder / "report.html" if html is None else as_path(html)
    with tempfile.TemporaryDirectory() as scratch:
        parts = list(_parts(runs, columns, as_path(scratch)))
    if markdown is not None:
        compare([run for run in runs if run.was_trained], as_path(markdown))
    path.parent.mkdir(parents=True, exist_ok=True)
    title = f"Report on {', '.join(run.name for run in runs)}"
    return write_text(path, page(title, parts))


def _parts(
    runs: Sequence[RunRecord], columns: Sequence[Column], scratch: epath.Path
) -> Iterator[Part]:
    yield Part("Overview", list(sections.overview(columns)))
    if trained := [run for run in runs if run.was_trained]:
        yield Part("Training", list(sections.training(trained, scratch)))
    for title in dict.fromkeys(task.section for task in TASKS.values()):
        if title is not None:
            tasks = {k: task for k, task in TASKS.items() if task.section == title}
            pieces = sections.results(title, tasks, columns, scratch)
            yield Part(title, list(pieces))
    for run in runs:
        own = [column for column in columns if column.run is run]
        yield Part(run.name, list(sections.of_run(run, own)))
