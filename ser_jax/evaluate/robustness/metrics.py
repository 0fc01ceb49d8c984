"""Robustness metrics from errors on corrupted images and predictions on clips.

All inputs and results are fractions, not percent.

Reference:
    Hendrycks and Dietterich (arXiv 1903.12261), Sec. 3 and 4.
"""

from collections.abc import Mapping, Sequence

import numpy as np

# AlexNet's top-1 error on ImageNet-C, mean over the 5 severities.
ALEXNET_ERROR = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
NUM_SEVERITIES = 5


def mean_top1(errors: Mapping[str, Sequence[float]]) -> float:
    """Top-1 accuracy, mean over the corruptions given and their severities.

    Args:
        errors: Top-1 error at severities 1 to 5 by corruption, in [0, 1].

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: If an entry does not hold 5 errors in [0, 1], or none is given.
    """
    return 1 - unnormalized_mce(errors)


def unnormalized_mce(errors: Mapping[str, Sequence[float]]) -> float:
    """Top-1 error, mean over the corruptions given and their severities.

    What is reported on CIFAR-10-C, and on any set made of fewer than 15 corruptions.

    Args:
        errors: As for `mean_top1`.

    Returns:
        Error in [0, 1].

    Raises:
        ValueError: As for `mean_top1`.
    """
    return float(np.mean(list(_mean_errors(errors).values())))


def alexnet_normalized_mce(errors: Mapping[str, Sequence[float]]) -> float:
    """Mean corruption error (mCE) of ImageNet-C: error relative to AlexNet's.

    Args:
        errors: As for `mean_top1`, for exactly the 15 corruptions of `ALEXNET_ERROR`,
            from ImageNet-C's published files.

    Returns:
        Mean over corruptions of the error summed over severities, divided by
        AlexNet's; 1 is as robust as AlexNet.

    Raises:
        ValueError: As for `mean_top1`, or if the corruptions are not those 15.
    """
    _check_names("the AlexNet-normalised mCE", errors, ALEXNET_ERROR)
    means = _mean_errors(errors)
    return float(np.mean([means[name] / ALEXNET_ERROR[name] for name in ALEXNET_ERROR]))


def flip_probability(
    predictions: np.ndarray, perturbation: str, *, difficulty: int = 1
) -> float:
    """How often the predicted class changes within a clip.

    Args:
        predictions: Predicted class of each frame, `[clips, frames]`, int.
        perturbation: Its name. A frame of a clip of noise (a name with "noise") is
            compared with the clip's first, as its noise is drawn anew each frame; a
            frame of any other clip with the one `difficulty` before it.
        difficulty: Frames between those compared, at least 1. Leave it at 1 for
            noise, whose harder clips are sets of their own.

    Returns:
        Share of the compared pairs that differ, in [0, 1].

    Raises:
        ValueError: If there are no two frames to compare, or noise has a difficulty.
    """
    is_noise = "noise" in perturbation
    if is_noise and difficulty != 1:
        raise ValueError(
            f"difficulty must be 1 for {perturbation!r}, got {difficulty}: noisy "
            "frames are compared with the first; use the set of harder clips instead."
        )
    num_frames = _num_frames(predictions)
    if not 1 <= difficulty < num_frames:
        raise ValueError(
            f"difficulty must be in 1..{num_frames - 1} for clips of {num_frames} "
            f"frames, got {difficulty}."
        )
    before = predictions[:, :1] if is_noise else predictions[:, :-difficulty]
    return float(np.mean(predictions[:, difficulty:] != before))


def top1_over_frames(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy over all frames of all clips.

    Args:
        predictions: Predicted class of each frame, `[clips, frames]`, int. The first
            frame alone, `[:, :1]`, gives nearly the accuracy on clean images.
        labels: Class of each clip, `[clips]`, int.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: If the shapes do not fit.
    """
    _num_frames(predictions)
    if labels.shape != predictions.shape[:1]:
        raise ValueError(
            f"labels must be [{len(predictions)}], one for each clip, got "
            f"{list(labels.shape)}."
        )
    return float(np.mean(predictions == labels[:, None]))


def mean_flip_rate(
    flip_probabilities: Mapping[str, float], normalizers: Mapping[str, float]
) -> float:
    """Mean flip rate (mFR): flip probability relative to a reference network's.

    No normalisers come with this package: AlexNet's are not published with the code.
    Without them report the mean of the flip probabilities itself.

    Args:
        flip_probabilities: In [0, 1], by perturbation.
        normalizers: The reference network's, for the same perturbations, above 0.

    Returns:
        Mean over perturbations of the ratio; 1 is as stable as the reference.

    Raises:
        ValueError: If the two do not name the same perturbations.
    """
    _check_names("the mean flip rate", flip_probabilities, normalizers)
    ratios = [flip_probabilities[name] / normalizers[name] for name in normalizers]
    return float(np.mean(ratios))


def _mean_errors(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean over severities by corruption, checked."""
    if not errors:
        raise ValueError("errors holds no corruption; expected at least one.")
    for name, per_severity in errors.items():
        values = np.asarray(per_severity, float)
        if values.shape != (NUM_SEVERITIES,):
            raise ValueError(
                f"errors[{name!r}] must hold {NUM_SEVERITIES} values, one a severity, "
                f"got shape {list(values.shape)}."
            )
        if not np.all((values >= 0) & (values <= 1)):
            raise ValueError(
                f"errors[{name!r}] must be fractions in [0, 1], got {values.tolist()}; "
                "divide percentages by 100."
            )
    return {name: float(np.mean(values)) for name, values in errors.items()}


def _check_names(metric: str, given: Mapping, expected: Mapping) -> None:
    missing = ", ".join(name for name in expected if name not in given)
    unknown = ", ".join(name for name in given if name not in expected)
    if missing or unknown or not expected:
        names = ", ".join(expected) or "(none given)"
        raise ValueError(
            f"{metric} needs exactly the names {names}; missing: {missing or 'none'}; "
            f"not among them: {unknown or 'none'}. It cannot be had from a part of "
            "them: report the unnormalised mean instead."
        )


def _num_frames(predictions: np.ndarray) -> int:
    if predictions.ndim != 2 or predictions.size == 0:
        raise ValueError(
            "predictions must be [clips, frames] and not empty, got "
            f"{list(predictions.shape)}."
        )
    return predictions.shape[1]
