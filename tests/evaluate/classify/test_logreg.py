import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers.support import assert_close
from sklearn.linear_model import LogisticRegression

from ser_jax.evaluate.classify import logreg
from ser_jax.evaluate.classify.heads import Head, head_logits, head_loss
from ser_jax.evaluate.classify.held_out import split_held_out
from ser_jax.evaluate.classify.logreg import (
    fit_logistic_regression,
    logistic_regression,
)

NUM_CLASSES = 3
L2_VALUES = (1e-3, 1e-2, 1e-1, 1.0)


def overlapping(seed, num):
    """Classes that overlap, one of them frequent, in features off the origin."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(NUM_CLASSES, num, p=[0.6, 0.2, 0.2])
    features = np.eye(10)[labels] + 0.9 * rng.normal(size=(num, 10)) + 0.5
    return features.astype(np.float32), labels


def sklearn_fit(features, labels, l2):
    strength = 1 / (l2 * len(features))
    return LogisticRegression(C=strength, tol=1e-8, max_iter=2000).fit(features, labels)


def start():
    return Head(
        np.zeros((10, NUM_CLASSES), np.float32), np.zeros(NUM_CLASSES, np.float32)
    )


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_against_sklearn(l2):
    """Red on another scale of l2, a regularised bias, or a sum over examples."""
    features, labels = overlapping(0, 200)
    head, converged = fit_logistic_regression(
        jnp.asarray(features),
        jnp.asarray(labels),
        start=start(),
        l2=l2,
        max_iterations=500,
    )
    assert converged
    expected = sklearn_fit(features, labels, l2)
    assert_close(head.kernel.T, expected.coef_, rel=1e-3)
    others, _ = overlapping(1, 100)
    probabilities = scipy.special.softmax(head_logits(head, others), axis=1)
    assert_close(probabilities, expected.predict_proba(others), rel=1e-3)


@pytest.mark.slow
def test_sweep_chooses_on_held_out_and_refits_on_all():
    """Red if it is chosen on train, if the last fit leaves the held-out part out, or
    if the refit is of another strength."""
    features, labels = overlapping(2, 90)
    eval_features, eval_labels = overlapping(3, 3000)
    result = logistic_regression(
        features,
        labels,
        eval_features,
        eval_labels,
        seed=5,
        num_classes=NUM_CLASSES,
        l2_values=L2_VALUES,
        held_out_frac=0.5,
    )
    fitted, held_out = split_held_out(
        90, held_out_frac=0.5, num_classes=NUM_CLASSES, seed=5
    )
    expected = {
        l2: sklearn_fit(features[fitted], labels[fitted], l2).score(
            features[held_out], labels[held_out]
        )
        for l2 in L2_VALUES
    }
    assert {fit.l2: fit.held_out_accuracy for fit in result.grid} == pytest.approx(
        expected
    )
    assert all(fit.converged for fit in result.grid)
    assert [fit.l2 for fit in result.grid] == sorted(L2_VALUES, reverse=True)
    assert result.best.held_out_accuracy == max(expected.values())
    refitted = sklearn_fit(features, labels, result.best.l2)
    # One example of 3000 may sit on a boundary.
    assert abs(result.top1 - refitted.score(eval_features, eval_labels)) < 4e-4
    assert result.top5 == 1.0


def test_says_when_it_stopped_early():
    features, labels = overlapping(0, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = logistic_regression(
            features,
            labels,
            features,
            labels,
            seed=0,
            num_classes=NUM_CLASSES,
            l2_values=(1e-3,),
            max_iterations=2,
        )
    assert not result.best.converged


def test_errors_teach():
    features, labels = overlapping(0, 60)
    data = (features, labels, features, labels)
    with pytest.raises(ValueError, match="l2_values must be one or more numbers > 0"):
        logistic_regression(*data, seed=0, num_classes=NUM_CLASSES, l2_values=(0.0,))
    with pytest.raises(ValueError, match="eval features 'features' must be"):
        logistic_regression(
            *data[:2], features[0], labels, seed=0, num_classes=NUM_CLASSES
        )


@pytest.mark.slow
def test_chunks_change_nothing(monkeypatch):
    """Red if the last, smaller chunk is left out or weighs as much as the others."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(23, 5)).astype(np.float32)
    labels = rng.integers(0, 3, 23)
    head = Head(rng.normal(size=(5, 3)).astype(np.float32), np.zeros(3, np.float32))
    monkeypatch.setattr(logreg, "_CHUNK_SIZE", 7)
    value, gradient = logreg._objective(head, features, labels, 0.1)

    def whole(head):
        return head_loss(head, features, labels) + 0.05 * (head.kernel**2).sum()

    expected, expected_gradient = jax.jit(jax.value_and_grad(whole))(head)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        gradient,
        expected_gradient,
    )
