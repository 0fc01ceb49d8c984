"""Results on disk: `results.json` and `results.md` of one encoder on one data set."""

import datetime
import logging
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from ser_jax.evaluate.tasks import TASKS
from ser_jax.storage import files, tables
from ser_jax.storage.lock import only_writer
from ser_jax.storage.runs import RESULTS_FILE

OTHER_DATA = "other_data"  # folder of results that were set aside
_DIGEST_LENGTH = 8  # of a fingerprint, where people read it

_logger = logging.getLogger(__name__)


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
        for name in ("tasks", "measured", "left_out", "data"):
            if not isinstance(results.get(name, {}), dict):
                raise ValueError(f"its {name} are {results[name]!r:.40}")
        for task, of_task in results["tasks"].items():
            if not isinstance(of_task, dict):
                raise ValueError(f"its {task} is {of_task!r:.40}")
        for split, part in results.get("data", {}).items():
            if not (isinstance(part, dict) and isinstance(part.get("content"), dict)):
                raise ValueError(f"its {split} data are {part!r:.40}")
    except ValueError as error:
        raise ValueError(
            f"{path} is no file of results of ser_jax.evaluate: {error}. Move it away "
            "and evaluate again."
        ) from error
    return results


def read_kept(folder: epath.Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a folder holds of the same weights and data.

    Args:
        folder: Where results go.
        about: What is evaluated, on what, as results say it.

    Returns:
        The results; {} if there are none, or of other data.

    Raises:
        ValueError: If there are results of other weights, or what is no results.
    """
    path = folder / RESULTS_FILE
    if not path.exists():
        return {}
    results = read_results(path)
    if results.get("digest") != about["digest"]:
        of = [results.get(key) for key in ("run", "weights", "step", "encoder")]
        raise ValueError(
            f"{path} holds results of other weights ({of[0] or of[1]}, step {of[2]}, "
            f"encoder {of[3]}); give another folder with --results."
        )
    return results if _is_of_same_data(results, about) else {}


def merged(
    kept: Mapping[str, Any],
    about: Mapping[str, Any],
    new: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Results with those that are new.

    Args:
        kept: From `read_kept`.
        about: What is evaluated, on what.
        new: "tasks", "measured", "left_out" and "failed": task -> what there is to say.

    Returns:
        The results. A task is left out as long as it has none, or if it failed now.
    """
    results = {**kept, **about}
    for key in ("tasks", "measured", "left_out"):
        results[key] = {**kept.get(key, {}), **new[key]}
    left_out = {
        k: x for k, x in results["left_out"].items() if k not in results["tasks"]
    }
    return results | {"left_out": {**left_out, **new["failed"]}}


def write_results(
    folder: epath.Path,
    about: Mapping[str, Any],
    new: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Adds what is new to a folder, whoever else writes to it meanwhile.

    Only the first of several processes writes. Results of other data are set aside.

    Args:
        folder: Made if absent.
        about: See `merged`.
        new: The same.

    Returns:
        All results in the folder.

    Raises:
        ValueError: As `read_kept` does.
        OSError: If the folder cannot be written to.
    """
    if jax.process_index():
        return merged(read_kept(folder, about), about, new)
    with only_writer(folder, wait=True):
        kept = read_kept(folder, about)
        if not kept and (folder / RESULTS_FILE).exists():
            _set_aside(folder)
        results = merged(kept, about, new)
        if others := files.matching(folder, f"{OTHER_DATA}/*/results.json"):
            paths = [str(path.parent.relative_to(folder)) for path in others]
            results[OTHER_DATA] = paths
        files.write_json(folder / RESULTS_FILE, results)
        files.write_text(folder / "results.md", as_text(results))
    return results


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
    keys = ("run", "weights", "step", "layout", "encoder", "device")
    about = {key: results.get(key) for key in keys}
    for name, why in results.get("guessed", {}).items():
        about[f"guessed {name}"] = why
    about |= data_texts(results)
    if others := results.get(OTHER_DATA):
        about["results on other data"] = ", ".join(others)
    lines = [f"{key}: {value}" for key, value in about.items() if value is not None]
    lines += ["", tables.table([("", "value"), *rows])]
    if results["left_out"]:
        lines += ["", "Left out:", ""]
        lines += [f"- {task}: {why}" for task, why in results["left_out"].items()]
    return "\n".join(lines)


def data_texts(results: Mapping[str, Any]) -> dict[str, str]:
    """What results are measured on, for people.

    Args:
        results: What `evaluate` wrote; before it wrote of data, there is nothing.

    Returns:
        "training data" and "evaluation data" -> "digits:1.0.0 test, 297 images,
        sha256:0123abcd".
    """
    texts = {}
    for key, name in (("train", "training data"), ("eval", "evaluation data")):
        if part := results.get("data", {}).get(key):
            digests = [x.partition(":") for x in part["content"].values()]
            short = [f"{kind}:{x[:_DIGEST_LENGTH]}" for kind, _, x in digests]
            texts[name] = ", ".join(
                [
                    f"{part['name']}:{part['version']} {part['split']}",
                    f"{part['num_examples']} images",
                    *short,
                ]
            )
    return texts


def _is_of_same_data(results: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    """Whether they are, as far as both say: older ones have the numbers alone."""
    keys = ("data",) if "data" in results else ("num_train", "num_eval")
    return all(results[k] == about[k] for k in keys if k in results and k in about)


def _set_aside(folder: epath.Path) -> None:
    now = datetime.datetime.now().strftime("%Y%m%dT%H%M%S.%f")
    target = folder / OTHER_DATA / now
    pictures = files.matching(folder, "*.png")
    for path in (folder / "results.md", *pictures, folder / RESULTS_FILE):
        if path.exists():
            files.move(path, target / path.name)
    _logger.warning(
        "%s holds results on other data (other pictures, under the same name perhaps): "
        "they are kept apart as %s",
        folder,
        target,
    )
