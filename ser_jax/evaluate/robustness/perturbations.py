"""Whether predictions flip while a picture changes slowly: ImageNet-P."""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ser_jax.data.sources import Source
from ser_jax.evaluate.classify.classifier import (
    Classify,
    Progress,
    checked_logits,
    no_progress,
)
from ser_jax.evaluate.robustness.class_folders import find_set, label_classes
from ser_jax.evaluate.robustness.clips import (
    AsItIs,
    Clips,
    generated_clips,
    published_clips,
)
from ser_jax.evaluate.robustness.frames import PERTURBATIONS, RESIZE_PX
from ser_jax.evaluate.robustness.metrics import (
    flip_probability,
    mean_flip_rate,
    top1_over_frames,
)

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
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """How often the predicted class flips within clips, and accuracy over frames.

    Args:
        classify: The classifier.
        source: Clean evaluation pictures; clips are generated from them, and the
            classes of published clips are its own.
        image_size: Side of the pictures the classifier takes, px.
        num_images: Pictures that clips are made of, evenly picked; all if there are
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
        root = pathlib.Path(folder).expanduser()
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
    root: pathlib.Path, source: Source
) -> dict[str, tuple[pathlib.Path, dict[str, int]]]:
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
