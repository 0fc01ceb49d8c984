"""What the objectives share: views, pairs of them, the sign of a collapse."""

import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.methods.objectives.base import mean_std, standard_views, view_pairs


def test_pairs_are_every_view_with_every_other_global_one():
    assert view_pairs(0) == (("global/1", "global/0"), ("global/0", "global/1"))
    names = [spec.name for spec in standard_views(2)]
    assert names == ["global/0", "global/1", "local/0", "local/1"]
    expected = {(v, g) for v in names for g in names[:2] if v != g}
    assert set(view_pairs(2)) == expected and len(view_pairs(2)) == len(expected)
    assert [spec.small for spec in standard_views(1)] == [False, False, True]


def test_mean_std_is_that_of_unit_vectors():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)) + 0.5
    unit = np.array([row / np.sqrt(np.sum(row**2)) for row in features])
    expected = np.mean([np.sqrt(np.mean((c - c.mean()) ** 2)) for c in unit.T])
    assert mean_std(jnp.asarray(features)) == pytest.approx(expected)
    spread = rng.normal(size=(4000, 16))
    assert mean_std(jnp.asarray(spread)) == pytest.approx(1 / 4, rel=0.02)
    one_way = 2.0 ** np.arange(4)[:, None] * np.ones(4)
    assert mean_std(jnp.asarray(one_way)) == 0
