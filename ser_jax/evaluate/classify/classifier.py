"""What the robustness tasks ask of a classifier."""

from collections.abc import Callable

import grain
import numpy as np

from ser_jax.data.sources import Source

# (source, host transform) -> (logits [n, num_classes] float32, labels [n] int), in the
# order of the source.
Classify = Callable[[Source, grain.transforms.Map], tuple[np.ndarray, np.ndarray]]
# (what comes next, passes done, passes in all), before every pass over images.
OnPass = Callable[[str, int, int], None]


def no_progress(name: str, done: int, total: int) -> None:
    """Says nothing."""


def checked_logits(
    classify: Classify, source: Source, transform: grain.transforms.Map
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels, fit to be compared.

    Args:
        classify: The classifier.
        source: Images with labels.
        transform: Host transform of a record to "image", "label" and "index".

    Returns:
        Logits, `[n, num_classes]`, float32, and labels, `[n]`, int.

    Raises:
        FloatingPointError: If a logit is not finite.
        ValueError: If an image has no label.
    """
    logits, labels = classify(source, transform)
    if not np.isfinite(logits).all():
        raise FloatingPointError(
            f"the classifier's logits on {source.name!r}, split {source.split!r}, are "
            "not all finite, so that its predictions mean nothing."
        )
    if labels.min() < 0:
        raise ValueError(
            f"{source.name!r}, split {source.split!r}, has images without a label; "
            "accuracy needs a class for each."
        )
    return logits, labels
