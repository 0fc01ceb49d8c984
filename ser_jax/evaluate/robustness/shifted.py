"""Accuracy on other images of ImageNet's classes: V2, R, A and Sketch."""

import dataclasses
from typing import Any

import grain
import numpy as np

from ser_jax.data.sources import Source, open_source
from ser_jax.evaluate.classify.classifier import Classify, checked_logits
from ser_jax.evaluate.classify.heads import logit_accuracy
from ser_jax.evaluate.classify.linear import HeadOptions
from ser_jax.evaluate.options import option
from ser_jax.evaluate.robustness.head import head_classifier
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_labels


def evaluate_shifted(
    classify: Classify,
    source: Source,
    transform: grain.transforms.Map,
    *,
    train: Source,
) -> dict[str, Any]:
    """Accuracy among the classes that occur in the set.

    ImageNet-R and -A hold 200 of the 1000 classes; as is usual, the classifier chooses
    among those alone.

    Args:
        classify: The classifier, with the classes of `train`.
        source: Images of the set. Its classes are those of `train` of the same name;
            if either set has no names, of the same label.
        transform: The evaluation view.
        train: What the classifier was trained on.

    Returns:
        "top1" and "top5", in [0, 1], "num_images" and "num_classes", those that occur.

    Raises:
        ValueError: If the set has no classes, or classes that are not those of `train`.
    """
    to_train = match_classes(source, train)
    logits, labels = checked_logits(classify, source, transform)
    labels = to_train[labels]
    occurring = np.unique(labels)
    if occurring[0] < 0:
        raise ValueError(
            f"{source.name!r} has images of classes that {train.name!r} has no name "
            "for; leave those classes out when preparing it."
        )
    among_them = np.searchsorted(occurring, labels)
    top1, top5 = logit_accuracy(logits[:, occurring], among_them)
    return {
        "top1": top1,
        "top5": top5,
        "num_images": len(labels),
        "num_classes": len(occurring),
    }


def match_classes(source: Source, train: Source) -> np.ndarray:
    """The label in `train` of each label of a set; -1 where there is none.

    Args:
        source: The set.
        train: What the classifier was trained on.

    Returns:
        `[classes of the set]`, int.

    Raises:
        ValueError: If either has no classes, or they cannot be matched.
    """
    if source.num_classes is None or train.num_classes is None:
        raise ValueError(
            f"both {source.name!r} and {train.name!r} need labels to compare."
        )
    if source.class_names is None or train.class_names is None:
        if source.num_classes != train.num_classes:
            raise ValueError(
                f"{source.name!r} has {source.num_classes} classes, {train.name!r} "
                f"{train.num_classes}, and not both have names to match them by; "
                "prepare both with their classes' names (for ImageNet n01440764, ...)."
            )
        return np.arange(train.num_classes)
    labels = {name: label for label, name in enumerate(train.class_names)}
    if not labels.keys() & set(source.class_names):
        raise ValueError(
            f"no class of {source.name!r} ({', '.join(source.class_names[:3])}, ...) "
            f"is one of {train.name!r} ({', '.join(train.class_names[:3])}, ...); "
            "prepare it with the same names."
        )
    return np.array([labels.get(name, -1) for name in source.class_names])


@dataclasses.dataclass(frozen=True)
class ShiftedOptions(HeadOptions):
    """Of the task.

    Attributes:
        shifted: Names of further data sets with the same classes.
    """

    shifted: tuple[str, ...] = option(
        (), "Prepared data sets: imagenet_v2, imagenet_r, imagenet_sketch, ..."
    )


def _obstacle(subject: Subject, options: ShiftedOptions) -> str | None:
    """Other sets are named, prepared and of the same classes."""
    if not options.shifted:
        return "name prepared data sets, --shifted=imagenet_v2,imagenet_r."
    if why := no_labels(subject, options):
        return why
    try:
        for name in options.shifted:
            source = open_source(name, "test", subject.data.data_dir)
            match_classes(source, subject.data.train)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _measure(subject: Subject, options: ShiftedOptions) -> dict[str, Any]:
    """`evaluate_shifted` of the linear head on every set, and which head it is."""
    classify, head = head_classifier(subject, options)
    return head | {
        name: evaluate_shifted(
            classify,
            open_source(name, "test", subject.data.data_dir),
            subject.transform,
            train=subject.data.train,
        )
        for name in options.shifted
    }


TASK = Task(
    name="shifted",
    section="Accuracy",
    caption="The linear head on other test sets.",
    measure=_measure,
    obstacle=_obstacle,
    options=ShiftedOptions,
    optional=True,
    better={"top1": "higher", "top5": "higher"},
)
