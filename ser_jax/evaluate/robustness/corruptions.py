"""Accuracy on corrupted images, generated here or published."""

import dataclasses
import os
from typing import Any

import grain
import numpy as np

from ser_jax.data.host_transforms import CentreCrop
from ser_jax.data.sources import Source
from ser_jax.evaluate.classify.classifier import (
    Classify,
    OnPass,
    checked_logits,
    no_progress,
)
from ser_jax.evaluate.classify.linear import HeadOptions
from ser_jax.evaluate.options import option
from ser_jax.evaluate.robustness.class_folders import NamesFile
from ser_jax.evaluate.robustness.generate import CORRUPTIONS, corrupt
from ser_jax.evaluate.robustness.head import (
    head_classifier,
    log_pass,
    not_generated,
)
from ser_jax.evaluate.robustness.metrics import (
    NUM_SEVERITIES,
    alexnet_normalized_mce,
    mean_top1,
    unnormalized_mce,
)
from ser_jax.evaluate.robustness.published import (
    EXTRA_CORRUPTIONS,
    MAIN_CORRUPTIONS,
    CorruptedSet,
    open_corrupted,
)
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_labels
from ser_jax.storage.files import local_path


@dataclasses.dataclass(frozen=True)
class Corrupted(grain.transforms.Map):
    """A transform, then a corruption drawn for the image's index alone.

    Attributes:
        transform: Gives the clean image as "image", 32 or 224 px.
        corruption: One of `CORRUPTIONS`.
        severity: 1 (mild) to 5.
        seed: Seeds the draws, >= 0.
    """

    transform: grain.transforms.Map
    corruption: str
    severity: int
    seed: int

    def map(self, example: dict[str, Any]) -> dict[str, Any]:
        """The corrupted image.

        Args:
            example: A record: "image", "label", "index".

        Returns:
            What the transform gives, with "image" corrupted.
        """
        clean = self.transform.map(example)
        key = (self.seed, int(clean["index"]), self.severity, *self.corruption.encode())
        image = corrupt(
            clean["image"], self.corruption, self.severity, np.random.default_rng(key)
        )
        return clean | {"image": image}


def evaluate_corruptions(
    classify: Classify,
    source: Source,
    transform: grain.transforms.Map,
    *,
    image_size: int,
    num_images: int,
    seed: int,
    folder: str | os.PathLike[str] | None = None,
    progress: OnPass = no_progress,
) -> dict[str, Any]:
    """Errors under every corruption and severity, and their means.

    Args:
        classify: The classifier; called 70 times and more.
        source: Clean evaluation images.
        transform: The evaluation view of them, `image_size` px.
        image_size: Side of the images the classifier takes, px.
        num_images: Images that are corrupted here, evenly picked; all if there are
            fewer. Published sets are taken whole: a part compares with nothing.
        seed: Seeds generated corruptions, >= 0.
        folder: Published images, as `open_corrupted` takes them; None generates 14
            of the 15 corruptions from `source`. Published ones are cropped, not
            enlarged: 224 px for a classifier of 224 px.
        progress: Told before every pass.

    Returns:
        "source" ("generated", "official" or "tfds"), "num_images", "clean_top1",
        "top1" and "unnormalized_mce" (means over those of the 15 corruptions that are
        there), "alexnet_normalized_mce" (None unless it is ImageNet-C with all 15),
        "errors" (corruption -> error at severities 1 to 5), "extra_errors" (the same
        for the published set's 4 more, in no mean) and "missing" (names).

    Raises:
        ValueError: If images of this size cannot be generated, or a part of the
            published ones is missing or unreadable.
        FileNotFoundError: If the folder holds no corrupted images.
    """
    corrupted: CorruptedSet | None = None
    if folder is None:
        if image_size not in (32, 224):
            raise ValueError(
                f"corruptions can be generated at 32 px and 224 px, got {image_size} "
                "px: their strengths are set for these sizes; give the folder of a "
                "published set instead."
            )
        names, clean = CORRUPTIONS, source.subset(num_images)
    else:
        if source.num_classes is None:
            raise ValueError(f"{source.name!r} has no classes to tell apart.")
        corrupted = open_corrupted(
            local_path(folder), source.num_classes, source.class_names
        )
        names, clean = corrupted.corruptions, source

    def corrupted_images(
        name: str, severity: int
    ) -> tuple[Source, grain.transforms.Map]:
        if corrupted is None:
            return clean, Corrupted(transform, name, severity, seed)
        part = corrupted.open(name, severity)
        return part, NamesFile(CentreCrop(image_size, image_size), part)

    total, done = 1 + NUM_SEVERITIES * len(names), 1
    progress("clean", 0, total)
    clean_top1 = 1 - _error(classify, clean, transform)
    errors: dict[str, list[float]] = {}
    sizes = {}
    for name in names:
        errors[name] = []
        for severity in range(1, NUM_SEVERITIES + 1):
            progress(f"{name} {severity}", done, total)
            part, view = corrupted_images(name, severity)
            sizes[f"{name} {severity}"] = len(part)
            if len(set(sizes.values())) > 1:
                raise ValueError(
                    f"{folder} is not complete: {name} {severity} has {len(part)} "
                    f"images, those before {max(sizes.values())}. Unpack it again."
                )
            errors[name].append(_error(classify, part, view))
            done += 1
    main = {name: errors[name] for name in MAIN_CORRUPTIONS if name in errors}
    missing = [name for name in MAIN_CORRUPTIONS if name not in errors]
    is_imagenet_c = corrupted is not None and corrupted.is_imagenet and not missing
    return {
        "source": corrupted.made_by if corrupted else "generated",
        "num_images": next(iter(sizes.values())),
        "clean_top1": clean_top1,
        "top1": mean_top1(main) if main else None,
        "unnormalized_mce": unnormalized_mce(main) if main else None,
        "alexnet_normalized_mce": (
            alexnet_normalized_mce(main) if is_imagenet_c else None
        ),
        "errors": main,
        "extra_errors": {n: errors[n] for n in EXTRA_CORRUPTIONS if n in errors},
        "missing": missing,
    }


def _error(
    classify: Classify, source: Source, transform: grain.transforms.Map
) -> float:
    logits, labels = checked_logits(classify, source, transform)
    return float(np.mean(logits.argmax(1) != labels))


@dataclasses.dataclass(frozen=True)
class CorruptionOptions(HeadOptions):
    """Of the task.

    Attributes:
        corrupted: Folder of ImageNet-C or CIFAR-10-C; None: images corrupted here.
    """

    corrupted: str | None = option(
        None, "Folder of ImageNet-C or CIFAR-10-C; else made here."
    )


def _obstacle(subject: Subject, options: CorruptionOptions) -> str | None:
    """Corrupted images are published, or made at two sizes."""
    if why := no_labels(subject, options):
        return why
    if options.corrupted is None:
        return not_generated(subject, "--corrupted=DIR")
    train = subject.data.train
    try:
        folder = local_path(options.corrupted)
        open_corrupted(folder, subject.data.num_classes, train.class_names)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _measure(subject: Subject, options: CorruptionOptions) -> dict[str, Any]:
    """`evaluate_corruptions` of the linear head, and which head it is."""
    classify, head = head_classifier(subject, options)
    return head | evaluate_corruptions(
        classify,
        subject.data.held_out,
        subject.transform,
        image_size=subject.image_size,
        num_images=subject.num_pictures,
        seed=subject.seed,
        folder=options.corrupted,
        progress=log_pass,
    )


TASK = Task(
    name="corruptions",
    section="Robustness",
    caption="The linear head on corrupted images.",
    measure=_measure,
    obstacle=_obstacle,
    options=CorruptionOptions,
    better={"*top1": "higher", "*_mce": "lower"},
    in_detail=("errors",),
    headline=("top-1 on corrupted images", "top1"),
)
