"""Robustness metrics on cases small enough to count by hand."""

import numpy as np
import pytest

from ser_jax.evaluate.robustness.metrics import (
    ALEXNET_ERROR,
    alexnet_normalized_mce,
    flip_probability,
    mean_flip_rate,
    mean_top1,
    top1_over_frames,
    unnormalized_mce,
)

TWO = {"fog": [0.1, 0.2, 0.3, 0.4, 0.5], "snow": [0.5, 0.5, 0.5, 0.5, 1.0]}


def test_means_over_corruptions_and_severities():
    assert unnormalized_mce(TWO) == pytest.approx((0.3 + 0.6) / 2)
    assert mean_top1(TWO) == pytest.approx(0.55)


def test_alexnet_has_an_mce_of_one():
    # Uneven over severities: only the sum over them may count.
    spread = np.array([-0.07, -0.02, 0.0, 0.04, 0.05])
    alexnet = {name: error + spread for name, error in ALEXNET_ERROR.items()}
    assert alexnet_normalized_mce(alexnet) == pytest.approx(1)
    # Halving one corruption's error takes half of a fifteenth away.
    alexnet["brightness"] = alexnet["brightness"] / 2
    assert alexnet_normalized_mce(alexnet) == pytest.approx(1 - 0.5 / 15)


def test_alexnet_constants():
    # The mean of the published list, in percent.
    assert len(ALEXNET_ERROR) == 15
    assert 100 * np.mean(list(ALEXNET_ERROR.values())) == pytest.approx(78.8993, 1e-5)


def test_mce_names_what_is_missing_or_unknown():
    errors = {name: [0.5] * 5 for name in ALEXNET_ERROR}
    with pytest.raises(ValueError, match="not among them: speckle_noise"):
        alexnet_normalized_mce(errors | {"speckle_noise": [0.5] * 5})
    del errors["frost"]
    with pytest.raises(ValueError, match="missing: frost;"):
        alexnet_normalized_mce(errors)


@pytest.mark.parametrize(
    "errors, message",
    [
        ({}, "no corruption"),
        ({"fog": [0.1, 0.2]}, r"5 values.*\[2\]"),
        ({"fog": [10, 20, 30, 40, 50]}, "divide percentages by 100"),
        ({"fog": [0.1, 0.2, np.nan, 0.4, 0.5]}, "fractions"),
    ],
)
def test_bad_errors(errors, message):
    with pytest.raises(ValueError, match=message):
        mean_top1(errors)


CLIPS = np.array([[1, 1, 2, 2, 1], [3, 4, 3, 4, 3]])


def test_flip_probability_by_hand():
    # Neighbours: 2 of 4 and 4 of 4 pairs. Two apart: 1-2, 1-2, 2-1 and none.
    assert flip_probability(CLIPS, "rotate") == pytest.approx(6 / 8)
    assert flip_probability(CLIPS, "rotate", difficulty=2) == pytest.approx(3 / 6)
    # Against the first frame: 2 of 4 and 2 of 4.
    assert flip_probability(CLIPS, "shot_noise") == pytest.approx(4 / 8)


def test_flip_probability_equals_the_official_loop():
    """Every d-th frame from each of the first d on, pairs pooled within the clip."""
    rng = np.random.default_rng(0)
    clips, step = rng.integers(0, 3, (4, 31)), 3
    per_clip = []
    for clip in clips:
        threads = [clip[start::step] for start in range(step)]
        flips = [a != b for t in threads for a, b in zip(t, t[1:], strict=False)]
        per_clip.append(np.mean(flips))
    got = flip_probability(clips, "tilt", difficulty=step)
    assert got == pytest.approx(np.mean(per_clip))


@pytest.mark.parametrize(
    "perturbation, difficulty, message",
    [
        ("gaussian_noise", 2, "harder clips"),
        ("rotate", 0, r"1\.\.4"),
        ("rotate", 5, r"1\.\.4"),
    ],
)
def test_bad_difficulty(perturbation, difficulty, message):
    with pytest.raises(ValueError, match=message):
        flip_probability(CLIPS, perturbation, difficulty=difficulty)


def test_top1_over_frames():
    labels = np.array([2, 3])
    assert top1_over_frames(CLIPS, labels) == pytest.approx(5 / 10)
    assert top1_over_frames(CLIPS[:, :1], labels) == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match=r"\[2\].*\[3\]"):
        top1_over_frames(CLIPS, np.zeros(3, int))
    with pytest.raises(ValueError, match=r"\[clips, frames\]"):
        top1_over_frames(CLIPS[0], labels)


def test_mean_flip_rate():
    rates = {"rotate": 0.1, "snow": 0.3}
    assert mean_flip_rate(rates, {"snow": 0.6, "rotate": 0.4}) == pytest.approx(0.375)
    with pytest.raises(ValueError, match="not among them: snow"):
        mean_flip_rate(rates, {"rotate": 0.4})
    with pytest.raises(ValueError, match="none given"):
        mean_flip_rate({}, {})
