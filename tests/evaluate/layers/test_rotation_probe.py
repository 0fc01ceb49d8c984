"""The rotation probe on features that give the turn away and on some that do not."""

import numpy as np
import pytest
from helpers.known_encoders import SIZE, Cells, noise
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_jax.evaluate.layers.rotation_probe import (
    rotation_accuracy,
    rotation_probe_by_depth,
)


def test_planted_turns_are_found_at_any_scale():
    """Red without standardisation: the penalty hides a small feature."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4, 60, 6))
    features[..., :4] = 1e-4 * (np.eye(4)[:, None] + 0.05 * rng.normal(size=(4, 60, 4)))
    assert rotation_accuracy(features, seed=0) > 0.97


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_scikit_learns_regression(seed):
    """At most one answer of 200 differs; ten times the penalty changes four or more."""
    rng = np.random.default_rng(seed)
    centres, noise = rng.normal(size=(4, 1, 32)), rng.normal(size=(4, 100, 32))
    features = np.geomspace(0.01, 100, 32) * (centres + 3 * noise + 5)
    halves = np.array_split(np.random.default_rng(0).permutation(100), 2)
    fit, test = (features[:, half].reshape(-1, 32) for half in halves)
    turns = np.repeat(np.arange(4), 50)
    regression = LogisticRegression(max_iter=10000, tol=1e-8)
    model = make_pipeline(StandardScaler(), regression)
    expected = model.fit(fit, turns).score(test, turns)
    assert rotation_accuracy(features, seed=0) == pytest.approx(expected, abs=0.0051)


def test_features_that_know_nothing_score_chance():
    """Enough of them to learn pictures by heart. Red if these are then tested on."""
    features = np.random.default_rng(0).normal(size=(4, 100, 64))
    assert rotation_accuracy(features, seed=0) == pytest.approx(0.25, abs=0.1)


def test_one_place_tells_the_turn_and_the_mean_does_not():
    """Pictures brighten downwards, and more so to the right."""
    y, x = np.mgrid[:SIZE, :SIZE][..., None] / SIZE
    images = 0.05 * noise(70) + (y + 2 * x)[None]
    scores = rotation_probe_by_depth(Cells(), {}, images.astype(np.float32), seed=0)
    assert list(scores) == ["layer_1", "cls", "chance"]
    assert scores["layer_1"] == pytest.approx(0.25, abs=0.05)
    assert scores["cls"] > 0.9 and scores["chance"] == 0.25


def test_one_picture_is_refused():
    with pytest.raises(ValueError, match="needs two, got 1"):
        rotation_accuracy(np.zeros((4, 1, 3)), seed=0)
