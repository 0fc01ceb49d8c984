"""Collapse measures against explicit linear algebra."""

import numpy as np
import pytest

from ser_jax.evaluate.classify.collapse import effective_dimension, rankme


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)) + 0.5


def test_rankme_is_the_entropy_of_singular_values(features):
    """Red for eigenvalues in their place, or for centred features."""
    eigenvalues = np.linalg.eigvalsh(features.T @ features)
    share = np.sqrt(eigenvalues) / np.sqrt(eigenvalues).sum() + 1e-7
    expected = np.exp(-sum(p * np.log(p) for p in share))
    assert rankme(features) == pytest.approx(expected, rel=1e-9)
    p = np.array([0.75, 0.25]) + 0.01
    expected = np.exp(-np.sum(p * np.log(p)))
    assert rankme(np.diag([3.0, 1.0]), epsilon=0.01) == pytest.approx(expected)


def test_rankme_counts_equal_directions():
    assert rankme(np.eye(12, 5)) == pytest.approx(5, rel=1e-5)
    assert rankme(np.ones((7, 5))) == pytest.approx(1, abs=2e-5)
    assert np.isnan(rankme(np.zeros((3, 2))))


def test_effective_dimension_is_the_participation_ratio(features):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(np.cov(unit.T))
    expected = values.sum() ** 2 / np.sum(values**2)
    assert effective_dimension(features) == pytest.approx(expected)
    axes = np.concatenate([np.eye(5)[:3], -np.eye(5)[:3]])
    assert effective_dimension(axes) == pytest.approx(3)
    lengths = np.arange(1, 5)[:, None]
    assert np.isnan(effective_dimension(lengths * np.ones(3)))
