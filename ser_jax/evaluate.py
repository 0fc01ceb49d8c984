"""Command line: `python -m ser_jax.evaluate --checkpoint=WORKDIR --tasks=knn,linear`.

What a trained encoder's features are worth on its data set's evaluation split.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from absl import logging as absl_logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ser_jax import command_line, summary, tables
from ser_jax.checkpoint_reader import load_subtree, read_meta
from ser_jax.data.host_transforms import CentreCrop
from ser_jax.data.sources import Source, open_source
from ser_jax.evals.features import extract, make_embed
from ser_jax.evals.tasks import TASKS, Evaluated, Split
from ser_jax.experiment import Experiment, build, eval_resize_px
from ser_jax.sharding import check_batch_size, make_mesh, replicated
from ser_jax.variables import encoder_paths

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint; the newest if not given.")
_TASKS = flags.DEFINE_list(
    "tasks", ["all"], "knn, linear, logreg, health, equivariance; or all."
)
_RESULTS = flags.DEFINE_string(
    "results", None, "Folder for results; WORKDIR/eval if not given."
)

_EXAMPLE = "python -m ser_jax.evaluate --checkpoint=/tmp/digits_ser --tasks=knn,linear"
_NUM_PICTURES = 256  # that equivariance is measured on


def evaluate(
    workdir: str, tasks: Sequence[str], step: int | None, out: str | None
) -> str:
    """Runs tasks on a run's checkpoint; writes `results.json` and `results.md`.

    Args:
        workdir: The run.
        tasks: Names in `TASKS`, or "all".
        step: Which checkpoint; None is the newest.
        out: Folder for the results; None is `eval` in the workdir.

    Returns:
        The tables.

    Raises:
        ValueError: If a task is not known, or the data cannot be evaluated on.
        FileNotFoundError: If there is no such checkpoint.
    """
    chosen = list(TASKS) if "all" in tasks else list(dict.fromkeys(tasks))
    if unknown := [task for task in chosen if task not in TASKS]:
        raise ValueError(
            f"no task is called {', '.join(unknown)}; there are: all, "
            f"{', '.join(TASKS)}."
        )
    path = pathlib.Path(workdir).expanduser().absolute()
    meta = read_meta(path / "checkpoints", step)
    config = ConfigDict(meta["config"])
    dataset = config.dataset
    sources = {
        name: open_source(dataset.name, split, dataset.data_dir)
        for name, split in (
            ("train", dataset.train_split),
            ("eval", dataset.eval_split),
        )
    }
    for source in sources.values():
        if source.num_classes is None:
            raise ValueError(f"{dataset.name!r} has no labels to evaluate on.")
    experiment = build(config, len(sources["train"]))
    run = _evaluated(experiment, path / "checkpoints", meta["step"], sources)
    results: dict[str, Any] = {
        "run": str(path),
        "step": meta["step"],
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "num_train": len(sources["train"]),
        "num_eval": len(sources["eval"]),
        "tasks": {task: TASKS[task](run) for task in chosen},
    }
    folder = pathlib.Path(out).expanduser() if out else path / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        ("", "value"),
        *((k, tables.to_text(v)) for k, v in tables.flatten(results).items()),
    ]
    report = tables.table(rows)
    summary.write_json(folder / "results.json", results)
    summary.write_text(folder / "results.md", report)
    return f"{report}\n\nWritten to {folder}."


def _evaluated(
    experiment: Experiment,
    checkpoints: pathlib.Path,
    step: int,
    sources: Mapping[str, Source],
) -> Evaluated:
    config, mesh = experiment.config, make_mesh()
    check_batch_size(config.batch_size, mesh)
    variables = _encoder_variables(experiment, checkpoints, step, mesh)
    size = config.augment.image_size

    def embed(variables: Any, images: jax.Array) -> jax.Array:
        out = experiment.encode(variables, images)
        return jnp.concatenate([out.cls, jnp.mean(out.tokens, axis=1)], axis=1)

    read = functools.partial(
        extract,
        transform=CentreCrop(size, eval_resize_px(size)),
        mesh=mesh,
        batch_size=config.batch_size,
        num_threads=config.loader.num_threads,
    )
    jitted = make_embed(embed, mesh)

    @functools.cache
    def split(name: str) -> Split:
        both, labels = read(jitted, variables, sources[name])
        width = both.shape[1] // 2
        return Split({"cls1": both[:, :width], "cls1_avg": both}, labels)

    @functools.cache
    def images() -> np.ndarray:
        normalize = make_embed(lambda _, images: experiment.normalize(images), mesh)
        return read(normalize, (), sources["eval"].subset(_NUM_PICTURES))[0]

    return Evaluated(split, images, experiment.learner.encoder, variables, config.seed)


def _encoder_variables(
    experiment: Experiment, checkpoints: pathlib.Path, step: int, mesh: Mesh
) -> dict[str, Any]:
    """The evaluated encoder's part of the checkpoint, verified."""
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    shapes = experiment.evaluated(state.variables)
    sharding = replicated(mesh)
    variables = {}
    for name, path in encoder_paths(experiment.evaluates_target).items():
        variables[name] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            shapes[name],
        )
        if variables[name]:  # a ViT has no statistics, and its checkpoint no such part
            variables[name] = load_subtree(
                checkpoints, variables[name], f"variables/{path}", step
            )
    return variables


def main(argv: list[str]) -> None:
    """Evaluates the run that the flags name."""
    del argv
    if _CHECKPOINT.value is None:
        command_line.fail(f"--checkpoint is missing. For example: {_EXAMPLE}")
    absl_logging.set_verbosity(absl_logging.WARNING)
    report = command_line.run_or_fail(
        evaluate, _CHECKPOINT.value, _TASKS.value, _STEP.value, _RESULTS.value
    )
    print(report)


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
