"""Scores by layer and transform of encoders whose equivariance is known."""

import numpy as np
import pytest
from helpers.known_encoders import Cells, noise

from ser_jax.evaluate.layers.equivariance import equivariance_by_depth
from ser_jax.evaluate.layers.transforms import DEFAULT_TRANSFORMS

EXACT = [x for x in DEFAULT_TRANSFORMS if x.split("/")[0] not in ("scale", "aspect")]


@pytest.mark.slow
def test_an_equivariant_encoder_is_perfect_under_every_transform():
    scores = equivariance_by_depth(Cells(), {}, noise(4), seed=0)
    assert scores.keys() == {"layer_1"}
    assert scores["layer_1"].keys() == DEFAULT_TRANSFORMS.keys()
    for name in EXACT:
        score = scores["layer_1"][name]
        for perfect in ("token_cosine", "corrected", "top1"):
            assert score[perfect] == pytest.approx(1, abs=1e-5), name
        assert score["error"] == pytest.approx(0, abs=1e-9), name
        assert abs(score["token_cosine_random"]) < 0.3, name
        assert abs(score["token_cosine_unmoved"]) < 0.3, name
        if not name.startswith("translation"):
            assert score["pooled_cosine"] == pytest.approx(1, abs=1e-5), name
    for name in DEFAULT_TRANSFORMS.keys() - EXACT:
        score = scores["layer_1"][name]
        assert np.isnan(score["token_cosine_unmoved"]), name


@pytest.mark.slow
def test_a_positional_encoder_stays_where_it_is():
    """Red if the unmoved map is the carried one."""
    scores = equivariance_by_depth(Cells(positional=9.0), {}, noise(4), seed=0)
    for name in EXACT:
        score = scores["layer_1"][name]
        assert score["token_cosine_unmoved"] > 0.9, name
        assert score["corrected"] < 0.5 and score["error"] > 0.5, name
