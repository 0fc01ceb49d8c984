"""AugSelf: targets and losses by loops, the reference network in plain jnp."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.made_up_views import STRONG, made_up_view, outputs_from
from helpers.support import assert_close

from ser_jax.methods.regularizers.augself import AugSelf
from ser_jax.methods.regularizers.augself_targets import CROP_RELEASED, TARGETS
from ser_jax.views.recipe import Recipe

VIEWS = ("global/0", "global/1")
ALL = {f"{name}_weight": 0.1 * i for i, name in enumerate(TARGETS, start=1)}
WEAK = dataclasses.replace(STRONG, brightness=0.2, hue=0.0)


def two_views(b: int) -> dict:
    """The views' recipes differ: red if one's ranges are used for both."""
    recipes = (STRONG, WEAK)
    return {
        name: made_up_view(seed, b, recipe)
        for seed, (name, recipe) in enumerate(zip(VIEWS, recipes, strict=True))
    }


def differences(first, second, flip_quirk: bool) -> dict[str, np.ndarray]:
    """All targets of (first, second), image by image."""
    found: dict[str, list] = {name: [] for name in TARGETS}
    one, two = (jax.tree.map(np.asarray, view.params) for view in (first, second))

    def box(params, i, flipped):
        top, left, height, width, rows, cols, _ = params.crop[i].astype(np.float64)
        y, x = (top + height / 2) / rows, (left + width / 2) / cols
        return np.array([y, 1 - x if flipped else x, height / rows, width / cols])

    def colour(params, recipe, i):
        if not params.jitter_on[i]:
            return np.zeros(4)
        found = []
        for name, centre in (
            *(("brightness", 1), ("contrast", 1), ("saturation", 1)),
            ("hue", 0),
        ):
            low, high = (centre + sign * getattr(recipe, name) for sign in (-1, 1))
            shift = float(getattr(params, name)[i]) - centre
            found.append(shift / (high - low) if high > low else 0.0)
        return np.array(found)

    for i in range(len(one.crop)):
        flip_one, flip_two = one.crop[i, 6], two.crop[i, 6]
        mirrored = flip_one if flip_quirk else flip_two
        found["crop"].append(box(one, i, flip_one) - box(two, i, mirrored))
        found["color"].append(
            colour(one, first.recipe, i) - colour(two, second.recipe, i)
        )
        sigma = [p.sigma[i] if p.blur_on[i] else 0 for p in (one, two)]
        found["blur"].append([sigma[0] - sigma[1]])
        found["flip"].append([float(flip_one == flip_two)])
        found["rotation"].append((one.quarter_turns[i] - two.quarter_turns[i]) % 4)
        level = [p.solarize_threshold[i] if p.solarize_on[i] else 1 for p in (one, two)]
        found["solarize"].append([level[0] - level[1]])
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("flip_quirk", [False, True])
def test_targets_match_explicit_loops(flip_quirk):
    """Red if a column, a sign, a range or whose flip counts is changed."""
    views = two_views(24)
    for order in (VIEWS, VIEWS[::-1]):
        pair = [views[name] for name in order]
        expected = differences(*pair, flip_quirk)
        for name, target in TARGETS.items():
            if name == "crop" and flip_quirk:
                target = CROP_RELEASED
            actual = np.asarray(target.difference(*pair))
            np.testing.assert_allclose(actual, expected[name], atol=1e-6, err_msg=name)
            assert np.unique(actual).size > 1


def test_the_other_direction_has_the_opposite_target():
    first, second = two_views(24).values()
    for name, target in TARGETS.items():
        there = np.asarray(target.difference(first, second))
        back = np.asarray(target.difference(second, first))
        if target.kind == "binary":
            np.testing.assert_array_equal(back, there)
        elif target.kind == "class":
            np.testing.assert_array_equal((there + back) % 4, 0)
        else:
            np.testing.assert_allclose(back, -there, atol=1e-6, err_msg=name)
    there = CROP_RELEASED.difference(first, second)
    assert np.abs(there + CROP_RELEASED.difference(second, first)).max() > 0.1


def test_color_targets_lie_between_minus_one_and_one():
    for name, view in two_views(200).items():
        zeros = jax.tree.map(jnp.zeros_like, view.params)
        neutral = view.replace(
            params=zeros.replace(
                **{n: jnp.ones(200) for n in ("brightness", "contrast", "saturation")}
            )
        )
        shift = TARGETS["color"].difference(view, neutral)
        widest = np.abs(shift).max(axis=0)
        np.testing.assert_allclose(widest[:3], 0.5, atol=0.05)
        np.testing.assert_allclose(widest[3], 0.5 * (name == VIEWS[0]), atol=0.05)


def plain_network(params: dict, x: jax.Array) -> jax.Array:
    """linear, BatchNorm, ReLU, twice; linear with bias."""
    for i in (1, 2):
        x = x @ params[f"fc{i}"]["kernel"]
        mean, var = x.mean(axis=0, keepdims=True), x.var(axis=0, keepdims=True)
        norm = params[f"bn{i}"]
        x = (x - mean) / jnp.sqrt(var + 1e-5) * norm["scale"][None] + norm["bias"][None]
        x = jnp.maximum(x, 0)
    return x @ params["fc3"]["kernel"] + params["fc3"]["bias"][None]


def plain_loss(name: str, logits: jax.Array, truth: np.ndarray) -> jax.Array:
    if name == "rotation":
        chosen = jnp.stack([row[k] for row, k in zip(logits, truth, strict=True)])
        return jnp.mean(jnp.log(jnp.exp(logits).sum(axis=1)) - chosen)
    if name == "flip":
        p = 1 / (1 + jnp.exp(-logits))
        return -jnp.mean(jnp.where(truth == 1, jnp.log(p), jnp.log(1 - p)))
    return jnp.mean((jnp.tanh(logits) - truth) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("flip_quirk", [False, True])
def test_loss_matches_a_plain_reference_value_and_gradient(rng, flip_quirk):
    """Red if a weight, a direction, a loss or a mean is changed."""
    b, layer = 8, 2
    views = two_views(b)
    regularizer = AugSelf(layer=layer, hidden_dim=5, flip_quirk=flip_quirk, **ALL)
    heads = regularizer.make_heads()
    features = {
        name: jax.random.normal(jax.random.fold_in(rng, i), (b, 3))
        for i, name in enumerate(VIEWS)
    }
    outputs = outputs_from(features, layer)
    params = jax.jit(lambda: heads.init(rng, outputs, {}, views, True))()["params"]
    there = differences(*views.values(), flip_quirk)
    back = differences(*list(views.values())[::-1], flip_quirk)

    def plain(params, features):
        one, two = features.values()
        pairs = jnp.vstack([jnp.hstack([one, two]), jnp.hstack([two, one])])
        return sum(
            ALL[f"{name}_weight"]
            * plain_loss(
                name,
                plain_network(params[name], pairs),
                np.concatenate([there[name], back[name]]),
            )
            for name in TARGETS
        )

    def ours(params, features):
        found, _ = heads.apply(
            {"params": params},
            outputs_from(features, layer),
            {},
            views,
            True,
            mutable=["batch_stats"],
        )
        return regularizer.loss(found, views)[0]

    run = [jax.jit(jax.value_and_grad(f, argnums=(0, 1))) for f in (plain, ours)]
    expected, actual = (f(params, features) for f in run)
    jax.tree.map(lambda a, e: assert_close(a, e, 1e-5, 1e-6), actual, expected)
    assert all(np.abs(grad).max() > 1e-4 for grad in actual[1][1].values())


@pytest.mark.slow
def test_metrics_say_how_well_each_target_is_met():
    """An exact prediction has r2 and accuracy 1, the mean has r2 0."""
    views = two_views(16)
    regularizer = AugSelf(**ALL)
    truth = {
        name: jnp.concatenate(
            [
                target.difference(*views.values()),
                target.difference(*list(views.values())[::-1]),
            ]
        )
        for name, target in TARGETS.items()
    }
    limit = 1 - 1e-6  # blur differs by up to 2 pixels, where tanh does not reach
    exact = {
        "crop": jnp.arctanh(truth["crop"]),
        "color": jnp.arctanh(jnp.clip(truth["color"], -limit, limit)),
        "blur": jnp.zeros_like(truth["blur"]),
        "flip": 20 * truth["flip"] - 10,
        "rotation": 20 * jax.nn.one_hot(truth["rotation"], 4),
        "solarize": jnp.arctanh(truth["solarize"]),
    }
    measure = jax.jit(lambda found: regularizer.loss(found, views)[1])
    metrics = measure(exact)
    for name in ("crop_r2", "color_r2", "solarize_r2"):
        np.testing.assert_allclose(metrics[name], 1, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(metrics["blur_r2"], 0, atol=1e-5)
    assert metrics["flip_accuracy"] == metrics["rotation_accuracy"] == 1
    wrong = {"flip": -exact["flip"], "rotation": jnp.roll(exact["rotation"], 1, axis=1)}
    metrics = measure(exact | wrong)
    assert metrics["flip_accuracy"] == metrics["rotation_accuracy"] == 0


@pytest.mark.slow
def test_a_target_that_never_varies_has_r2_zero():
    """Red if its spread of zero is divided by."""
    views = dict.fromkeys(VIEWS, made_up_view(0, 4))
    regularizer = AugSelf(color_weight=0)
    _, metrics = regularizer.loss({"crop": jnp.ones((8, 4))}, views)
    assert metrics["crop_r2"] == 0 and metrics["crop_loss"] > 0.5


def test_only_weighted_targets_have_predictors_and_they_start_uniform(rng):
    b, width, hidden = 4, 50, 100
    features = dict.fromkeys(VIEWS, jnp.ones((b, width)))
    heads = AugSelf(hidden_dim=hidden, color_weight=0).make_heads()
    outputs = outputs_from(features, 12)
    params = jax.jit(lambda: heads.init(rng, outputs, {}, two_views(b), True))()
    (name,) = params["params"]
    assert name == "crop"
    predictor = params["params"][name]
    for layer, fan_in in (("fc1", 2 * width), ("fc2", hidden), ("fc3", hidden)):
        kernel = np.asarray(predictor[layer]["kernel"])
        assert kernel.shape[0] == fan_in
        limit = 1 / math.sqrt(fan_in)
        assert 0.95 * limit < np.abs(kernel).max() <= limit
        np.testing.assert_allclose(kernel.std(), limit / math.sqrt(3), rtol=0.05)
    bias = np.abs(predictor["fc3"]["bias"])
    assert 0 < bias.max() <= 1 / math.sqrt(hidden)
    assert "bias" not in predictor["fc1"]


@pytest.mark.parametrize("target", ["color", "blur", "rotation", "solarize"])
def test_a_target_whose_augmentation_cannot_occur_is_refused(target):
    """Both views without it: refused. Only one without: fine. Red if `any` is `all`."""
    weights = dict.fromkeys(ALL, 0.0) | {f"{target}_weight": 1.0}
    regularizer = AugSelf(**weights)
    num_outputs = TARGETS[target].num_outputs
    outputs = {target: jnp.zeros((8, num_outputs))}
    never, ever = (made_up_view(0, 4, recipe) for recipe in (Recipe(), STRONG))
    regularizer.loss(outputs, dict(zip(VIEWS, (never, ever), strict=True)))
    with pytest.raises(ValueError, match=f"Set {target}_weight=0"):
        regularizer.loss(outputs, dict.fromkeys(VIEWS, never))


@pytest.mark.parametrize(
    "weights", [dict.fromkeys(ALL, 0.0), {"crop_weight": -1.0}], ids=["none", "minus"]
)
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="at least one of them > 0"):
        AugSelf(**weights)
