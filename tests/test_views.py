"""How the batch is shared out, and how views are made of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import real_batch, tiny_experiment

from ser_jax.views import equiv_count, split_rows


@pytest.mark.parametrize(
    "batch_size, share, count",
    [
        (2048, 0.01, 24),  # the paper's 3 images on each of 8 GPUs
        (4096, 0.01, 48),
        (256, 0.01, 8),
        (32, 0.01, 8),  # never rounded to zero
        (8, 0.01, 4),  # never more than half
        (64, 0.5, 32),
        (64, 0.0, 0),
    ],
)
def test_equiv_count(batch_size, share, count):
    assert equiv_count(batch_size, share) == count


@pytest.mark.parametrize("batch_size, share", [(2, 0.1), (64, 1.5), (64, -0.1)])
def test_equiv_count_refuses(batch_size, share):
    with pytest.raises(ValueError, match="batch_size|share"):
        equiv_count(batch_size, share)


@pytest.mark.parametrize("batch, count", [(2048, 24), (16, 8), (12, 5), (8, 0)])
def test_split_rows_is_a_partition_spread_over_the_batch(batch, count):
    rows = jnp.arange(batch)
    standard, equiv = split_rows(rows, count)
    assert len(equiv) == count and len(standard) == batch - count
    np.testing.assert_array_equal(np.sort(np.concatenate([standard, equiv])), rows)
    if (batch, count) == (2048, 24):  # 3 from each of 8 devices' 256 rows
        np.testing.assert_array_equal(np.bincount(equiv // 256), [3] * 8)


def test_views_cover_b1_and_b2_and_b2_shares_one_crop():
    experiment = tiny_experiment()
    batch = real_batch(experiment)
    views = jax.jit(experiment.learner.make_views)(jax.random.key(0), batch)
    count = equiv_count(16, 0.5)
    shapes = {name: view.images.shape[0] for name, view in views.items()}
    assert shapes == {
        "global/0": 16 - count,
        "global/1": 16 - count,
        "equiv/0": count,
        "equiv/1": count,
    }
    crop = split_rows(jnp.asarray(batch["crops"]["global/0"]), count)[1]
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    base = (np.asarray(crop) / 255 - mean) / std
    # Without jitter, moving the crop by the drawn element is all that happens to it.
    for name in ("equiv/0", "equiv/1"):
        element = views[name].element
        for i in np.flatnonzero(
            (np.asarray(element.grid_shape) == 4).all(axis=1)
            & (np.asarray(element.d4) == 0)
        ):
            np.testing.assert_allclose(
                views[name].images[i, :16, :16], base[i], atol=1e-5
            )
    assert not np.array_equal(views["equiv/0"].element.d4, views["equiv/1"].element.d4)


def test_views_depend_on_the_key_alone_and_jitter_differs_between_views():
    experiment = tiny_experiment(**{"augment.recipe": "moco_v3"})
    batch = real_batch(experiment)
    make = jax.jit(experiment.learner.make_views)
    first, again = make(jax.random.key(0), batch), make(jax.random.key(0), batch)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = make(jax.random.key(1), batch)
    assert not np.array_equal(first["global/0"].images, other["global/0"].images)
    brightness = [np.asarray(view.params.brightness) for view in first.values()]
    assert not np.array_equal(brightness[0], brightness[1])
    assert not np.array_equal(brightness[2], brightness[3])
