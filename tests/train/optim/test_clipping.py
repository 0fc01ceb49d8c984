"""Per-parameter clipping against the recorded reference and by hand."""

import jax
import numpy as np
import pytest

from ser_jax.train.optim.lars import clip_each_norm


def clip(grads, max_norm):
    transform = clip_each_norm(max_norm)
    update = jax.jit(
        lambda grads: transform.update(grads, transform.init(grads), grads)
    )
    return update(grads)[0]


@pytest.mark.parity
def test_clipping_matches_the_reference(golden):
    data = golden("optim_schedules")
    names = [f"g{i}" for i in range(len(data["clip/norms"]))]
    max_norm = float(data["clip/max_norm"])
    assert min(data["clip/norms"]) < max_norm < max(data["clip/norms"])
    clipped = clip({name: data[f"clip/{name}"] for name in names}, max_norm)
    for name in names:
        expected = data[f"clip/{name}_clipped"]
        np.testing.assert_allclose(clipped[name], expected, rtol=1e-6)


def test_norm_is_eased_by_a_millionth():
    clipped = clip({"w": np.float32([3e-6, 4e-6])}, 2e-6)
    np.testing.assert_allclose(clipped["w"], [1e-6, 4e-6 / 3], rtol=1e-6)


def test_a_zero_gradient_stays_zero():
    np.testing.assert_array_equal(clip({"w": np.zeros(2, np.float32)}, 1.0)["w"], 0.0)


@pytest.mark.parametrize("max_norm", [0.0, -1.0])
def test_the_largest_norm_must_be_positive(max_norm):
    with pytest.raises(ValueError, match="positive"):
        clip_each_norm(max_norm)
