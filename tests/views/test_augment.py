"""Drawing and applying augmentation parameters."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ser_jax.views import augment, colour
from ser_jax.views import recipe as recipes

JITTER = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
EVERYTHING = recipes.Recipe(
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.3,
    saturation=0.2,
    hue=0.1,
    gray_prob=0.2,
    blur_prob=0.5,
    blur_taps=3,
    solarize_prob=0.3,
    solarize_threshold=(0.25, 0.75),
)

sample_params = jax.jit(augment.sample_params, static_argnums=1)
apply_params = jax.jit(augment.apply_params, static_argnums=2)


def augmented(rng, images, crop_params, recipe):
    params = augment.sample_params(rng, recipe, crop_params)
    return augment.augment(images, params, recipe), params


make_views = jax.jit(augmented, static_argnums=3)


def crops(num, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((num, 7)), jnp.float32)


def images(num, size=8, seed=0):
    shape = (num, size, size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def draws():
    """4096 draws of the recipe that has everything."""
    params = sample_params(jax.random.key(1), EVERYTHING, crops(4096))
    return jax.tree.map(np.asarray, params)


def within_four_sigma(flags, prob):
    return abs(flags.mean() - prob) < 4 * math.sqrt(prob * (1 - prob) / flags.size)


def test_shapes_and_types(draws):
    kinds = {f.name: np.float32 for f in dataclasses.fields(augment.AugmentParams)}
    kinds |= dict.fromkeys(("jitter_on", "gray", "blur_on", "solarize_on"), np.bool_)
    kinds |= dict.fromkeys(("order", "quarter_turns"), np.int32)
    widths = {"crop": (7,), "order": (4,)}
    for name, kind in kinds.items():
        value = getattr(draws, name)
        assert value.dtype == kind, name
        assert value.shape == (4096, *widths.get(name, ())), name
    np.testing.assert_array_equal(draws.crop, crops(4096))


def test_rates(draws):
    for flags, prob in (
        (draws.jitter_on, EVERYTHING.jitter_prob),
        (draws.gray, EVERYTHING.gray_prob),
        (draws.blur_on, EVERYTHING.blur_prob),
        (draws.solarize_on, EVERYTHING.solarize_prob),
        (draws.jitter_on & draws.blur_on, 0.8 * 0.5),  # independent of each other
        (draws.gray & draws.solarize_on, 0.2 * 0.3),
    ):
        assert within_four_sigma(flags, prob)


def test_ranges_are_filled_and_kept(draws):
    on = draws.jitter_on
    for values, low, high in (
        (draws.brightness[on], 0.6, 1.4),
        (draws.contrast[on], 0.7, 1.3),
        (draws.saturation[on], 0.8, 1.2),
        (draws.hue[on], -0.1, 0.1),
        (draws.sigma[draws.blur_on], 0.1, 2.0),
        (draws.solarize_threshold[draws.solarize_on], 0.25, 0.75),
    ):
        share = (values - low) / (high - low)
        assert share.min() > -1e-5 and share.max() < 1 + 1e-5
        counts, _ = np.histogram(share, bins=8, range=(0, 1))
        expected = counts.sum() / 8
        assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)
    factors = np.stack([draws.brightness[on], draws.contrast[on], draws.hue[on]])
    assert np.abs(np.corrcoef(factors) - np.eye(3)).max() < 0.08


def test_orders_are_drawn_per_image_and_evenly(draws):
    _, counts = np.unique(draws.order[draws.jitter_on], axis=0, return_counts=True)
    expected = draws.jitter_on.sum() / 24
    assert counts.size == 24
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


def test_off_is_neutral(draws):
    off = ~draws.jitter_on
    for name, neutral in JITTER.items():
        np.testing.assert_array_equal(getattr(draws, name)[off], neutral)
    np.testing.assert_array_equal(draws.order[off], np.tile(range(4), (off.sum(), 1)))
    np.testing.assert_array_equal(draws.sigma[~draws.blur_on], 0.0)
    np.testing.assert_array_equal(draws.solarize_threshold[~draws.solarize_on], 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("convention", ["torchvision", "kornia"])
def test_neutral_parameters_change_no_bit(rng, convention):
    recipe = dataclasses.replace(EVERYTHING, colour=convention)
    off = dataclasses.replace(
        recipe, jitter_prob=0.0, gray_prob=0.0, blur_prob=0.0, solarize_prob=0.0
    )
    neutral = sample_params(rng, off, crops(4))
    # Whites stay white too: a threshold of 1 alone would invert them.
    pictures = jnp.asarray(images(4), jnp.float32) / 255.0
    pictures = pictures.at[:, 0].set(1.0)
    got = apply_params(pictures, neutral, recipe)
    np.testing.assert_array_equal(got, pictures)


@pytest.mark.slow
def test_kornia_shares_one_order(rng):
    recipe = dataclasses.replace(EVERYTHING, colour="kornia")
    orders = set()
    for step in range(6):
        key = jax.random.fold_in(rng, step)
        params = sample_params(key, recipe, crops(16))
        of_batch = np.unique(params.order[params.jitter_on], axis=0)
        assert len(of_batch) == 1
        orders.add(tuple(of_batch[0].tolist()))
        assert len(np.unique(params.brightness[params.jitter_on])) > 1
    assert len(orders) > 2


@pytest.mark.slow
def test_operations_run_in_order_on_the_flagged_images(rng):
    jitter = jax.jit(colour.color_jitter, static_argnames=("convention", "with_hue"))
    blur = jax.jit(colour.gaussian_blur, static_argnums=2)
    params = sample_params(rng, EVERYTHING, crops(12))
    pictures = jnp.asarray(images(12), jnp.float32) / 255.0
    got = apply_params(pictures, params, EVERYTHING)
    for i in range(12):
        row = jax.tree.map(lambda x, i=i: x[i], params)
        image = jnp.moveaxis(pictures[i], -1, 0)
        if row.jitter_on:
            factors = jnp.stack([row.brightness, row.contrast, row.saturation, row.hue])
            image = jitter(
                image, row.order, factors, convention="torchvision", with_hue=True
            )
        if row.gray:
            gray = colour.luma(image, "torchvision")
            image = jnp.concatenate([gray, gray, gray])
        if row.blur_on:
            image = blur(image, row.sigma, EVERYTHING.blur_taps)
        if row.solarize_on:
            image = colour.solarize(image, row.solarize_threshold)
        np.testing.assert_allclose(jnp.moveaxis(image, 0, -1), got[i], atol=1e-5)
    # Twelve draws have every operation on and off at least once.
    for flags in (params.jitter_on, params.gray, params.blur_on, params.solarize_on):
        assert 0 < flags.sum() < 12


@pytest.mark.slow
def test_one_device_and_eight_agree(rng):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    pictures, crop = images(16), crops(16)
    alone, params_alone = make_views(rng, pictures, crop, EVERYTHING)
    pictures, crop = jax.device_put((pictures, crop), rows)
    spread = jax.jit(augmented, static_argnums=3, out_shardings=rows)
    compiled = spread.lower(rng, pictures, crop, EVERYTHING).compile()
    views, params = compiled(rng, pictures, crop)
    jax.tree.map(np.testing.assert_array_equal, params_alone, params)
    np.testing.assert_allclose(alone, views, atol=1e-5)
    # No device needs another's rows.
    collectives = re.findall(r"all-\w+|collective-\w+", compiled.as_text())
    assert not collectives, set(collectives)


def test_images_of_a_batch_are_drawn_independently(rng):
    same = np.repeat(images(1), 16, axis=0)
    views, _ = make_views(rng, same, crops(16), EVERYTHING)
    distinct = np.unique(np.asarray(views).reshape(16, -1).round(4), axis=0)
    assert len(distinct) > 12


def test_plain_only_normalises(rng):
    recipe = recipes.recipe("plain", "global/0", 8)
    pictures = images(3)
    views, params = make_views(rng, pictures, crops(3), recipe)
    want = (pictures / 255.0 - np.array(recipe.mean)) / np.array(recipe.std)
    np.testing.assert_allclose(views, want, atol=1e-6)
    assert views.dtype == jnp.float32 and not params.jitter_on.any()


def test_wrong_inputs_are_explained(rng):
    with pytest.raises(ValueError, match="must be uint8 .* got float32"):
        augmented(rng, jnp.zeros((2, 8, 8, 3)), crops(2), EVERYTHING)
    with pytest.raises(ValueError, match="got 3 and 2 rows"):
        augmented(rng, images(3), crops(2), EVERYTHING)
    with pytest.raises(ValueError, match=r"must be \[b, 7\].* got shape \(2, 4\)"):
        sample_params(rng, EVERYTHING, jnp.zeros((2, 4)))


@pytest.mark.parity
def test_kornia_pipelines(golden):
    data = golden("colour_aug")
    pictures = jnp.moveaxis(jnp.asarray(data["x"]), 1, -1)
    num = pictures.shape[0]
    names = {k[: k.index("/y")] for k in data.arrays if re.match(r"pipeline.*/y$", k)}
    assert names
    for name in sorted(names):
        draw = data.group(f"{name}/")
        solarize_on = draw.get("RandomSolarize/applied", np.zeros(num, bool))
        params = augment.AugmentParams(
            crop=crops(num),
            jitter_on=draw["ColorJiggle/applied"],
            order=np.tile(draw["ColorJiggle/order"].astype(np.int32), (num, 1)),
            **{k: draw[f"ColorJiggle/{k}_factor"] for k in JITTER},
            gray=draw["RandomGrayscale/applied"],
            blur_on=draw["RandomGaussianBlur/applied"],
            sigma=draw["RandomGaussianBlur/sigma"],
            solarize_on=solarize_on,
            solarize_threshold=draw.get(
                "RandomSolarize/thresholds", np.ones(num, np.float32)
            ),
            quarter_turns=np.zeros(num, np.int32),
        )
        view = "global/0" if name.startswith("pipeline1") else "global/1"
        recipe = recipes.recipe("ser", view, pictures.shape[1])
        got = apply_params(pictures, jax.tree.map(jnp.asarray, params), recipe)
        got = np.moveaxis(np.asarray(got), -1, 1)
        np.testing.assert_allclose(got, draw["y"], atol=5e-6, err_msg=name)


@pytest.mark.slow
def test_quarter_turns_are_drawn_at_their_rate_and_applied(rng):
    recipe = dataclasses.replace(recipes.recipe("plain", "global/0", 8), rot90_prob=0.6)
    pictures = images(64)
    views, params = make_views(rng, pictures, crops(64), recipe)
    turns = np.asarray(params.quarter_turns)
    assert set(np.unique(turns)) == {0, 1, 2, 3} and 0.4 < (turns > 0).mean() < 0.8
    upright = augment.normalize(pictures / np.float32(255), recipe)
    for view, picture, k in zip(views, upright, turns, strict=True):
        np.testing.assert_allclose(view, np.rot90(picture, k), atol=1e-6)


def test_a_recipe_of_two_does_to_an_image_what_its_own_does():
    """Red if it leaves out an operation of either, or does one that is off."""
    some = dataclasses.replace(
        EVERYTHING, hue=0.0, gray_prob=0.0, solarize_prob=0.0, rot90_prob=0.0
    )
    others = dataclasses.replace(EVERYTHING, jitter_prob=0.0, blur_prob=0.0)
    pictures = images(16) / np.float32(255)
    for recipe in (some, others):
        params = sample_params(jax.random.key(5), recipe, crops(16))
        expected = apply_params(pictures, params, recipe)
        for both in (some.or_of(others), others.or_of(some)):
            found = apply_params(pictures, params, both)
            np.testing.assert_allclose(found, expected, atol=2e-6)
