"""Labelled features: checks, and the part of train that chooses hyper-parameters."""

from collections.abc import Mapping

import numpy as np

_ENOUGH_TO_CHOOSE = 100  # settings that differ by less than chance do not matter


def check_labelled(
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    num_classes: int,
    split: str,
) -> None:
    """Refuses features and labels that do not belong together.

    Args:
        features: Features by name, each `[n, d_name]`.
        labels: Classes, `[n]`, int in [0, num_classes).
        num_classes: Number of classes.
        split: What to call the examples in an error.

    Raises:
        ValueError: If a shape, a dtype or a label is wrong.
    """
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{split} labels must be class indices [n], int; got shape {labels.shape}, "
            f"{labels.dtype}. Turn one-hot labels into indices with argmax."
        )
    for name, array in features.items():
        if array.ndim != 2 or len(array) != len(labels):
            raise ValueError(
                f"{split} features {name!r} must be [n, d] with n = {len(labels)}, the "
                f"number of labels; got shape {array.shape}. Pool token grids first."
            )
    if not len(labels):
        raise ValueError(f"{split} is empty; it needs at least one example.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{split} labels must be in 0..num_classes - 1; got {low}..{high} with "
            f"num_classes = {num_classes}. Pass the data set's number of classes, or "
            "renumber the labels from 0."
        )


def check_same_widths(
    train: Mapping[str, np.ndarray], evaluated: Mapping[str, np.ndarray]
) -> None:
    """Refuses two sets of features that are not of the same kind.

    Args:
        train: Features by name, each `[n, d_name]`.
        evaluated: Features by name, each `[m, d_name]`.

    Raises:
        ValueError: If names or widths differ.
    """
    widths = [
        {name: array.shape[1] for name, array in features.items()}
        for features in (train, evaluated)
    ]
    if widths[0] != widths[1]:
        raise ValueError(
            "train and eval features must have the same names and widths; got "
            f"{widths[0]} and {widths[1]}. Extract both with the same encoder."
        )


def split_held_out(
    num_examples: int, *, held_out_frac: float, num_classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices to fit on and indices to choose hyper-parameters on.

    Of a small set more than the share is held out, up to a fifth: a choice on a handful
    of examples is chance.

    Args:
        num_examples: Size of the training set, n >= 2.
        held_out_frac: Share that is held out, in (0, 1); not stratified.
        num_classes: As many examples are wanted to choose on, where 100 are enough.
        seed: Of the split.

    Returns:
        Two sorted arrays of int that share no index and together hold 0..n - 1, neither
        of them empty.

    Raises:
        ValueError: If there are fewer than two examples.
    """
    if num_examples < 2:
        raise ValueError(
            f"{num_examples} training example cannot both fit a head and choose its "
            "settings; give 2 or more."
        )
    wanted = min(num_classes, _ENOUGH_TO_CHOOSE, num_examples // 5)
    num_held_out = max(1, round(num_examples * held_out_frac), wanted)
    num_held_out = min(num_held_out, num_examples - 1)
    order = np.random.default_rng(seed).permutation(num_examples)
    return np.sort(order[num_held_out:]), np.sort(order[:num_held_out])
