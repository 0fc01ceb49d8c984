"""EquiMod: the reference, the published loss by loops, what its measures say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import interop_torch
from helpers.made_up_views import made_up_view, outputs_from
from helpers.reference_moco import mlp, moco_loss, online_heads
from helpers.support import assert_close

from ser_jax.methods.regularizers.augment_params import OFFICIAL_STANDARDIZATIONS
from ser_jax.methods.regularizers.equimod import (
    EquiMod,
    EquiModOutputs,
    Standardizer,
    equivariance_measures,
)

VIEWS = ("global/0", "global/1")


def heads_from(sd: dict) -> dict:
    """Parameters (or their gradients) of EquiMod's heads."""
    return {
        "projector": mlp(sd, "projector_equiv."),
        "params_embedding": {
            "fc": interop_torch.dense(sd, "proj_head_t.0"),
            "bn": interop_torch.norm(sd, "proj_head_t.1"),
        },
        "predictor": mlp(sd, "predictor_eq."),
    }


@pytest.mark.slow
@pytest.mark.parity
def test_matches_the_reference_value_and_gradient(golden):
    data = golden("equimod")
    sd, settings = data.group("sd/"), data.settings
    params = {"equimod": heads_from(sd), "moco": online_heads(sd)}
    regularizer = EquiMod(
        weight=settings["equiv_lambda"],
        temperature=settings["temperature_equiv"],
        hidden_dim=params["equimod"]["projector"]["fc1"]["kernel"].shape[1],
        output_dim=settings["y_dim"],
        negatives="cross",
        joint_batch_norm=False,
    )
    heads = regularizer.make_heads()
    names = ("cls_q0", "cls_q1", "cls_q_plain")
    keys = [data["cls_k0"], data["cls_k1"]]

    def value(params, features):
        outputs, _ = heads.apply(
            {"params": params["equimod"]},
            features,
            data["params"],
            True,
            method="predict",
            mutable=["batch_stats"],
        )
        loss_equiv, _ = regularizer.loss(outputs, {})
        loss_inv = moco_loss(data, params["moco"], features[:2], keys)
        loss = loss_inv + regularizer.weight * loss_equiv
        return loss, (loss_inv, loss_equiv, outputs)

    (loss, (loss_inv, loss_equiv, outputs)), (grad_params, grad_features) = jax.jit(
        jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    )(params, [data[name] for name in names])
    assert_close(outputs.views, data["yt"])
    assert_close(outputs.predicted, data["yt_hat"])
    np.testing.assert_allclose(loss_inv, data["loss_inv"], rtol=1e-5)
    np.testing.assert_allclose(loss_equiv, data["loss_equiv"], rtol=1e-5)
    np.testing.assert_allclose(loss, data["loss"], rtol=1e-5)
    for grad, name in zip(grad_features, names, strict=True):
        assert_close(grad, data[f"grad_{name}"])
    recorded = data.group("grad/")
    expected = {"equimod": heads_from(recorded), "moco": online_heads(recorded)}
    jax.tree.map(assert_close, grad_params, expected)


def random_outputs(rng, b=3, d=5) -> EquiModOutputs:
    shapes = ((2 * b, d), (2 * b, d), (b, d))
    return EquiModOutputs(
        *(
            jax.random.normal(jax.random.fold_in(rng, i), s)
            for i, s in enumerate(shapes)
        )
    )


@pytest.mark.slow
def test_published_loss_by_loops_value_and_gradient(rng):
    """Every embedding and prediction against all others. Red without the y-y pairs."""
    outputs, temperature = random_outputs(rng), 0.3
    regularizer = EquiMod(temperature=temperature)

    def by_loops(outputs):
        rows = [*outputs.views, *outputs.predicted]
        rows = [row / jnp.sqrt(jnp.sum(row**2)) for row in rows]
        n, total = len(outputs.views), 0.0
        for i, row in enumerate(rows):
            similarities = {
                j: jnp.dot(row, other) / temperature
                for j, other in enumerate(rows)
                if j != i
            }
            positive = similarities[(i + n) % (2 * n)]
            total += jnp.log(sum(map(jnp.exp, similarities.values()))) - positive
        return total / (2 * n)

    expected = jax.jit(jax.value_and_grad(by_loops))(outputs)
    actual = jax.jit(jax.value_and_grad(lambda o: regularizer.loss(o, {})[0]))(outputs)
    jax.tree.map(lambda a, e: assert_close(a, e, 1e-5, 1e-6), actual, expected)
    assert np.abs(actual[1].views).min() > 0


def test_cross_loss_holds_counterparts_constant(rng):
    """Half the sum of both ways; red if the half or a stop_gradient is lost."""
    outputs, temperature = random_outputs(rng), 0.3
    regularizer = EquiMod(temperature=temperature, negatives="cross")

    def one_way(queries, keys):
        keys = jax.lax.stop_gradient(keys)
        unit_q = queries / jnp.linalg.norm(queries, axis=1, keepdims=True)
        unit_k = keys / jnp.linalg.norm(keys, axis=1, keepdims=True)
        logits = unit_q @ unit_k.T / temperature
        losses = jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits)
        return 2 * temperature * losses.mean()

    def plain(o):
        return (one_way(o.views, o.predicted) + one_way(o.predicted, o.views)) / 2

    expected = jax.jit(jax.value_and_grad(plain))(outputs)
    actual = jax.jit(jax.value_and_grad(lambda o: regularizer.loss(o, {})[0]))(outputs)
    jax.tree.map(lambda a, e: assert_close(a, e, 1e-5, 1e-6), actual, expected)


def test_measures_by_hand():
    outputs = EquiModOutputs(
        views=jnp.array([[2.0, 0.0], [0.0, 5.0]]),
        predicted=jnp.array([[3.0, 4.0], [4.0, 3.0]]),  # cosines .6 and .6
        plain=jnp.array([[0.0, 1.0]]),  # cosines 0 and 1
    )
    measures = equivariance_measures(outputs)
    np.testing.assert_allclose(
        measures["equimod_gain"], ((0.6 - 0) + (0.6 - 1)) / 2, rtol=1e-5
    )
    np.testing.assert_allclose(
        measures["equimod_ratio"], (1 / 0.4 + 0 / 0.4) / 2, rtol=1e-5
    )
    np.testing.assert_allclose(measures["views_norm_mean"], 3.5, rtol=1e-6)
    np.testing.assert_allclose(measures["views_norm_std"], 1.5, rtol=1e-6)
    np.testing.assert_allclose(measures["plain_norm_mean"], 1, rtol=1e-6)


def by_rows(view, relative: bool) -> np.ndarray:
    """The 18 parameters of each image, one by one."""
    p, rows = jax.tree.map(np.asarray, view.params), []
    for i in range(len(p.crop)):
        top, left, height, width, rows_px, cols_px, flip = p.crop[i]
        if relative:
            top, height = top / rows_px, height / rows_px
            left, width = left / cols_px, width / cols_px
        colour = (p.brightness[i], p.contrast[i], p.saturation[i], p.hue[i])
        rows.append(
            [top, left, height, width, flip, p.jitter_on[i], *p.order[i], *colour]
            + [p.gray[i], p.blur_on[i], p.sigma[i], p.solarize_on[i]]
        )
    return np.array(rows, np.float64)


@pytest.mark.parametrize("kind", [*OFFICIAL_STANDARDIZATIONS, "batch"])
def test_parameters_are_standardized(kind):
    """All in their order, view 0 first. Red if two columns or the views change places.

    The batch's own constants take out every column's mean and scale; a column that
    does not vary is 0.
    """
    views = {name: made_up_view(seed, 32) for seed, name in enumerate(VIEWS)}
    never = {"solarize_on": jnp.zeros(32, bool)}
    views = {k: v.replace(params=v.params.replace(**never)) for k, v in views.items()}
    standardizer = Standardizer(kind)
    apply = jax.jit(
        lambda: standardizer.apply({}, views, True, mutable=["batch_stats"])[0]
    )
    rows = np.concatenate([by_rows(views[n], kind == "batch") for n in VIEWS])
    if kind == "batch":
        expected = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-5)
        np.testing.assert_array_equal(expected[:, -1], 0)
    else:
        kept = {"byol": 18, "simclr": 17, "cifar10": 15}[kind.split("_")[-1]]
        constants = OFFICIAL_STANDARDIZATIONS[kind]
        assert len(constants.mean) == len(constants.std) == kept
        expected = (rows[:, :kept] - constants.mean) / constants.std
    assert_close(apply(), expected, 1e-4)


def test_official_constants_describe_what_they_name():
    """Moments of drawn parameters, where they are known. Red if one moves a place."""
    strengths = {"imagenet_byol": 0.8, "cifar10": 0.4, "cifar10_byol": 0.4}
    for kind, strength in strengths.items():
        constants = OFFICIAL_STANDARDIZATIONS[f"official_{kind}"]
        mean, std = np.array(constants.mean), np.array(constants.std)
        np.testing.assert_allclose(mean[4:6], [0.5, 0.8], atol=2e-3)  # flip, jitter
        np.testing.assert_allclose(mean[10:15], [1, 1, 1, 0, 0.2], atol=2e-3)
        half_widths = np.array([1, 1, 1, 0.25]) * strength
        np.testing.assert_allclose(
            std[10:14], half_widths * np.sqrt(0.8 / 3), rtol=0.01
        )
        switches = np.array([4, 5, 14])
        expected = np.sqrt(mean[switches] * (1 - mean[switches]))
        np.testing.assert_allclose(std[switches], expected, rtol=2e-3)
        # Pictures of ImageNet are about 400 x 500, those of CIFAR 32 x 32.
        side_px = mean[:2] * 2 + mean[2:4]
        assert np.all(
            (side_px > 400) & (side_px < 500)
            if "imagenet" in kind
            else abs(side_px - 32) < 0.05
        )


def test_constants_of_each_recipe_are_the_published_ones():
    """To the last digit. BYOL's three last are one set on both data sets."""
    official = OFFICIAL_STANDARDIZATIONS
    byol = ([0.27256, 0.52507, 0.050149], [0.30381, 0.65251, 0.064719])
    for data, simclr in (("imagenet", "imagenet_simclr"), ("cifar10", "cifar10")):
        for field, last in zip(("mean", "std"), byol, strict=True):
            whole = getattr(official[f"official_{data}_byol"], field)
            np.testing.assert_array_equal(whole[15:], last)
            shared = getattr(official[f"official_{simclr}"], field)[:15]
            np.testing.assert_array_equal(whole[:15], shared)
    sums = {  # of the first 15 as released
        "imagenet": (721.7616264, 463.41624),
        "cifar10": (65.87729022321, 24.2111),
    }
    for data, (mean, std) in sums.items():
        constants = official[f"official_{data}_byol"]
        np.testing.assert_allclose(sum(constants.mean[:15]), mean, rtol=1e-12)
        np.testing.assert_allclose(sum(constants.std[:15]), std, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("negatives", ["all", "cross"])
def test_gradient_reaches_the_features_of_all_three_views(rng, negatives):
    views = {name: made_up_view(seed, 8) for seed, name in enumerate(VIEWS)}
    regularizer = EquiMod(layer=3, hidden_dim=8, output_dim=4, negatives=negatives)
    heads = regularizer.make_heads()
    features = {
        name: jax.random.normal(key, (8, 6))
        for name, key in zip((*VIEWS, "plain"), jax.random.split(rng, 3), strict=True)
    }
    params = jax.jit(
        lambda: heads.init(rng, outputs_from(features, 3), {}, views, True)["params"]
    )()
    assert params["params_embedding"]["fc"]["kernel"].shape[0] == 18

    @jax.jit
    @jax.grad
    def gradient(inputs):
        params, features = inputs
        outputs, _ = heads.apply(
            {"params": params},
            outputs_from(features, 3),
            {},
            views,
            True,
            mutable=["batch_stats"],
        )
        return regularizer.loss(outputs, views)[0]

    for path, leaf in jax.tree.leaves_with_path(gradient((params, features))):
        name = jax.tree_util.keystr(path)
        # A shift that the predictor's BatchNorm takes out again has no gradient.
        no_effect = "['params_embedding']['bn']['bias']" in name
        assert (np.abs(leaf).max() > 1e-6) != no_effect, name


def test_the_plain_view_is_the_central_crop():
    (spec,) = EquiMod().views(())
    assert spec.name == "plain" and spec.centre and not spec.small


@pytest.mark.parametrize(
    "change, message",
    [
        ({"negatives": "some"}, "'all' or 'cross'"),
        ({"standardize": "official"}, "official_imagenet_byol"),
        ({"temperature": 0.0}, "temperature must be > 0"),
        ({"pool": "max"}, "pool"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        EquiMod(**change)
