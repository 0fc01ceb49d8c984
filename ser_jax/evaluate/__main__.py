"""Command line: `python -m ser_jax.evaluate --checkpoint=WORKDIR --tasks=knn,linear`.

What a trained encoder is worth: any set of tasks, into WORKDIR/eval.
"""

import dataclasses
import datetime
import json
import logging
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import app, flags

from ser_jax.config import flags as command_line
from ser_jax.evaluate.classify.protocols import LINEAR_PROTOCOLS
from ser_jax.evaluate.open import open_run
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.task import Options
from ser_jax.evaluate.tasks import TASKS
from ser_jax.storage import files, tables

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint; the newest if not given.")
_ENCODER = flags.DEFINE_enum(
    "encoder",
    None,
    ["online", "target"],
    "Whose weights; if not given, those that the method evaluates.",
)
_TASKS = flags.DEFINE_list(
    "tasks", ["all"], f"{', '.join(TASKS)}; or all: what needs no other data."
)
_RESULTS = flags.DEFINE_string(
    "results", None, "Folder for results; WORKDIR/eval/STEP-ENCODER if not given."
)
_NUM_PICTURES = flags.DEFINE_integer(
    "num_pictures",
    256,
    "Pictures of the evaluation split that are moved, corrupted here, and drawn.",
    lower_bound=2,
)
_EVAL_BATCH_SIZE = flags.DEFINE_integer(
    "eval_batch_size", 256, "Images encoded at a time, in all.", lower_bound=1
)
_DATA_DIR = flags.DEFINE_string(
    "eval_data_dir", None, "Folder of data sets, if not that of training."
)
_TRAIN_SPLIT = flags.DEFINE_string(
    "train_split", None, "What heads are fitted on, if not the run's: 'train[:1%]'."
)
_EVAL_SPLIT = flags.DEFINE_string(
    "eval_split", None, "What is evaluated on, if not the run's."
)
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "grid", list(LINEAR_PROTOCOLS), "Settings of the linear heads."
)
_GRID_LAYER = flags.DEFINE_integer(
    "grid_layer", None, "Layer whose token grid k-NN and linear heads read, too."
)
_CORRUPTED = flags.DEFINE_string(
    "corrupted", None, "Folder of ImageNet-C or CIFAR-10-C; else made here."
)
_PERTURBED = flags.DEFINE_string(
    "perturbed", None, "Folder of ImageNet-P; else made here."
)
_FLIP_NORMALIZERS = flags.DEFINE_string(
    "flip_normalizers",
    None,
    "JSON file, perturbation -> flip probability of a reference network, for the mFR.",
)
_SHIFTED = flags.DEFINE_list(
    "shifted", [], "Prepared data sets: imagenet_v2, imagenet_r, imagenet_sketch, ..."
)
_FINETUNE_EPOCHS = flags.DEFINE_float(
    "finetune_epochs", 20.0, "Epochs of the task finetune.", lower_bound=0.0
)

_EXAMPLE = "python -m ser_jax.evaluate --checkpoint=/tmp/digits_ser --tasks=knn,linear"

# Numbers of which there are too many for a table.
_BY_LAYER = re.compile(r"/(layer_\d+|errors|flip_probability|top1_by_\w+)/")

_logger = logging.getLogger(__name__)


def evaluate(
    run: TrainedRun, tasks: Sequence[str], options: Options
) -> tuple[str, list[str]]:
    """Runs tasks; writes `results.json` and `results.md` after each of them.

    Results of other tasks that the folder holds for the same checkpoint are kept. A
    task that fails ends the work, but among "all" only that task.

    Args:
        run: The run.
        tasks: Names in `TASKS`, or "all": those that nothing stands in the way of.
        options: What they are to do; their folder is made if absent.

    Returns:
        The table of all results in the folder, and which tasks failed now.

    Raises:
        ValueError: If a task is not known, or cannot be done on this run.
    """
    chosen, left_out = choose(run, tasks, options)
    failed = []
    folder = options.folder
    results = _earlier(folder / "results.json", run) | _about(run)
    done = results.setdefault("tasks", {})
    measured = results.setdefault("measured", {})
    left_out = results.get("left_out", {}) | left_out
    results["left_out"] = {k: why for k, why in left_out.items() if k not in done}
    folder.mkdir(parents=True, exist_ok=True)
    for number, task in enumerate(chosen, start=1):
        _logger.info("%s (task %d of %d)", task, number, len(chosen))
        started = time.monotonic()
        try:
            done[task] = TASKS[task].measure(run, options)
        except (ValueError, OSError, FloatingPointError) as error:
            if task in tasks:
                raise
            _logger.error("%s failed: %s", task, error)
            failed.append(task)
            results["left_out"][task] = f"failed: {error}"
        else:
            results["left_out"].pop(task, None)
            measured[task] = _circumstances(run, options, time.monotonic() - started)
        if jax.process_index() == 0:
            files.write_json(folder / "results.json", results)
            files.write_text(folder / "results.md", _table(results))
    return _table(results), failed


def choose(
    run: TrainedRun, tasks: Sequence[str], options: Options
) -> tuple[list[str], dict[str, str]]:
    """The tasks to do, in the order of `TASKS` if they are all.

    Args:
        run: The run.
        tasks: Names in `TASKS`, or "all".
        options: What they are to do.

    Returns:
        Their names, and of those that "all" leaves out, why.

    Raises:
        ValueError: If a task is not known, or cannot be done on this run.
    """
    named = [task for task in dict.fromkeys(tasks) if task != "all"]
    if unknown := [task for task in named if task not in TASKS]:
        raise ValueError(
            f"no task is called {', '.join(unknown)}; there are: all, "
            f"{', '.join(TASKS)}."
        )
    obstacles = {name: task.obstacle(run, options) for name, task in TASKS.items()}
    if stopped := [f"{task}: {obstacles[task]}" for task in named if obstacles[task]]:
        raise ValueError(" ".join(stopped))
    if "all" not in tasks:
        return named, {}
    everything = [name for name, task in TASKS.items() if task.is_in_all]
    chosen = [name for name in everything if not obstacles[name]]
    left_out = {name: why for name in everything if (why := obstacles[name])}
    return list(dict.fromkeys([*chosen, *named])), left_out


def _about(run: TrainedRun) -> dict[str, Any]:
    """What results are of."""
    config = run.experiment.config
    about = {
        "run": str(run.workdir),
        "step": run.step,
        "encoder": run.encoder_name,
        "digest": run.digest(),
        "date": datetime.date.today().isoformat(),
        "device": _device(),
        "seed": run.seed,
        "settings": {
            "dataset": config.dataset.name,
            "objective": config.objective.name,
            "regularizer": config.regularizer.name,
            "model": config.model.variant,
        },
    }
    if run.data.unlabelled() is None:
        about["num_train"] = len(run.data.train)
        about["num_eval"] = len(run.data.held_out)
    return about


def _circumstances(run: TrainedRun, options: Options, seconds: float) -> dict[str, Any]:
    """When, where and with which options a task was done."""
    usual = Options(options.folder)
    given = {
        field.name: value
        for field in dataclasses.fields(Options)
        if (value := getattr(options, field.name)) != getattr(usual, field.name)
    }
    return {
        "date": datetime.date.today().isoformat(),
        "device": _device(),
        "seconds": round(seconds, 1),
        "num_pictures": run.num_pictures,
        "options": given,
    }


def _device() -> str:
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _earlier(path: pathlib.Path, run: TrainedRun) -> dict[str, Any]:
    """What was measured before on the same weights, if anything was."""
    if not path.exists():
        return {}
    try:
        results = json.loads(path.read_text())
        digest = results["digest"]
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is no file of results ({error}); move it away."
        ) from error
    if digest != run.digest():
        of = [results.get(key) for key in ("run", "step", "encoder")]
        raise ValueError(
            f"{path} holds results of other weights ({of[0]}, step {of[1]}, encoder "
            f"{of[2]}); give another folder with --results."
        )
    return results


def _table(results: Mapping[str, Any]) -> str:
    """Main results; by layer and corruption they are in the JSON and the report."""
    rows = [
        (name, tables.to_text(value))
        for name, value in tables.flatten(results["tasks"]).items()
        if not _BY_LAYER.search(name)
    ]
    about = [f"{key}: {results[key]}" for key in ("run", "step", "encoder", "device")]
    lines = [*about, "", tables.table([("", "value"), *rows])]
    if results["left_out"]:
        lines += ["", "Left out:", ""]
        lines += [f"- {task}: {why}" for task, why in results["left_out"].items()]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Evaluates the run that the flags name."""
    del argv
    workdir = _CHECKPOINT.value
    if workdir is None:
        command_line.fail(f"--checkpoint is missing. For example: {_EXAMPLE}")
    command_line.log_own_messages()
    command_line.join_processes()

    def run_tasks() -> tuple[str, list[str]]:
        run = open_run(
            workdir,
            step=_STEP.value,
            encoder=_ENCODER.value,
            num_pictures=_NUM_PICTURES.value,
            batch_size=_EVAL_BATCH_SIZE.value,
            data_dir=_DATA_DIR.value,
            train_split=_TRAIN_SPLIT.value,
            eval_split=_EVAL_SPLIT.value,
        )
        folder = pathlib.Path(_RESULTS.value or run.folder).expanduser()
        report, failed = evaluate(run, _TASKS.value, _options(folder))
        return f"{report}\n\nWritten to {folder}.", failed

    report, failed = command_line.run_or_fail(run_tasks)
    if jax.process_index() == 0:
        print(report)
    if failed:
        command_line.fail(f"{', '.join(failed)} failed: see above.")


def _options(folder: pathlib.Path) -> Options:
    """What the flags say."""
    return Options(
        folder=folder,
        protocol=_PROTOCOL.value,
        grid_layer=_GRID_LAYER.value,
        corrupted=_CORRUPTED.value,
        perturbed=_PERTURBED.value,
        flip_normalizers=_FLIP_NORMALIZERS.value,
        shifted=tuple(_SHIFTED.value),
        finetune_epochs=_FINETUNE_EPOCHS.value,
    )


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
