"""SEIS against canonical correlations by explicit decompositions."""

import jax
import numpy as np
import pytest
from helpers.known_encoders import PATCH, Cells, noise, ramps

from ser_jax.evaluate.layers.seis import seis_by_depth
from ser_jax.evaluate.layers.transforms import DEFAULT_TRANSFORMS

TURNS = [x for x in DEFAULT_TRANSFORMS if x.split("/")[0] in ("rotation", "flip")]


def seis(encoder, images):
    return seis_by_depth(encoder, {}, images, seed=0)["layer_1"]


def by_decompositions(clean: np.ndarray, moved: np.ndarray) -> tuple[float, float]:
    """Both scores from maps `[rows, n]`: SVD of the data, QR, SVD of Q'Q."""

    def reduced(x):
        x = x - x.mean(0)
        _, s, vt = np.linalg.svd(x, full_matrices=False)
        rank = 1 + next(
            i for i in range(len(s)) if np.sum(s[: i + 1] ** 2) >= 0.99 * np.sum(s**2)
        )
        return x, vt[:rank].T

    (x, x_axes), (y, y_axes) = reduced(clean), reduced(moved)
    (x_q, x_r), (y_q, y_r) = np.linalg.qr(x @ x_axes), np.linalg.qr(y @ y_axes)
    left, rho, right = np.linalg.svd(x_q.T @ y_q)
    x_vectors = x_axes @ np.linalg.solve(x_r, left)
    y_vectors = y_axes @ np.linalg.solve(y_r, right.T)
    in_place = [
        abs(w @ v) / np.linalg.norm(w) / np.linalg.norm(v)
        for w, v in zip(x_vectors.T, y_vectors.T, strict=False)
    ]
    return rho.mean(), np.mean(rho * in_place[: len(rho)])


@pytest.mark.slow
def test_two_batches_match_explicit_decompositions():
    """A curved map that depends on places: no two correlations are equal.

    Pictures of fewer shades than cells, so that a part of the variance is cut off.
    """
    encoder = Cells(positional=0.7, curved=True)
    images = noise() + 4 * ramps(100)
    scores = seis(encoder, images)

    apply = jax.jit(encoder.apply)

    def maps(pictures):
        tokens = np.asarray(apply({}, pictures).tokens, np.float64)
        return tokens.swapaxes(1, 2).reshape(-1, tokens.shape[1])

    window = images[:, :-PATCH, :-PATCH]
    for name, clean, moved in (
        ("rotation/90", images, np.rot90(images, axes=(1, 2))),
        ("flip/vertical", images, images[:, ::-1]),
        ("translation/down", window, images[:, PATCH:, :-PATCH]),
    ):
        expected = by_decompositions(maps(clean), maps(moved))
        assert 0.05 < expected[1] < expected[0] < 0.999, name
        actual = (scores[name]["equivariance"], scores[name]["invariance"])
        np.testing.assert_allclose(actual[0], expected[0], rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(actual[1], expected[1], rtol=1e-2, err_msg=name)


@pytest.mark.slow
def test_an_equivariant_encoder_keeps_everything_in_other_places():
    scores = seis(Cells(curved=True), noise())
    assert scores.keys() == DEFAULT_TRANSFORMS.keys()
    for name in TURNS:
        score = scores[name]
        assert score["equivariance"] == pytest.approx(1, abs=1e-3), name
        assert score["invariance"] < 0.3, name
        # 800 rows, 36 cells at most
        assert 22 <= score["rows_per_dimension"] < 26
        assert score["chance"] < 0.4, name
    assert np.isnan(scores["scale/0.8"]["invariance"])
    assert scores["scale/0.8"]["equivariance"] > 2 * scores["scale/0.8"]["chance"]


@pytest.mark.slow
def test_maps_that_stay_keep_everything_in_place():
    """A picture with all symmetries; a code of places that drowns the picture."""
    images = noise()
    turns = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    symmetric = sum(x + x[:, ::-1] for x in turns)
    for encoder, pictures in ((Cells(), symmetric), (Cells(positional=99.0), images)):
        scores = seis(encoder, pictures)
        for name in TURNS:
            score = scores[name]
            assert score["equivariance"] == pytest.approx(1, abs=1e-3), name
            assert score["invariance"] == pytest.approx(1, abs=0.02), name


class Random(Cells):
    """Tokens that have nothing to do with the picture but differ with it."""

    def __call__(self, images, grid_shape=None, *, num_slots=None):
        seed = jax.lax.bitcast_convert_type(images.ravel()[:99].sum(), np.int32)
        out = super().__call__(images, grid_shape, num_slots=num_slots)
        tokens = jax.random.normal(jax.random.key(seed), (*out.valid.shape, 64))
        grid = out.grids[1].replace(tokens=tokens)
        return out.replace(grids={1: grid}, cls=tokens[:, 0])


@pytest.mark.slow
def test_unrelated_maps_score_what_shuffled_ones_do():
    score = seis(Random(), noise())["rotation/90"]
    assert score["rows_per_dimension"] > 50
    assert score["equivariance"] == pytest.approx(score["chance"], abs=0.01)
    assert score["chance"] < 0.1


def test_maps_that_never_vary_have_no_score():
    scores = seis(Cells(), np.zeros((4, 24, 24, 3), np.float32))["rotation/90"]
    assert all(np.isnan(x) for x in scores.values())


def test_large_grids_are_left_out():
    images = np.zeros((2, 32 * PATCH, 32 * PATCH, 3), np.float32)
    assert seis_by_depth(Cells(), {}, images, seed=0) == {}
