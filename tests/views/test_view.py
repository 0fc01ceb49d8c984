"""How the batch is shared out, and how views are made of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import real_batch, tiny_config, tiny_experiment

from ser_jax.train.experiment import build
from ser_jax.views.view import Cut, equiv_count

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize(
    "batch, count, devices, second",
    [
        (2048, 24, 1, 24),
        (2048, 24, 8, 24),  # 3 on each
        (2048, 24, 16, 32),
        (2048, 24, 64, 64),  # one on each
        (2048, 24, 256, 256),
        (4096, 48, 64, 64),
        *((16, 8, 4, 8), (12, 5, 1, 5), (12, 5, 3, 6), (96, 8, 6, 24), (24, 12, 8, 24)),
    ],
)
def test_a_cut_moves_no_row_and_which_are_b2s_depends_on_no_device(
    batch, count, devices, second
):
    cut, rows = Cut.on(devices, batch, count), np.arange(batch)
    first, others = cut.split(rows)
    np.testing.assert_array_equal(cut.join(first, others), rows)
    assert len(others) == second and cut.is_exact == (second == count)
    own = batch // devices
    on_device = others // own
    np.testing.assert_array_equal(np.sort(on_device), on_device)
    assert len(set(np.bincount(on_device, minlength=devices))) == 1
    expected = Cut.exact(batch, count).rows[1]
    np.testing.assert_array_equal(others[cut.images >= 0], expected)
    np.testing.assert_array_equal(cut.images[cut.images >= 0], np.arange(count))
    as_jax = cut.split(jnp.asarray(rows)[:, None])
    np.testing.assert_array_equal(as_jax[0][:, 0], first)
    np.testing.assert_array_equal(as_jax[1][:, 0], others)


def test_views_cover_b1_and_b2_and_b2_shares_one_crop():
    experiment = tiny_experiment()
    batch = real_batch(experiment)
    views = jax.jit(experiment.learner.make_views)(jax.random.key(0), batch, 0)
    count = equiv_count(16, 0.5)
    shapes = {name: view.images.shape[0] for name, view in views.items()}
    assert shapes == {
        "global/0": 16 - count,
        "global/1": 16 - count,
        "equiv/0": count,
        "equiv/1": count,
    }
    crop = Cut.exact(16, count).split(batch["crops"]["global/0"])[1]
    base = (np.asarray(crop) / 255 - experiment.mean) / experiment.std
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


@pytest.mark.slow
def test_views_depend_on_the_key_alone_and_jitter_differs_between_views():
    experiment = tiny_experiment(**{"augment.recipe": "moco_v3"})
    batch = real_batch(experiment)
    make = jax.jit(functools.partial(experiment.learner.make_views, step=0))
    first, again = make(jax.random.key(0), batch), make(jax.random.key(0), batch)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = make(jax.random.key(1), batch)
    assert not np.array_equal(first["global/0"].images, other["global/0"].images)
    brightness = [np.asarray(view.params.brightness) for view in first.values()]
    assert not np.array_equal(brightness[0], brightness[1])
    assert not np.array_equal(brightness[2], brightness[3])


def views_of(experiment, step=0):
    batch = real_batch(experiment)
    make = jax.jit(experiment.learner.make_views)
    return make(jax.random.key(0), batch, step), batch


def test_multi_crop_gives_small_views_and_ser_pairs_those_of_one_size():
    experiment = tiny_experiment(**{"objective.num_local": 2})
    views, batch = views_of(experiment)
    assert batch["crops"]["local/1"].shape == (16, 8, 8, 3)
    assert views["local/1"].images.shape == (8, 8, 8, 3)
    sides = {name: views[name].group.base_side for name in views if "equiv" in name}
    assert sides == {"equiv/0": 4, "equiv/1": 4, "equiv/2": 2, "equiv/3": 2}
    specs = experiment.learner.regularizer.views(experiment.learner.objective.views)
    assert [(spec.source, spec.extends) for spec in specs] == [
        ("global/0", "global/0"),
        ("global/0", "global/1"),
        ("local/0", "local/0"),
        ("local/0", "local/1"),
    ]
    with pytest.raises(ValueError, match="even number"):
        tiny_experiment(**{"objective.num_local": 3})


def test_share_schedule_turns_rows_of_b2_back_into_standard_views():
    experiment = tiny_experiment(
        **{"equiv_share.start": 0.0, "equiv_share.warmup_epochs": 1.0}
    )
    early, batch = views_of(experiment, step=0)
    late, _ = views_of(experiment, step=13)
    own = Cut.exact(16, 8).split(batch["crops"]["global/1"])[1]
    base = (np.asarray(own) / 255 - experiment.mean) / experiment.std
    assert not early["equiv/1"].active.any()
    np.testing.assert_allclose(
        early["equiv/1"].images[:, :16, :16], base, atol=1e-5
    )  # the crop of global/1, unmoved
    assert (early["equiv/1"].element.d4 == 0).all()
    assert 0 < late["equiv/1"].active.sum() < 8
    np.testing.assert_array_equal(late["equiv/0"].active, late["equiv/1"].active)
    assert late["equiv/1"].element.d4[0] != 0


@pytest.mark.slow
def test_plain_and_rotated_views():
    equimod = tiny_experiment("equimod", **{"augment.recipe": "moco_v3"})
    views, batch = views_of(equimod)
    plain = np.asarray(batch["crops"]["plain"]) / 255
    expected = (plain - equimod.mean) / equimod.std
    np.testing.assert_allclose(views["plain"].images, expected, atol=1e-5)
    crop = next(crop for crop in equimod.crops if crop.name == "plain")
    assert crop.centre_frac == 1.0  # small pictures have no border to spare

    essl = tiny_experiment("essl", **{"augment.recipe": "moco_v3"})
    views, batch = views_of(essl)
    assert {crop.name for crop in essl.crops} == {"global/0", "global/1", "rot/0"}
    assert next(c for c in essl.crops if c.name == "rot/0").scale == (0.05, 0.14)
    for turns in range(4):
        np.testing.assert_array_equal(
            views[f"rot/{turns}"].images,
            np.rot90(views["rot/0"].images, turns, axes=(1, 2)),
        )


def test_paired_images_share_their_colours_and_keep_their_blur():
    experiment = build(tiny_config(regularizer="stl", **{"augment.recipe": "byol"}), 64)
    views, _ = views_of(experiment)
    params = views["global/1"].params
    for name in ("jitter_on", "order", "brightness", "hue", "gray"):
        even, odd = getattr(params, name)[::2], getattr(params, name)[1::2]
        np.testing.assert_array_equal(even, odd)
        assert len(np.unique(np.asarray(even), axis=0)) > 1
    sigma = views["global/0"].params.sigma  # always on there
    assert not np.any(sigma[::2] == sigma[1::2])
    with pytest.raises(ValueError, match="even, got 15"):
        build(tiny_config(regularizer="stl", batch_size=15), 64)
