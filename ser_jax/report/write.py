"""A report on runs: one page, and their comparison as text."""

import tempfile
from collections.abc import Iterator, Sequence

from etils import epath

from ser_jax.evaluate.tasks import TASKS
from ser_jax.report import against, sections
from ser_jax.report.compare import compare
from ser_jax.report.page import Part, page
from ser_jax.report.results import Column, read_columns
from ser_jax.storage.files import PathLike, as_path, whole_file, write_text
from ser_jax.storage.runs import RunRecord, read_runs

REFERENCE_FILE = "reference.md"
_EXAMPLE = "python -m ser_jax.report /runs/moco_v3 /runs/moco_v3_ser"


def report(
    workdirs: Sequence[PathLike],
    html: PathLike | None = None,
    markdown: PathLike | None = None,
    *,
    reference: bool = False,
) -> epath.Path:
    """Path of the page on trained and evaluated runs.

    Args:
        workdirs: Workdirs of at least one run, or folders of results alone (of weights
            that come without their run).
        html: The file; None is `report.html`, in the workdir if there is one run, else
            beside the comparison, or in the current directory.
        markdown: Folder for `comparison.md`, `comparison.json` and `comparison.png` on
            two or more runs; None writes none.
        reference: Whether each run is held against the reference runs of its recipe:
            on the page, and beside it in `reference.md` and a picture a run.

    Returns:
        The path.

    Raises:
        ValueError: Before anything is written, if no run is named, one is given twice
            or is no run, its results cannot be read, one alone is to be compared, or
            there are no reference runs to hold one against.
    """
    if not workdirs:
        raise ValueError(f"expected the workdir of a run. For example: {_EXAMPLE}")
    runs = read_runs(workdirs)
    columns = read_columns(runs)
    held = against.hold_against(runs) if reference else []
    folder = runs[0].path if len(runs) == 1 else as_path(markdown or ".")
    path = folder / "report.html" if html is None else as_path(html)
    with tempfile.TemporaryDirectory() as scratch:
        parts = list(_parts(runs, columns, held, as_path(scratch)))
        pictures = {
            of.picture: (as_path(scratch) / of.picture).read_bytes()
            for of in held
            if of.windows
        }
    if markdown is not None:
        compare([run for run in runs if run.was_trained], as_path(markdown))
    path.parent.mkdir(parents=True, exist_ok=True)
    if held:
        write_text(path.parent / REFERENCE_FILE, against.text(held))
    for name, png in pictures.items():
        with whole_file(path.parent / name) as stream:
            stream.write(png)
    title = f"Report on {', '.join(run.name for run in runs)}"
    return write_text(path, page(title, parts))


def _parts(
    runs: Sequence[RunRecord],
    columns: Sequence[Column],
    held: Sequence[against.Against],
    scratch: epath.Path,
) -> Iterator[Part]:
    yield Part("Overview", list(sections.overview(columns)))
    if held:
        yield Part("Against reference runs", list(against.pieces(held, scratch)))
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
