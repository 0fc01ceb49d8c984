"""DINO's k-NN against scikit-learn's, which sorts all distances."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ser_jax.evaluate.classify.knn import knn_predict

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(7, 12))


def blobs(num):
    labels = RNG.integers(0, 7, num)
    features = CENTRES[labels] + 1.5 * RNG.normal(size=(num, 12))
    return features.astype(np.float32), labels


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (10, 0.07), (200, 0.5)])
def test_against_sklearn(k, temperature):
    """Red if votes are not weighted, features not normalised, or neighbours missed."""
    bank, labels = blobs(900)
    queries, _ = blobs(150)
    bank *= RNG.uniform(0.1, 10, (900, 1)).astype(np.float32)  # length says nothing

    def weights(distances):
        similarity = 1 - distances**2 / 2  # of unit vectors
        return np.exp(similarity / temperature)

    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries)]
    expected = KNeighborsClassifier(k, weights=weights).fit(unit[0], labels)
    predicted = knn_predict(
        queries, bank, labels, neighbors=(3, k), temperature=temperature
    )
    np.testing.assert_array_equal(predicted[k], expected.predict(unit[1]))
