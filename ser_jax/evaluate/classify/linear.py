"""Tasks on cached features: how well they classify, whether they have collapsed."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.classify.collapse import effective_dimension, rankme
from ser_jax.evaluate.classify.heads import Head
from ser_jax.evaluate.classify.knn import knn_predict
from ser_jax.evaluate.classify.linear_heads import LinearProbeResult, linear_probe
from ser_jax.evaluate.classify.logreg import logistic_regression
from ser_jax.evaluate.classify.protocols import LinearProtocol, linear_protocol
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.task import Options
from ser_jax.methods.objectives.base import mean_std
from ser_jax.models.vit import ViT
from ser_jax.storage.files import whole_file

_KNN_NEIGHBORS = (10, 20, 100, 200)
_LEAST_STEPS_PER_EPOCH = 40


def knn(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Top-1 of DINO's weighted k-NN for every k that the train split allows.

    Args:
        run: The run.
        options: `grid_layer`: its token grid is classified, too.

    Returns:
        "top1_k<k>", and "grid<layer>_top1_k<k>".

    Raises:
        ValueError: If there are fewer training images than the least k.
    """
    num_train = len(run.data.train)
    neighbors = [k for k in _KNN_NEIGHBORS if k <= num_train]
    if not neighbors:
        raise ValueError(
            f"k-NN votes with at least {min(_KNN_NEIGHBORS)} neighbours, but the train "
            f"split {run.data.train.split!r} has {num_train} images; evaluate "
            "with a larger one."
        )
    results = {}
    for prefix, name, layer in _read(options):
        train, held_out = (run.features(split, layer) for split in ("train", "eval"))
        predicted = knn_predict(
            held_out.by_name[name],
            train.by_name[name],
            train.labels,
            neighbors=neighbors,
        )
        for k, classes in predicted.items():
            top1 = float(np.mean(classes == held_out.labels))
            results[f"{prefix}top1_k{k}"] = top1
    return results


def linear(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Top-1 and top-5 of the linear head that is best on held-out training images.

    The head is kept in the run's folder for the tasks that classify other pictures.

    Args:
        run: The run.
        options: `protocol`; `grid_layer`: its token grid gets heads of its own.

    Returns:
        "top1", "top5", what was chosen and on what grounds.

    Raises:
        ValueError: If there are too few training images.
    """
    results: dict[str, Any] = {}
    for prefix, _, layer in _read(options):
        protocol, found = _probe(run, options, layer)
        chosen = {
            "top1": found.top1,
            "top5": found.top5,
            **dataclasses.asdict(found.best),
            "protocol": f"{options.protocol}, cached features",
            "num_heads": len(found.grid),
            "num_epochs": protocol.num_epochs,
            "batch_size": protocol.batch_size,
            "feature_width": found.head.kernel.shape[0],
        }
        results |= {f"{prefix}{key}": value for key, value in chosen.items()}
        if layer is None:
            _write_head(run, options, found)
    return results


def classifier(run: TrainedRun, options: Options) -> tuple[Head, str]:
    """The head that `linear` chose, trained now if it has not been before.

    Args:
        run: The run.
        options: As of `linear`.

    Returns:
        The head, and the feature that it reads.
    """
    for split in ("train", "eval"):  # on all processes, whatever each finds below
        run.features(split)
    path = _head_path(run, options)
    if path.exists():
        with np.load(path) as arrays:
            if str(arrays["key"]) == _head_key(run, options):
                weights = (jnp.asarray(arrays[name]) for name in Head._fields)
                return Head(*weights), str(arrays["feature"])
    _, found = _probe(run, options, None)
    _write_head(run, options, found)
    return found.head, found.best.feature


def logreg(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Top-1 and top-5 of logistic regression on the class token, L2 from a sweep."""
    del options
    train, held_out = run.features("train"), run.features("eval")
    result = logistic_regression(
        train.by_name["cls1"],
        train.labels,
        held_out.by_name["cls1"],
        held_out.labels,
        seed=run.seed,
        num_classes=run.data.num_classes,
    )
    return {"top1": result.top1, "top5": result.top5} | dataclasses.asdict(result.best)


def health(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Whether the class tokens of the evaluation split (or train) have collapsed."""
    del options
    split = "train" if run.data.pictures is run.data.train else "eval"
    features = run.features(split).by_name["cls1"]
    return {
        "rankme": rankme(features),
        "effective_dimension": effective_dimension(features),
        "cls_std": float(mean_std(jnp.asarray(features))),
        "healthy_std": features.shape[1] ** -0.5,
    }


def _read(options: Options) -> list[tuple[str, str, int | None]]:
    """(prefix of the results, feature, layer of the grid it is of) of what is read."""
    read: list[tuple[str, str, int | None]] = [("", "cls1", None)]
    if options.grid_layer is not None:
        grid = f"grid{options.grid_layer}"
        read.append((f"{grid}_", grid, options.grid_layer))
    return read


def _probe(
    run: TrainedRun, options: Options, layer: int | None
) -> tuple[LinearProtocol, LinearProbeResult]:
    """Linear heads on the class tokens, or on a layer's grid, and their protocol."""
    train, held_out = (run.features(split, layer) for split in ("train", "eval"))
    protocol = linear_protocol(
        options.protocol,
        {name: array.shape[1] for name, array in train.by_name.items()},
        is_vit=isinstance(run.encoder, ViT),
    )
    # Batches that a small set fills often enough.
    most = max(1, len(train.labels) // _LEAST_STEPS_PER_EPOCH)
    batch_size = min(protocol.batch_size, most)
    protocol = dataclasses.replace(protocol, batch_size=batch_size)
    found = linear_probe(
        train.by_name,
        train.labels,
        held_out.by_name,
        held_out.labels,
        protocol=protocol,
        seed=run.seed,
        num_classes=run.data.num_classes,
    )
    return protocol, found


def _head_path(run: TrainedRun, options: Options) -> pathlib.Path:
    return run.folder / f"linear_head_{options.protocol}.npz"


def _head_key(run: TrainedRun, options: Options) -> str:
    """What the head depends on."""
    return json.dumps([options.protocol, run.digest(), run.data.train.fingerprint])


def _write_head(run: TrainedRun, options: Options, found: LinearProbeResult) -> None:
    if jax.process_index():
        return
    with whole_file(_head_path(run, options)) as file:
        np.savez(
            file,
            key=_head_key(run, options),
            feature=found.best.feature,
            **found.head._asdict(),
        )
