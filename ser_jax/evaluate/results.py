"""Tasks done on an encoder, and their results on disk."""

import dataclasses
import datetime
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ser_jax.evaluate.options import check_options, declared, options_of
from ser_jax.evaluate.results_file import merged, read_kept, write_results
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task
from ser_jax.evaluate.tasks import TASKS
from ser_jax.storage import files

_logger = logging.getLogger(__name__)


def evaluate(
    subject: Subject,
    tasks: Sequence[str] = ("all",),
    *,
    folder: files.PathLike | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Does tasks; writes `results.json` and `results.md` after each of them.

    Results of other tasks that the folder holds for the same weights and data are kept,
    also those that another evaluation writes meanwhile; those of other data are set
    aside, into `other_data/`. A task that fails does not end the others; the error of
    one that was named is raised when they are done.

    Args:
        subject: A run, from `open_run`, or another encoder and its data.
        tasks: Names in `TASKS`, or "all": those that nothing stands in the way of.
        folder: Where everything that is written goes; made if absent. None is the
            subject's own.
        **options: What tasks are told, by name: `protocol="ser"`. Those of a task are
            the fields of its `options`.

    Returns:
        All results in the folder, as in `results.json`: `["tasks"]["knn"]`; and under
        "failed", which tasks of "all" failed now.

    Raises:
        ValueError: If a task or an option is not known, or a task cannot be done.
        OSError: Likewise; or if the folder cannot be written to.
        FloatingPointError: If what a task named here computes is not finite.
    """
    check_options(options, option_fields())
    chosen, left_out = choose(subject, tasks, options)
    if folder is not None:
        subject = dataclasses.replace(subject, out_folder=files.as_path(folder))
    folder, about = subject.results_folder, _about(subject)
    new: dict[str, dict[str, Any]] = {
        **{"tasks": {}, "measured": {}, "failed": {}},
        "left_out": left_out,
    }
    results = merged(read_kept(folder, about), about, new)
    if jax.process_index() == 0:
        # The first task may draw into it.
        subject.results_folder.mkdir(parents=True, exist_ok=True)
    to_raise: Exception | None = None
    for number, name in enumerate(chosen, start=1):
        _logger.info("%s (task %d of %d)", name, number, len(chosen))
        started = time.monotonic()
        try:
            new["tasks"][name] = _measured(TASKS[name], subject, options)
        except (ValueError, OSError, FloatingPointError) as error:
            if name in tasks and to_raise is None:
                to_raise = error
                continue
            _logger.error("%s failed: %s", name, error)
            if name in tasks:
                continue
            new["failed"][name] = f"failed: {error}"
        else:
            seconds = time.monotonic() - started
            new["measured"][name] = _circumstances(subject, options, seconds)
        results = write_results(folder, about, new)
    if to_raise is not None:
        raise to_raise
    return results | {"failed": list(new["failed"])}


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
