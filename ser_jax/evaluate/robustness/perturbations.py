"""Whether predictions flip while an image changes slowly: ImageNet-P."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from ser_jax.data.sources import Source
from ser_jax.evaluate.classify.classifier import (
    Classify,
    OnPass,
    checked_logits,
    no_progress,
)
from ser_jax.evaluate.classify.linear import HeadOptions
from ser_jax.evaluate.options import option
from ser_jax.evaluate.robustness.class_folders import find_set, label_classes
from ser_jax.evaluate.robustness.clips import (
    AsItIs,
    Clips,
    generated_clips,
    published_clips,
)
from ser_jax.evaluate.robustness.frames import PERTURBATIONS, RESIZE_PX
from ser_jax.evaluate.robustness.head import (
    head_classifier,
    log_pass,
    not_generated,
)
from ser_jax.evaluate.robustness.metrics import (
    flip_probability,
    mean_flip_rate,
    top1_over_frames,
)
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_labels
from ser_jax.storage.files import as_path, local_path

_CLIPS_PER_PASS = 1000  # logits of 31 frames each over 1000 classes take 124 MB


def evaluate_perturbations(
    classify: Classify,
    source: Source,
    *,
    image_size: int,
    num_images: int,
    seed: int,
    folder: str | os.PathLike[str] | None = None,
    normalizers: Mapping[str, float] | None = None,
    progress: OnPass = no_progress,
) -> dict[str, Any]:
    """How often the predicted class flips within clips, and accuracy over frames.

    Args:
        classify: The classifier.
        source: Clean evaluation images; clips are generated from them, and the
            classes of published clips are its own.
        image_size: Side of the images the classifier takes, px.
        num_images: Images that clips are made of, evenly picked; all if there are
            fewer. Published clips are taken whole.
        seed: Seeds generated clips, >= 0.
        folder: ImageNet-P as published, `[<group>/]<perturbation>/<class>/*.mp4`; None
            generates clips, at 32 px with CIFAR-10-P's strengths, at 224 px with
            ImageNet-P's.
        normalizers: A reference network's flip probabilities by perturbation.
        progress: Told before every perturbation.

    Returns:
        "source" ("generated" or "official"), "num_clips" (of each perturbation, at
        most), "top1" and "mean_flip_probability" (means over perturbations),
        "mean_flip_rate" (None without normalizers), "flip_probability" and
        "top1_by_perturbation" (by name) and "missing" (names).

    Raises:
        ValueError: If clips of this size cannot be generated, a published clip is
            unreadable or of another size, or the normalizers are for others.
        FileNotFoundError: If the folder holds no clips.
    """
    open_clips: dict[str, Callable[[], Clips]]
    if folder is None:
        open_clips = _generated(source.subset(num_images), image_size, seed)
    else:
        root = local_path(folder)
        places = open_perturbed(root, source)
        open_clips = {
            name: functools.partial(published_clips, *place, size_px=image_size)
            for name, place in places.items()
        }
    if normalizers is not None:  # before hours of work that they may not fit
        mean_flip_rate(dict.fromkeys(open_clips, 0.0), normalizers)
    flips, top1 = {}, {}
    num_clips = 0
    for done, (name, opened) in enumerate(open_clips.items()):
        progress(name, done, len(open_clips))
        clips = opened()
        num_clips = max(num_clips, clips.num_clips)
        predictions, labels = _predict(classify, clips, name)
        flips[name] = flip_probability(predictions, name)
        top1[name] = top1_over_frames(predictions, labels)
    return {
        "source": "generated" if folder is None else "official",
        "num_clips": num_clips,
        "top1": float(np.mean(list(top1.values()))),
        "mean_flip_probability": float(np.mean(list(flips.values()))),
        "mean_flip_rate": (
            None if normalizers is None else mean_flip_rate(flips, normalizers)
        ),
        "flip_probability": flips,
        "top1_by_perturbation": top1,
        "missing": [name for name in PERTURBATIONS if name not in flips],
    }


def _generated(
    source: Source, size_px: int, seed: int
) -> dict[str, Callable[[], Clips]]:
    if size_px not in RESIZE_PX:
        raise ValueError(
            f"clips can be generated at {' px and '.join(map(str, RESIZE_PX))} px, got "
            f"{size_px} px: their strengths are set for these sizes."
        )
    return {
        name: functools.partial(
            generated_clips, source, name, size_px=size_px, seed=seed
        )
        for name in PERTURBATIONS
    }


def open_perturbed(
    root: epath.Path, source: Source
) -> dict[str, tuple[epath.Path, dict[str, int]]]:
    """Finds ImageNet-P's clips.

    Args:
        root: `[<group>/]<perturbation>/<class>/*.mp4`.
        source: Its classes are those of the clips.

    Returns:
        Perturbation -> its folder, and the label of each class in it.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If the classes are others.
    """
    if source.num_classes is None:
        raise ValueError(f"{source.name!r} has no classes to tell apart.")
    places = {n: place for n in PERTURBATIONS if (place := find_set(root, n))}
    if not places:
        raise FileNotFoundError(
            f"no clips in {root}; expected ImageNet-P: <perturbation>/<class>/*.mp4. "
            f"Perturbations: {', '.join(PERTURBATIONS)}."
        )
    # The folders of all are looked at before the first is read.
    return {
        name: (place, label_classes(place, source.num_classes, source.class_names))
        for name, place in places.items()
    }


def _predict(
    classify: Classify, clips: Clips, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted class of each frame, `[clips, frames]`, and each clip's own."""
    predictions, labels = [], []
    for start in range(0, clips.num_clips, _CLIPS_PER_PASS):
        chosen = range(start, min(start + _CLIPS_PER_PASS, clips.num_clips))
        frames = clips.source(name, chosen)
        logits, labels_of_frames = checked_logits(classify, frames, AsItIs())
        predictions.append(logits.argmax(1))
        labels.append(labels_of_frames[:: clips.num_frames])
    return (
        np.concatenate(predictions).reshape(clips.num_clips, clips.num_frames),
        np.concatenate(labels),
    )


@dataclasses.dataclass(frozen=True)
class PerturbationOptions(HeadOptions):
    """Of the task.

    Attributes:
        perturbed: Folder of ImageNet-P; None: clips made here.
        flip_normalizers: JSON file, perturbation -> a reference network's flip
            probability; None: there is no mean flip rate.
    """

    perturbed: str | None = option(None, "Folder of ImageNet-P; else made here.")
    flip_normalizers: str | None = option(
        None,
        "JSON file, perturbation -> flip probability of a reference network, for the "
        "mFR.",
    )


def _obstacle(subject: Subject, options: PerturbationOptions) -> str | None:
    """Clips are published, or made at two sizes; a flip rate is over another's."""
    if why := no_labels(subject, options):
        return why
    if options.perturbed is None:
        if why := not_generated(subject, "--perturbed=DIR"):
            return why
    try:
        if options.perturbed is not None:
            open_perturbed(local_path(options.perturbed), subject.data.train)
        normalizers = _flip_normalizers(options)
    except (ValueError, OSError) as error:
        return str(error)
    if normalizers is not None and normalizers.keys() - set(PERTURBATIONS):
        return f"{options.flip_normalizers} names what is no perturbation."
    return None


def _flip_normalizers(options: PerturbationOptions) -> dict[str, float] | None:
    """A reference network's flip probabilities by perturbation, if they are given."""
    if options.flip_normalizers is None:
        return None
    path = as_path(options.flip_normalizers)
    try:
        found = json.loads(path.read_text())
        return {name: float(value) for name, value in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} must hold a JSON object, perturbation -> flip probability of the "
            f"reference network: {error}."
        ) from error


def _measure(subject: Subject, options: PerturbationOptions) -> dict[str, Any]:
    """`evaluate_perturbations` of the linear head, and which head it is."""
    classify, head = head_classifier(subject, options)
    return head | evaluate_perturbations(
        classify,
        subject.data.held_out,
        image_size=subject.image_size,
        num_images=subject.num_pictures,
        seed=subject.seed,
        folder=options.perturbed,
        normalizers=_flip_normalizers(options),
        progress=log_pass,
    )


TASK = Task(
    name="perturbations",
    section="Robustness",
    caption="How often its prediction changes within a clip.",
    measure=_measure,
    obstacle=_obstacle,
    options=PerturbationOptions,
    better={
        "top1": "higher",
        "top1_by_perturbation": "higher",
        "flip_probability": "lower",
        "mean_flip_*": "lower",
    },
    in_detail=("flip_probability", "top1_by_perturbation"),
)
