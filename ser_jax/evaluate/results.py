"""Tasks done on an encoder, and their results on disk."""

import dataclasses
import datetime
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from ser_jax.evaluate.options import check_options, declared, options_of
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task
from ser_jax.evaluate.tasks import TASKS
from ser_jax.storage import files, tables

_logger = logging.getLogger(__name__)


def evaluate(
    subject: Subject,
    tasks: Sequence[str] = ("all",),
    *,
    folder: files.PathLike | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Does tasks; writes `results.json` and `results.md` after each of them.

    Results of other tasks that the folder holds for the same weights are kept. A task
    that fails ends the work, but among "all" only that task.

    Args:
        subject: A run, from `open_run`, or another encoder and its data.
        tasks: Names in `TASKS`, or "all": those that nothing stands in the way of.
        folder: Where results go; made if absent. None is the subject's own.
        **options: What tasks are told, by name: `protocol="ser"`. Those of a task are
            the fields of its `options`.

    Returns:
        All results in the folder, as in `results.json`: `["tasks"]["knn"]`; and under
        "failed", which tasks failed now.

    Raises:
        ValueError: If a task or an option is not known, or a task cannot be done.
    """
    check_options(options, option_fields())
    chosen, left_out = choose(subject, tasks, options)
    if folder is not None:
        subject = dataclasses.replace(subject, out_folder=files.as_path(folder))
    into = subject.results_folder
    results = _earlier(into / "results.json", subject) | _about(subject)
    done = results.setdefault("tasks", {})
    measured = results.setdefault("measured", {})
    left_out = results.get("left_out", {}) | left_out
    results["left_out"] = {k: why for k, why in left_out.items() if k not in done}
    into.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, name in enumerate(chosen, start=1):
        _logger.info("%s (task %d of %d)", name, number, len(chosen))
        started = time.monotonic()
        try:
            done[name] = _measured(TASKS[name], subject, options)
        except (ValueError, OSError, FloatingPointError) as error:
            if name in tasks:
                raise
            _logger.error("%s failed: %s", name, error)
            failed.append(name)
            results["left_out"][name] = f"failed: {error}"
        else:
            results["left_out"].pop(name, None)
            seconds = time.monotonic() - started
            measured[name] = _circumstances(subject, options, seconds)
        if jax.process_index() == 0:
            files.write_json(into / "results.json", results)
            files.write_text(into / "results.md", as_text(results))
    return results | {"failed": failed}


def read_results(path: epath.Path) -> dict[str, Any]:
    """What `results.json` holds.

    Args:
        path: The file.

    Returns:
        Its content: "tasks", task -> its results; where they are there, "measured" and
        "left_out", by task too.

    Raises:
        ValueError: If it is something else; names the file.
        OSError: If it cannot be read.
    """
    try:
        results = files.read_json(path)
        results["tasks"] = results.get("tasks")
        for name in ("tasks", "measured", "left_out"):
            if not isinstance(results.get(name, {}), dict):
                raise ValueError(f"its {name} are {results[name]!r:.40}")
        for task, of_task in results["tasks"].items():
            if not isinstance(of_task, dict):
                raise ValueError(f"its {task} is {of_task!r:.40}")
    except ValueError as error:
        raise ValueError(
            f"{path} is no file of results of ser_jax.evaluate: {error}. Move it away "
            "and evaluate again."
        ) from error
    return results


def choose(
    subject: Subject, tasks: Sequence[str], options: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """The tasks to do, in the order of `TASKS` if they are all.

    Args:
        subject: What they would be done on.
        tasks: Names in `TASKS`, or "all".
        options: What they are told, by name.

    Returns:
        Their names, and of those that "all" leaves out, why.

    Raises:
        ValueError: If a task is not known, or cannot be done on this subject.
    """
    named = [task for task in dict.fromkeys(tasks) if task != "all"]
    if unknown := [task for task in named if task not in TASKS]:
        raise ValueError(
            f"no task is called {', '.join(unknown)}; there are: all, "
            f"{', '.join(TASKS)}."
        )
    obstacles = {
        name: task.obstacle(subject, options_of(task.options, options))
        for name, task in TASKS.items()
    }
    if stopped := [f"{task}: {obstacles[task]}" for task in named if obstacles[task]]:
        raise ValueError(" ".join(stopped))
    if "all" not in tasks:
        return named, {}
    everything = [name for name, task in TASKS.items() if task.in_all]
    chosen = [name for name in everything if not obstacles[name]]
    left_out = {name: why for name in everything if (why := obstacles[name])}
    return list(dict.fromkeys([*chosen, *named])), left_out


def option_fields() -> dict[str, Any]:
    """The options of all tasks: name -> field, see `options.option`."""
    return declared(task.options for task in TASKS.values())


def as_text(results: Mapping[str, Any]) -> str:
    """Main results as a table; those by layer are in the JSON and the report.

    Args:
        results: What `evaluate` returns.

    Returns:
        Markdown.
    """
    rows = [
        (f"{task}/{path}", tables.to_text(value))
        for task, of_task in results["tasks"].items()
        for path, value in tables.flatten(of_task).items()
        if not (task in TASKS and TASKS[task].is_detail(path))
    ]
    about = [
        f"{key}: {results[key]}"
        for key in ("run", "step", "encoder", "device")
        if key in results
    ]
    lines = [*about, "", tables.table([("", "value"), *rows])]
    if results["left_out"]:
        lines += ["", "Left out:", ""]
        lines += [f"- {task}: {why}" for task, why in results["left_out"].items()]
    return "\n".join(lines)


def _measured(
    task: Task, subject: Subject, options: Mapping[str, Any]
) -> dict[str, Any]:
    return task.measure(subject, options_of(task.options, options))


def _about(subject: Subject) -> dict[str, Any]:
    """What results are of, where and when."""
    today = datetime.date.today().isoformat()
    return subject.about() | {"date": today, "device": _device()}


def _circumstances(
    subject: Subject, options: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """When, where and with which options a task was done."""
    fields = option_fields()
    return {
        "date": datetime.date.today().isoformat(),
        "device": _device(),
        "seconds": round(seconds, 1),
        "num_pictures": subject.num_pictures,
        "options": {k: x for k, x in options.items() if x != fields[k].default},
    }


def _device() -> str:
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _earlier(path: epath.Path, subject: Subject) -> dict[str, Any]:
    """What was measured before on the same weights, if anything was."""
    if not path.exists():
        return {}
    results = read_results(path)
    digest = results.get("digest")
    if digest != subject.encoder.digest:
        of = [results.get(key) for key in ("run", "step", "encoder")]
        raise ValueError(
            f"{path} holds results of other weights ({of[0]}, step {of[1]}, encoder "
            f"{of[2]}); give another folder with --results."
        )
    return results
