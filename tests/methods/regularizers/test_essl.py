"""E-SSL: a whole recorded step, and hand values of the rotation loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import interop_torch
from helpers.interop_torch import subset
from helpers.made_up_views import made_up_view, outputs_from
from helpers.reference_moco import mlp, moco, online_heads
from helpers.support import assert_close

from ser_jax.methods.learner import Learner
from ser_jax.methods.regularizers.essl import ESSL
from ser_jax.methods.variables import Variables
from ser_jax.models.vit import ViT
from ser_jax.views.recipe import Recipe

TURNS = 4


def rotation_head(sd: dict) -> dict:
    """Parameters (or their gradients) of the rotation head."""
    sd = subset(sd, "projector_equiv.")
    linears, norms = ("0", "3", "6"), ("1", "4", "7")
    params = {"logits": interop_torch.dense(sd, "8")}
    for i, (linear, norm) in enumerate(zip(linears, norms, strict=True), start=1):
        params[f"fc{i}"] = interop_torch.dense(sd, linear)
        params[f"norm{i}"] = interop_torch.norm(sd, norm)
    return params


def encoder_of(sd: dict, prefix: str) -> dict:
    sd = {k: v for k, v in subset(sd, prefix).items() if not k.startswith("head.")}
    return interop_torch.vit(sd, None)


def reference_step(data, model: dict):
    """The recorded step: learner, variables before it, views."""
    sd, settings = data.group("sd/"), data.settings
    depth, head = model["depth"], rotation_head(sd)
    regularizer = ESSL(
        weight=settings["equiv_lambda"],
        layer=depth,
        bottleneck_dim=head["fc3"]["kernel"].shape[1],
    )
    recipe = Recipe()
    scale = [jnp.asarray(x).reshape(1, 1, 1, 3) for x in (recipe.mean, recipe.std)]

    def view(images):  # no photometry was applied
        images = jnp.asarray(images.transpose(0, 2, 3, 1))
        return made_up_view(0, len(images), recipe).replace(images=images)

    views = {}
    for i in (0, 1):
        raw = view(data[f"image{i}"])
        normalised = (raw.images - scale[0]) / scale[1]
        views[f"global/{i}"] = raw.replace(images=normalised)
    for k, images in enumerate(np.split(data["rotated"], TURNS)):
        views[f"rot/{k}"] = view(images)

    learner = Learner(
        encoder=ViT(
            width=model["embed_dim"],
            depth=depth,
            num_heads=model["num_heads"],
            patch_size=model["patch_size"],
            image_size=model["img_size"],
            mlp_ratio=model["mlp_ratio"],
            cls_layers=regularizer.cls_layers,
            pos_embed="learned",
            freeze_patch_embed=True,
        ),
        objective=moco(data),
        regularizer=regularizer,
        make_views=lambda rng, batch, step: views,
        target_momentum=optax.constant_schedule(settings["moco_m"]),
        steps_per_epoch=1,
    )
    params = {
        "encoder": encoder_of(sd, "base_encoder."),
        "objective": online_heads(sd),
        "regularizer": head,
    }
    fresh = jax.eval_shape(learner.init, jax.random.key(0), {})
    variables = Variables(
        params=params,
        target_params={
            "encoder": encoder_of(sd, "momentum_encoder."),
            "objective": {"projector": mlp(sd, "momentum_encoder.head.")},
        },
        batch_stats=jax.tree.map(jnp.zeros_like, fresh.batch_stats),
        method_state={},
    )
    return learner, jax.tree.map(jnp.asarray, variables), views


@pytest.mark.slow
@pytest.mark.parity
def test_a_whole_step_matches_the_reference_value_and_gradient(golden):
    data = golden("essl")
    model = golden("vit_baseline").settings["model"]  # it is that transformer
    learner, variables, views = reference_step(data, model)
    step = jnp.zeros((), jnp.int32)

    @jax.jit
    def run(variables):
        params = variables.params
        moved = learner.advance_target(
            "before_forward", variables.target_params, params, step
        )
        return jax.value_and_grad(learner.loss, has_aux=True)(
            params,
            variables.replace(target_params=moved),
            views,
            jax.random.key(0),
            step,
        )

    (loss, aux), grads = run(variables)
    np.testing.assert_allclose(aux.loss_inv, data["loss_inv"], rtol=1e-5)
    np.testing.assert_allclose(aux.loss_equiv, data["loss_equiv"], rtol=1e-5)
    np.testing.assert_allclose(loss, data["loss"], rtol=1e-5)
    accuracy = np.mean(data["logits"].argmax(axis=1) == data["labels"])
    np.testing.assert_allclose(aux.metrics["rotation_accuracy"], accuracy, rtol=1e-6)

    recorded = data.group("grad/")
    jax.tree.map(assert_close, grads["regularizer"], rotation_head(recorded))
    encoder = grads["encoder"]
    position = recorded["base_encoder.pos_embed"]
    assert_close(encoder["cls_pos_embed"], position[:, :1])
    assert_close(encoder["pos_embed"], position[0, 1:])
    assert_close(encoder["cls_token"], recorded["base_encoder.cls_token"])
    assert_close(encoder["norm"]["bias"], recorded["base_encoder.norm.bias"])
    predictor = mlp(recorded, "predictor.")
    jax.tree.map(assert_close, grads["objective"]["predictor"], predictor)


@pytest.mark.parity
def test_logits_match_the_reference(golden):
    data = golden("essl")
    model = golden("vit_baseline").settings["model"]
    learner, variables, _ = reference_step(data, model)
    heads = learner.regularizer.make_heads()

    @jax.jit
    def logits(params, images):
        cls = learner.encoder.apply({"params": params["encoder"]}, images).cls
        features = {f"rot/{k}": x for k, x in enumerate(jnp.split(cls, TURNS))}
        outputs = outputs_from(features, learner.regularizer.layer)
        return heads.apply({"params": params["regularizer"]}, outputs, {}, {}, True)

    images = jnp.asarray(data["rotated"].transpose(0, 2, 3, 1))
    assert_close(logits(variables.params, images), data["logits"])


def test_loss_and_accuracy_by_hand():
    """Rows go by turns, not by images. Red if the labels are tiled instead."""
    logits = np.zeros((8, TURNS), np.float32)
    for row, label in enumerate((0, 0, 1, 1, 2, 2, 3, 0)):  # the last one is wrong
        logits[row, label] = 2.0
    loss, metrics = ESSL().loss(jnp.asarray(logits), {})
    total = np.log(np.exp(2) + 3)
    np.testing.assert_allclose(loss, (7 * (total - 2) + total) / 8, rtol=1e-6)
    np.testing.assert_allclose(metrics["rotation_accuracy"], 7 / 8)


def test_the_crop_is_small_and_its_copies_are_turned_once_more_each():
    specs = ESSL(crop_scale=(0.1, 0.2)).views(())
    assert [spec.name for spec in specs] == ["rot/0", "rot/1", "rot/2", "rot/3"]
    assert [spec.quarter_turns for spec in specs] == [0, 1, 2, 3]
    assert [spec.copy_of for spec in specs] == ["", "rot/0", "rot/0", "rot/0"]
    assert all(spec.small for spec in specs)
    assert specs[0].crop_scale == (0.1, 0.2)


@pytest.mark.parametrize("hidden_dim, width", [(0, 6), (7, 7)])
def test_the_head_reads_its_layer_and_has_the_width_asked_for(rng, hidden_dim, width):
    regularizer = ESSL(layer=3, hidden_dim=hidden_dim, bottleneck_dim=5)
    features = {f"rot/{k}": jnp.ones((2, 6)) for k in range(TURNS)}
    outputs = outputs_from(features, regularizer.layer)
    heads = regularizer.make_heads()
    logits, variables = jax.eval_shape(
        lambda: heads.init_with_output(rng, outputs, {}, {}, True)
    )
    assert logits.shape == (8, TURNS)
    params = variables["params"]
    assert params["fc2"]["kernel"].shape == (width, width)
    assert params["fc3"]["kernel"].shape == (width, 5)


@pytest.mark.parametrize("last_relu", [True, False])
def test_the_head_of_cifar_is_one_layer_shorter(rng, last_relu):
    """d-h-b-4; in SimCLR a ReLU before the logits, too."""
    regularizer = ESSL(
        hidden_dim=7, bottleneck_dim=5, num_hidden_layers=1, last_relu=last_relu
    )
    keys = jax.random.split(rng, TURNS)
    features = {
        f"rot/{k}": jax.random.normal(key, (3, 6)) for k, key in enumerate(keys)
    }
    outputs = outputs_from(features, regularizer.layer)
    logits, variables = regularizer.make_heads().init_with_output(
        rng, outputs, {}, {}, True
    )
    params = jax.tree.map(np.asarray, variables["params"])
    shapes = [params[name]["kernel"].shape for name in ("fc1", "fc2", "logits")]
    assert shapes == [(6, 7), (7, 5), (5, TURNS)] and "fc3" not in params

    def layer(x, i):
        x = x @ params[f"fc{i}"]["kernel"] + params[f"fc{i}"]["bias"]
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)

    x = np.concatenate([np.asarray(x) for x in features.values()])
    x = layer(np.maximum(layer(x, 1), 0), 2)
    x = np.maximum(x, 0) if last_relu else x
    expected = x @ params["logits"]["kernel"] + params["logits"]["bias"]
    assert_close(logits, expected, 1e-5)


@pytest.mark.parametrize(
    "change", [{"hidden_dim": -1}, {"bottleneck_dim": 0}, {"num_hidden_layers": -1}]
)
def test_bad_widths_are_refused(change):
    with pytest.raises(ValueError, match="_(dim|layers) must be at least"):
        ESSL(**change)
