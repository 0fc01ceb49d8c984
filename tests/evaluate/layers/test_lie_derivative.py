"""Lie derivatives of encoders whose equivariance is known; finite differences."""

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
from helpers.known_encoders import PATCH, SIDE, SIZE, Cells, noise, ramps

from ser_jax.evaluate.layers.lie_derivative import lie_derivatives
from ser_jax.models.vit import ViT

KINDS = ("translation", "rotation", "scale", "shear")
# Generators of the affine maps of (down, right, 1), from the centre, in sides.
GENERATORS = {
    "translation": ([[0, 0, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]),
    "rotation": ([[0, -1, 0], [1, 0, 0]],),
    "scale": ([[1, 0, 0], [0, 1, 0]],),
    "shear": ([[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [1, 0, 0]]),
}


def warp(maps: np.ndarray, generator, t: float) -> np.ndarray:
    """Maps `[b, h, w, c]` moved by exp(t * generator), bilinear."""
    matrix = scipy.linalg.expm(-t * np.array([*generator, [0, 0, 0]], float))
    h = maps.shape[1]
    centres = (np.arange(h) + 0.5) / h - 0.5
    down, right = np.meshgrid(centres, centres, indexing="ij")
    source = np.einsum("ij,jhw->ihw", matrix, np.stack([down, right, 0 * down + 1]))
    cells = (source[:2] + 0.5) * h - 0.5
    return np.stack(
        [
            np.stack(
                [
                    scipy.ndimage.map_coordinates(m[..., k], cells, order=1)
                    for k in range(m.shape[-1])
                ],
                axis=-1,
            )
            for m in maps.astype(np.float64)
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_matches_finite_differences(kind):
    """A curved map that is neither equivariant nor lost, over two batches."""
    encoder, images, t = Cells(positional=0.3, curved=True), noise(34), 1e-3
    scores = lie_derivatives(encoder, {}, images)

    def tokens(pictures):
        out = encoder.apply({}, pictures.astype(np.float32))
        return np.asarray(out.tokens).reshape(34, SIDE, SIDE, -1)

    def inside(maps):
        return maps[:, 1:-1, 1:-1]

    squares, cls_squares = [], []
    for generator in GENERATORS[kind]:
        plus, minus = (tokens(warp(images, generator, s * t)) for s in (1, -1))
        lie = warp(plus, generator, -t) - warp(minus, generator, t)
        squares.append(np.mean((inside(lie) / 2 / t) ** 2))
        cls_squares.append(np.mean(((plus - minus)[:, 1, 1] / 2 / t) ** 2))
    still = tokens(images)
    variance = np.mean(inside(still - inside(still).mean((0, 1, 2))) ** 2)
    assert scores["layer_1"][kind] == pytest.approx(
        np.mean(squares) / variance, rel=0.02
    )
    cls_variance = np.mean((still[:, 1, 1] - still[:, 1, 1].mean(0)) ** 2)
    assert scores["cls"][kind] == pytest.approx(
        np.mean(cls_squares) / cls_variance, rel=0.02
    )


@pytest.mark.slow
@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_vit_as_it_was_trained(is_frozen):
    """Red if a frozen patch embedding passes nothing on, or blocks cannot be asked."""
    vit = ViT(8, 2, 2, PATCH, SIZE, cls_insert=1, freeze_patch_embed=is_frozen)
    inner, t = noise(34)[:, 2:-2, 2:-2], 1e-3
    images = np.pad(inner, [(0, 0), (2, 2), (2, 2), (0, 0)])  # nothing jumps out
    rng = np.random.default_rng(1)  # an untrained one hardly looks at its pictures
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 2,
        jax.eval_shape(vit.init, jax.random.key(0), images[:1]),
    )
    scores = lie_derivatives(vit, variables, images)["cls"]["rotation"]

    def cls(pictures):
        return np.asarray(vit.apply(variables, pictures.astype(np.float32)).cls)

    (generator,) = GENERATORS["rotation"]
    plus, minus = (cls(warp(images, generator, s * t)) for s in (1, -1))
    variance = np.mean((cls(images) - cls(images).mean(0)) ** 2)
    expected = np.mean(((plus - minus) / 2 / t) ** 2) / variance
    assert scores == pytest.approx(expected, rel=0.02) and scores > 0.1


def test_an_equivariant_encoder_has_none():
    """Means of even ramps move exactly as their cells do."""
    scores = lie_derivatives(Cells(), {}, ramps())
    assert list(scores) == ["layer_1", "cls"]
    assert scores["layer_1"] == pytest.approx(dict.fromkeys(KINDS, 0), abs=1e-8)
    # The class token is the colour of one place: it does not stay.
    assert min(scores["cls"].values()) > 0.01


def test_a_positional_encoder_has_some_whatever_its_scale():
    scores = lie_derivatives(Cells(positional=1.0), {}, ramps())["layer_1"]
    assert min(scores.values()) > 0.1
    doubled = lie_derivatives(Cells(positional=2.0), {}, 2 * ramps())["layer_1"]
    assert doubled == pytest.approx(scores, rel=1e-4)


def test_a_map_that_does_not_vary_has_no_score():
    scores = lie_derivatives(Cells(), {}, np.ones((4, SIZE, SIZE, 3), np.float32))
    assert all(np.isnan(x) for x in scores["layer_1"].values())


def test_grids_without_an_inside_are_refused():
    with pytest.raises(ValueError, match="2 x 2 cells of 4 px, none of them inside"):
        lie_derivatives(Cells(), {}, np.zeros((2, 2 * PATCH, 2 * PATCH, 3), np.float32))
