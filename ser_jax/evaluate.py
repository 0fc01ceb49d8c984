"""Command line: `python -m ser_jax.evaluate --checkpoint=WORKDIR --tasks=knn,linear`.

What a trained encoder's features are worth on its data set's evaluation split.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from ser_jax import command_line, summary, tables
from ser_jax.checkpoint_reader import load_subtree, read_meta
from ser_jax.data.host_transforms import CentreCrop
from ser_jax.data.sources import Source, open_source
from ser_jax.evals.features import extract, make_embed
from ser_jax.evals.knn import knn_predict
from ser_jax.evals.linear_probe import linear_probe
from ser_jax.evals.linear_protocols import LINEAR_PROTOCOLS
from ser_jax.evals.logreg import logistic_regression
from ser_jax.evals.representation import effective_dimension, embedding_std, rankme
from ser_jax.experiment import Experiment, build, eval_resize_px
from ser_jax.sharding import check_batch_size, make_mesh, replicated

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint; the newest if not given.")
_TASKS = flags.DEFINE_list("tasks", ["all"], "knn, linear, logreg, health; or all.")
_OUT = flags.DEFINE_string(
    "out", None, "Folder for results; WORKDIR/eval if not given."
)

_EXAMPLE = "python -m ser_jax.evaluate --checkpoint=/tmp/digits_ser --tasks=knn,linear"
_KNN_NEIGHBORS = (10, 20, 100, 200)


@dataclasses.dataclass(frozen=True)
class Split:
    """Cached features of a split.

    Attributes:
        features: "cls1", the class token, `[n, d]`, and "cls1_avg", the same beside the
            mean patch token, `[n, 2 * d]`; float32.
        labels: Classes, `[n]`, int.
    """

    features: Mapping[str, np.ndarray]
    labels: np.ndarray


def knn(train: Split, held_out: Split, seed: int) -> dict[str, Any]:
    """Top-1 of DINO's weighted k-NN for every k that the train split allows."""
    del seed
    results = {}
    for k in (k for k in _KNN_NEIGHBORS if k <= len(train.labels)):
        predicted = knn_predict(
            held_out.features["cls1"],
            train.features["cls1"],
            train.labels,
            num_neighbors=k,
        )
        results[f"top1_k{k}"] = float(np.mean(predicted == held_out.labels))
    if not results:
        raise ValueError(
            f"k-NN needs at least {min(_KNN_NEIGHBORS)} training images, got "
            f"{len(train.labels)}."
        )
    return results


def linear(train: Split, held_out: Split, seed: int) -> dict[str, Any]:
    """Top-1 and top-5 of the linear head that is best on held-out training images.

    MoCo v3's protocol on cached features, with five learning rates, batches of 256 and
    the class token with and without the mean patch token.
    """
    protocol = dataclasses.replace(
        LINEAR_PROTOCOLS["moco_v3"],
        features=tuple(train.features),
        base_learning_rates=(0.1, 0.3, 1.0, 3.0, 10.0),
        batch_size=min(256, len(train.labels) // 2),
    )
    result = linear_probe(
        train.features,
        train.labels,
        held_out.features,
        held_out.labels,
        protocol=protocol,
        seed=seed,
        num_classes=_num_classes(train, held_out),
    )
    return {"top1": result.top1, "top5": result.top5} | dataclasses.asdict(result.best)


def logreg(train: Split, held_out: Split, seed: int) -> dict[str, Any]:
    """Top-1 and top-5 of logistic regression on the class token, L2 from a sweep."""
    result = logistic_regression(
        train.features["cls1"],
        train.labels,
        held_out.features["cls1"],
        held_out.labels,
        seed=seed,
        num_classes=_num_classes(train, held_out),
    )
    return {"top1": result.top1, "top5": result.top5} | dataclasses.asdict(result.best)


def health(train: Split, held_out: Split, seed: int) -> dict[str, Any]:
    """Whether the class tokens of the evaluation split have collapsed."""
    del train, seed
    features = held_out.features["cls1"]
    return {
        "rankme": rankme(features),
        "effective_dimension": effective_dimension(features),
        "cls_std": embedding_std(features),
        "healthy_std": features.shape[1] ** -0.5,
    }


TASKS: dict[str, Callable[[Split, Split, int], dict[str, Any]]] = {
    "knn": knn,
    "linear": linear,
    "logreg": logreg,
    "health": health,
}


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
    splits = _features(experiment, path / "checkpoints", meta["step"], sources)
    results: dict[str, Any] = {
        "run": str(path),
        "step": meta["step"],
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "num_train": len(sources["train"]),
        "num_eval": len(sources["eval"]),
        "tasks": {
            task: TASKS[task](splits["train"], splits["eval"], config.seed)
            for task in chosen
        },
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


def _features(
    experiment: Experiment,
    checkpoints: pathlib.Path,
    step: int,
    sources: Mapping[str, Source],
) -> dict[str, Split]:
    config, mesh = experiment.config, make_mesh()
    check_batch_size(config.batch_size, mesh)
    variables = _encoder_variables(experiment, checkpoints, step, mesh)
    size = config.augment.image_size

    def embed(variables: Any, images: jax.Array) -> jax.Array:
        out = experiment.encode(variables, images)
        return jnp.concatenate([out.cls, jnp.mean(out.tokens, axis=1)], axis=1)

    jitted, splits = make_embed(embed, mesh), {}
    for name, source in sources.items():
        both, labels = extract(
            jitted,
            variables,
            source,
            CentreCrop(size, eval_resize_px(size)),
            mesh,
            batch_size=config.batch_size,
            num_threads=config.loader.num_threads,
        )
        width = both.shape[1] // 2
        splits[name] = Split({"cls1": both[:, :width], "cls1_avg": both}, labels)
    return splits


def _encoder_variables(
    experiment: Experiment, checkpoints: pathlib.Path, step: int, mesh: Any
) -> dict[str, Any]:
    """The evaluated encoder's part of the checkpoint, verified."""
    target = experiment.learner.objective.target
    of_target = target is not None and target.evaluated
    paths = {
        "params": "target_params" if of_target else "params",
        "batch_stats": f"batch_stats/{'target' if of_target else 'student'}",
    }
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    shapes = experiment.evaluated(state.variables)
    sharding = replicated(mesh)

    def load(name: str, prefix: str) -> Any:
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            shapes[name],
        )
        if not jax.tree.leaves(abstract):
            return abstract
        part = f"variables/{prefix}/encoder"
        return load_subtree(checkpoints, abstract, part, step)

    return {name: load(name, prefix) for name, prefix in paths.items()}


def _num_classes(*splits: Split) -> int:
    return int(max(split.labels.max() for split in splits)) + 1


def main(argv: list[str]) -> None:
    """Evaluates the run that the flags name."""
    del argv
    if _CHECKPOINT.value is None:
        command_line.fail(f"--checkpoint is missing. For example: {_EXAMPLE}")
    absl_logging.set_verbosity(absl_logging.WARNING)
    report = command_line.run_or_fail(
        evaluate, _CHECKPOINT.value, _TASKS.value, _STEP.value, _OUT.value
    )
    print(report)


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
