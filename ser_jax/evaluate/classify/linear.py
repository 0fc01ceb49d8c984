"""The task of linear evaluation, and its head, kept for tasks on other images."""

import dataclasses
import json
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ser_jax.evaluate.classify.heads import Head
from ser_jax.evaluate.classify.linear_heads import LinearProbeResult, linear_probe
from ser_jax.evaluate.classify.protocols import (
    LINEAR_PROTOCOLS,
    LinearProtocol,
    linear_protocol,
)
from ser_jax.evaluate.features.readings import TOKENS, GridOptions
from ser_jax.evaluate.options import option
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_labels
from ser_jax.storage.files import whole_file
from ser_jax.storage.lock import only_writer

_LEAST_STEPS_PER_EPOCH = 40


@dataclasses.dataclass(frozen=True)
class HeadOptions:
    """Of tasks that classify with the linear head.

    Attributes:
        protocol: How heads are trained: a name in `LINEAR_PROTOCOLS`.
    """

    protocol: str = option(
        "grid", "Settings of the linear heads.", choices=tuple(LINEAR_PROTOCOLS)
    )


@dataclasses.dataclass(frozen=True)
class LinearOptions(HeadOptions, GridOptions):
    """Of the task: its protocol, and a grid that gets heads of its own."""


def linear_head(subject: Subject, options: HeadOptions) -> tuple[Head, str]:
    """The head that the task chose, trained now if it has not been before.

    Args:
        subject: Whose.
        options: With which protocol.

    Returns:
        The head, and the feature that it reads.
    """
    for split in ("train", "eval"):  # on all processes, whatever each finds below
        subject.features(split)
    for folder in (subject.results_folder, subject.folder):
        kept = _read_head(folder / _head_name(options), _head_key(subject, options))
        if kept is not None:
            return kept
    _, found = _probe(subject, options, TOKENS)
    _write_head(subject, options, found)
    return found.head, found.best.feature


def _probe(
    subject: Subject, options: HeadOptions, reading: str
) -> tuple[LinearProtocol, LinearProbeResult]:
    """Linear heads on a reading, and their protocol."""
    train, held_out = (subject.labelled(split, reading) for split in ("train", "eval"))
    protocol = linear_protocol(
        options.protocol,
        {name: array.shape[1] for name, array in train.by_name.items()},
        is_vit=subject.encoder.module.cls_insert is not None,
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
        seed=subject.seed,
        num_classes=subject.data.num_classes,
    )
    return protocol, found


def _head_name(options: HeadOptions) -> str:
    return f"linear_head_{options.protocol}.npz"


def _head_key(subject: Subject, options: HeadOptions) -> str:
    """What the head depends on."""
    train = subject.data.train
    data = [train.fingerprint, train.content]
    return json.dumps([options.protocol, subject.encoder.digest, *data])


def _read_head(path: epath.Path, key: str) -> tuple[Head, str] | None:
    """The head in a file, if it is there, whole and of this key."""
    try:
        with np.load(path) as arrays:
            if str(arrays["key"]) != key:
                return None
            weights = (jnp.asarray(arrays[name]) for name in Head._fields)
            return Head(*weights), str(arrays["feature"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _write_head(
    subject: Subject, options: HeadOptions, found: LinearProbeResult
) -> None:
    if jax.process_index():
        return
    folder = subject.results_folder
    with only_writer(folder, wait=True), whole_file(folder / _head_name(options)) as f:
        np.savez(
            f,
            key=_head_key(subject, options),
            feature=found.best.feature,
            **found.head._asdict(),
        )


def _measure(subject: Subject, options: LinearOptions) -> dict[str, Any]:
    """Top-1 and top-5 of the head that is best on held-out training images.

    With what was chosen, and on what grounds. The head is kept in the folder.
    """
    results: dict[str, Any] = {}
    for prefix, _, reading in options.readings():
        protocol, found = _probe(subject, options, reading)
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
        if reading == TOKENS:
            _write_head(subject, options, found)
    return results


TASK = Task(
    name="linear",
    section="Accuracy",
    caption="Linear head, chosen on held-out training images.",
    measure=_measure,
    obstacle=no_labels,
    options=LinearOptions,
    better={"*top1": "higher", "*top5": "higher"},
    headline=("linear top-1", "top1"),
)
