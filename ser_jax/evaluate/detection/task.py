"""The task of detection: COCO boxes, found on the maps of the frozen encoder."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from ser_jax.data.decode import decode_image
from ser_jax.evaluate.detection.coco import open_coco
from ser_jax.evaluate.detection.find import Found, find
from ser_jax.evaluate.detection.frozen import Detectors, HeadSettings
from ser_jax.evaluate.detection.maps import LAST_BLOCKS
from ser_jax.evaluate.detection.metrics import (
    FIGURES,
    CocoMetrics,
    coco_metrics,
    missing,
    over_seeds,
    write_detections,
)
from ser_jax.evaluate.detection.pictures import (
    Shown,
    detections_picture,
    losses_picture,
    precision_recall_picture,
)
from ser_jax.evaluate.detection.split import CocoSplit
from ser_jax.evaluate.detection.train import train_detectors
from ser_jax.evaluate.options import option
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task
from ser_jax.storage.files import matching
from ser_jax.storage.metrics import read_metrics
from ser_jax.train.sharding import check_batch_size

_BASE_LR, _BASE_BATCH = 2e-4, 64
_WARMUP_STEPS, _WARMUP_FRAC = 500, 0.1  # the fewer of them
_NUM_SHOWN = 8  # pictures
_SEEDS = 2**32  # as many as there are


class Protocol(NamedTuple):
    """How long detectors are trained, and on pictures of what size.

    Attributes:
        num_epochs: Passes over the training split.
        size_px: Side of the pictures.
    """

    num_epochs: int
    size_px: int


PROTOCOLS = {"short": Protocol(12, 512), "long": Protocol(36, 640)}


@dataclasses.dataclass(frozen=True)
class DetectionOptions:
    """Of the task.

    Attributes:
        coco: Folder of the pictures and their boxes: `open_coco`.
        coco_train: Split to learn from.
        coco_eval: Split to measure on.
        detection_protocol: A name in `PROTOCOLS`.
        detection_size: Side of the pictures in place of the protocol's, px.
        detection_steps: Steps in place of the protocol's epochs.
        detection_batch: Pictures of a step.
        detection_learning_rate: At its peak; if not given, 2e-4 for 64 pictures, and
            in proportion for others.
        detection_layer: "last", "last4", or the number of a layer: `feature_maps`.
        detection_channels: Width of detectors; costs grow with its square.
        seeds: Of detectors, which are trained at once.
        max_bad_frac: Share of the pictures that may be unreadable.
    """

    coco: str | None = option(
        None, "Folder of COCO, or of a set in its format, for the task detection."
    )
    coco_train: str = option(
        "train2017", "Its split to learn from, or train2017[:10%], or a json file."
    )
    coco_eval: str = option("val2017", "Its split to measure on, likewise.")
    detection_protocol: str = option(
        "short",
        "Training of detectors: short, 12 epochs at 512 px; long, 36 at 640 px.",
        choices=tuple(PROTOCOLS),
    )
    detection_size: int | None = option(
        None, "Side of the pictures, px, if not the protocol's.", lower_bound=1
    )
    detection_steps: int | None = option(
        None, "Steps of training, if not the protocol's.", lower_bound=0
    )
    detection_batch: int = option(
        _BASE_BATCH, "Pictures of a step of training, in all.", lower_bound=1
    )
    detection_learning_rate: float | None = option(
        None, "Of detectors; 2e-4 for a batch of 64, and in proportion.", lower_bound=0
    )
    detection_layer: str = option(
        "last",
        f"Whose maps are read: last; {LAST_BLOCKS}, the last four blocks side by "
        "side; or a layer's number.",
    )
    detection_channels: int = option(
        256, "Width of detectors, a multiple of 8.", lower_bound=8
    )
    seeds: tuple[str, ...] = option(
        ("0",), "Seeds of detectors, trained at once: mean and spread are given."
    )
    max_bad_frac: float = option(
        0.0, "Share of the pictures of --coco that may be unreadable.", lower_bound=0
    )


def _measure(subject: Subject, options: DetectionOptions) -> dict[str, Any]:
    """COCO's figures on the evaluation split, and how they came about.

    The detectors, their curves and what they found are kept in the folder.
    """
    assert options.coco is not None
    train, held_out = open_coco(options.coco, options.coco_train, options.coco_eval)
    detectors = _detectors(subject, options, train)
    seeds = _seeds(options)
    folder = subject.results_folder / "detection"
    trained = train_detectors(
        detectors,
        train,
        folder,
        seeds=seeds,
        data_seed=subject.seed,
        num_threads=subject.num_threads,
        num_workers=subject.num_workers,
        max_bad_frac=options.max_bad_frac,
    )
    found = find(
        detectors,
        trained.params,
        held_out,
        batch_size=options.detection_batch,
        num_threads=subject.num_threads,
        max_bad_frac=options.max_bad_frac,
    )
    truth = found.split.ground_truth()
    metrics = {
        seed: coco_metrics(truth, detections)
        for seed, detections in zip(seeds, found.detections, strict=True)
    }
    settings = detectors.settings
    results = over_seeds(metrics) | {
        "setting": {
            "size_px": detectors.size_px,
            "steps": settings.total_steps,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "layer": options.detection_layer,
            "channels": options.detection_channels,
            "train": f"{train.name}, {len(train)} pictures",
            "eval": f"{held_out.name}, {len(found.split)} pictures",
            "data": [train.digest, held_out.digest],
        },
        "num_params": sum(x.size for x in jax.tree.leaves(trained.params))
        // len(seeds),
        "unreadable": trained.num_unreadable + len(held_out) - len(found.split),
        "training_images_per_s": trained.images_per_s,
        "inference_images_per_s": found.images_per_s,
        "heads": str(trained.folder.relative_to(subject.results_folder)),
    }
    if jax.process_index():  # the first one writes
        return results
    written = {
        write_detections(folder / f"detections_seed{seed}.json", detections)
        for seed, detections in zip(seeds, found.detections, strict=True)
    }
    for path in matching(folder, "detections_seed*.json"):
        if path not in written:  # of other seeds, and perhaps of another split
            path.unlink()
    files = _draw(folder, found, metrics[seeds[0]])
    if rows := read_metrics(trained.folder):
        files["losses"] = losses_picture(folder / "losses.png", rows, seeds)
    root = subject.results_folder
    names = {kind: str(path.relative_to(root)) for kind, path in files.items()}
    return results | {"pictures": names}


def _draw(
    folder: epath.Path, found: Found, metrics: CocoMetrics
) -> dict[str, epath.Path]:
    """Pictures of what the first detector found: kind -> file."""
    if metrics.figures["AP"] is None:  # there is nothing to be found
        return {}
    split = found.split
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for box in found.detections[0]:
        by_image.setdefault(box["image_id"], []).append(box)
    with_boxes = np.flatnonzero(np.diff(split.starts))[:_NUM_SHOWN]
    chosen = split.subset(with_boxes)
    truth: dict[int, list[Mapping[str, Any]]] = {}
    for box in chosen.ground_truth()["annotations"]:
        truth.setdefault(box["image_id"], []).append(box)
    shown = [
        Shown(
            decode_image(chosen.read(i)),
            truth[image_id],
            by_image.get(image_id, []),
            chosen.sizes[i].tolist(),
        )
        for i, image_id in enumerate(chosen.image_ids.tolist())
    ]
    names = dict(zip(*split.categories, strict=True))
    return {
        "detections": detections_picture(folder / "detections.png", shown, names),
        "precision_recall": precision_recall_picture(
            folder / "precision_recall.png", metrics
        ),
    }


def _detectors(
    subject: Subject, options: DetectionOptions, train: CocoSplit
) -> Detectors:
    protocol = PROTOCOLS[options.detection_protocol]
    patch = subject.encoder.module.patch_size
    size_px = options.detection_size or max(1, round(protocol.size_px / patch)) * patch
    batch_size = options.detection_batch
    check_batch_size(batch_size, subject.mesh)
    learning_rate = options.detection_learning_rate
    if learning_rate is None:
        learning_rate = _BASE_LR * batch_size / _BASE_BATCH
    total_steps = options.detection_steps
    if total_steps is None:
        total_steps = max(1, round(protocol.num_epochs * len(train) / batch_size))
    return Detectors(
        subject.encoder,
        num_classes=len(train.categories.ids),
        size_px=size_px,
        layer=_layer(options),
        channels=options.detection_channels,
        settings=HeadSettings(
            total_steps,
            batch_size,
            learning_rate,
            warmup_steps=min(_WARMUP_STEPS, int(_WARMUP_FRAC * total_steps)),
        ),
        mesh=subject.mesh,
    )


def _layer(options: DetectionOptions) -> int | str | None:
    name = options.detection_layer
    if name == "last":
        return None
    return int(name) if name.isdecimal() else name


def _seeds(options: DetectionOptions) -> tuple[int, ...]:
    are_numbers = all(map(str.isdecimal, options.seeds))
    seeds = tuple(map(int, options.seeds)) if are_numbers else ()
    if not seeds or len(set(seeds)) < len(seeds) or max(seeds) >= _SEEDS:
        raise ValueError(
            f"--seeds must be different numbers, from 0 on and below {_SEEDS}, like "
            f"0,1,2; got {','.join(options.seeds) or 'none'}."
        )
    return seeds


def _obstacle(subject: Subject, options: DetectionOptions) -> str | None:
    if options.coco is None:
        return "it needs COCO, or a set in its format: give its folder as --coco."
    return subject.one_grid() or missing()


TASK = Task(
    name="detection",
    section="Detection",
    caption="Boxes by a detector on the frozen encoder; COCO's figures.",
    measure=_measure,
    obstacle=_obstacle,
    options=DetectionOptions,
    in_all=False,  # It trains a network.
    optional=True,
    better={name: "higher" for name in (*FIGURES, "per_class")},
    in_detail=("per_class", "seeds", "pictures"),
    headline=("detection AP", "AP"),
)
