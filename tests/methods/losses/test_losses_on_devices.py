"""Invariance losses: one device equals eight, in value and gradient."""

import jax
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.methods.losses.barlow_twins import cross_correlation, redundancy_reduction
from ser_jax.methods.losses.contrastive import nt_xent
from ser_jax.methods.losses.cosine import cosine_regression
from ser_jax.methods.losses.dino import dino_cross_entropy, teacher_probs, update_center
from ser_jax.train.sharding import make_mesh, shard_batch


def dino(a, b):
    """Loss, plus a term that sees the center and is constant to the gradient."""
    center = update_center(np.ones((1, a.shape[1])), [a, b], momentum=0.5)
    probs = teacher_probs(b, center, 0.1)
    return dino_cross_entropy(a, probs, temperature=0.2).mean() + center.max()


def barlow_twins(a, b):
    return redundancy_reduction(cross_correlation(a, b), off_diagonal_weight=0.01)


def simclr(a, b):
    return nt_xent(a, b, temperature=0.2)[0].mean(axis=1).sum()


def byol(a, b):
    return cosine_regression(a, b).mean()


@pytest.mark.parametrize("loss", [dino, barlow_twins, simclr, byol])
def test_one_device_equals_eight(loss):
    a, b = np.random.default_rng(0).normal(size=(2, 16, 6)).astype(np.float32)
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    one, eight = (
        step(*shard_batch((a, b), make_mesh(jax.devices()[:num_devices])))
        for num_devices in (1, 8)
    )
    np.testing.assert_allclose(one[0], eight[0], rtol=1e-6)
    for x, y in zip(one[1], eight[1], strict=True):
        assert_close(x, y, rel=1e-5, abs=1e-7)
