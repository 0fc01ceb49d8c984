"""Command line: `python -m ser_jax.evaluate --checkpoint=WORKDIR --tasks=knn,linear`.

What a trained encoder is worth: any set of tasks, into WORKDIR/eval. Or one out of a
file: `--weights=FILE --dataset=NAME --data_dir=DATA --results=DIR`.
"""

import dataclasses
import logging
import sys
import typing
from collections.abc import Callable
from typing import Any

import jax
from absl import app, flags

from ser_jax.config import flags as command_line
from ser_jax.evaluate.folder import prepare_folder
from ser_jax.evaluate.open import open_run
from ser_jax.evaluate.results import evaluate, option_fields
from ser_jax.evaluate.results_file import as_text
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.tasks import TASKS
from ser_jax.evaluate.weights import open_weights
from ser_jax.interop.flags import define_given_flags, given_from_flags
from ser_jax.storage.files import as_path
from ser_jax.train.preemption import Stopped, exit_status

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run.")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "File or folder of weights, of this package or another."
)
_DATASET = flags.DEFINE_string("dataset", None, "Data set, with --weights.")
_PICTURES = flags.DEFINE_string(
    "pictures", None, "Folder of pictures instead of a data set, with --results."
)
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
    "results",
    None,
    "Folder for all that is written; WORKDIR/eval/STEP-ENCODER if not given.",
)
_SCRATCH = flags.DEFINE_string(
    "scratch", None, "Folder of this machine for features whose folder is in a bucket."
)
_NUM_PICTURES = flags.DEFINE_integer(
    "num_pictures",
    256,
    "Images of the evaluation split that are moved, corrupted here, and drawn.",
    lower_bound=2,
)
_EVAL_BATCH_SIZE = flags.DEFINE_integer(
    "eval_batch_size", 256, "Images encoded at a time, in all.", lower_bound=1
)
_DATA_DIR = flags.DEFINE_string(
    "eval_data_dir", None, "Folder of data sets, if not that of training."
)
flags.DEFINE_alias("data_dir", "eval_data_dir")
_TRAIN_SPLIT = flags.DEFINE_string(
    "train_split", None, "What heads are fitted on, if not the run's: 'train[:1%]'."
)
_EVAL_SPLIT = flags.DEFINE_string(
    "eval_split", None, "What is evaluated on, if not the run's."
)

_logger = logging.getLogger(__name__)

_EXAMPLE = "python -m ser_jax.evaluate --checkpoint=/tmp/digits_ser --tasks=knn,linear"

_WEIGHTS_EXAMPLE = (
    "python -m ser_jax.evaluate --weights=FILE --dataset=cifar10 --results=DIR "
    "--tasks=knn,linear"
)
_PICTURES_EXAMPLE = (
    "python -m ser_jax.evaluate --weights=FILE --pictures=FOLDER --results=DIR "
    "--tasks=embed"
)
_DATA_SETS = "~/tensorflow_datasets"
_SPLITS = ("train_split", "eval_split")

_DEFINE: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def define_option_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines a flag for every option of every task.

    Args:
        flag_values: Where.
    """
    for name, field in option_fields().items():
        text, default = field.metadata["help"], field.default
        where: dict[str, Any] = {"flag_values": flag_values}
        if choices := field.metadata["choices"]:
            flags.DEFINE_enum(name, default, list(choices), text, **where)
        elif typing.get_origin(field.type) is tuple:
            flags.DEFINE_list(name, list(default), text, **where)
        else:
            kind, *_ = typing.get_args(field.type) or (field.type,)
            if (least := field.metadata["lower_bound"]) is not None:
                where["lower_bound"] = least
            _DEFINE[kind](name, default, text, **where)


def given_options(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """What the flags say to the tasks.

    Args:
        flag_values: Where they are defined.

    Returns:
        Option -> value.
    """
    values = {name: flag_values[name].value for name in option_fields()}
    return {k: tuple(x) if isinstance(x, list) else x for k, x in values.items()}


define_option_flags()
define_given_flags()


def _data() -> dict[str, Any]:
    """Fields of `EvalData`, as the flags say; None where they do not."""
    said = {
        "train_split": _TRAIN_SPLIT.value,
        "eval_split": _EVAL_SPLIT.value,
        "data_dir": _DATA_DIR.value,
    }
    if _PICTURES.value is None:
        return said
    if _RESULTS.value is None or _DATASET.value is not None:
        raise ValueError(
            "--pictures goes with --results, where a data set is made of them, and "
            f"without --dataset. For example: {_PICTURES_EXAMPLE}"
        )
    found = prepare_folder(_PICTURES.value, as_path(_RESULTS.value) / "data")
    return found | {k: split for k, split in said.items() if split and k in _SPLITS}


def _subject() -> Subject:
    """What is evaluated, as the flags say."""
    data = _data()
    common: dict[str, Any] = {
        "num_pictures": _NUM_PICTURES.value,
        "batch_size": _EVAL_BATCH_SIZE.value,
    }
    if _CHECKPOINT.value is not None:
        step, encoder = _STEP.value, _ENCODER.value
        return open_run(_CHECKPOINT.value, step=step, encoder=encoder, **common, **data)
    path, folder = _WEIGHTS.value, _RESULTS.value
    dataset = data.pop("name", _DATASET.value)
    if path is None or dataset is None or folder is None:
        raise ValueError(
            "with --weights, --dataset (or --pictures) and --results must be given. "
            f"For example: {_WEIGHTS_EXAMPLE}"
        )
    data["data_dir"] = data["data_dir"] or _DATA_SETS
    where = {"dataset": dataset, "folder": folder}
    subject = open_weights(path, given_from_flags(), **where, **data, **common)
    _logger.info("%s\n%s", path, subject.imported.describe())
    return subject


def main(argv: list[str]) -> None:
    """Evaluates the run that the flags name."""
    del argv
    if (_CHECKPOINT.value is None) == (_WEIGHTS.value is None):
        which = (
            "is missing"
            if _WEIGHTS.value is None
            else "and --weights exclude each other"
        )
        command_line.fail(f"--checkpoint {which}. For example: {_EXAMPLE}")
    command_line.log_own_messages()
    command_line.start_jax()

    def run_tasks() -> tuple[str, list[str]]:
        run = dataclasses.replace(_subject(), scratch=_SCRATCH.value)
        folder = as_path(_RESULTS.value or run.folder)
        results = evaluate(run, _TASKS.value, folder=folder, **given_options())
        report = f"{as_text(results)}\n\nWritten to {folder}."
        return report, results["failed"]

    try:
        report, failed = command_line.run_or_fail(run_tasks)
    except Stopped as stopped:
        _logger.warning("%s The same command goes on from there.", stopped)
        sys.exit(exit_status(stopped.name))
    if jax.process_index() == 0:
        print(report)
    if failed:
        command_line.fail(f"{', '.join(failed)} failed: see above.")


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
