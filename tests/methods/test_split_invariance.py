"""b1 and b2 with an invariance loss each; b2's views of the whole picture."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close, made_up_state, real_batch, tiny_experiment
from PIL import Image

from ser_jax.data.crops import eval_resize_px
from ser_jax.data.host_transforms import CentreCrop, RandomCrops, centre_box
from ser_jax.methods.regularizers.base import NoRegularizer
from ser_jax.views.view import Cut

pytestmark = pytest.mark.slow

SPLIT = {"regularizer.invariance": "split"}
GLOBALS = ("global/0", "global/1")


def losses(experiment, variables, views):
    """The invariance loss and what comes with it, and its gradient."""
    learner = dataclasses.replace(
        experiment.learner, regularizer=NoRegularizer(), make_views=None
    )
    views = {n: dataclasses.replace(view, cut=None) for n, view in views.items()}

    def value(params):
        step, rng = jnp.zeros((), jnp.int32), jax.random.key(0)
        loss, aux = learner.loss(params, variables, views, rng, step)
        return loss, aux

    params = {k: v for k, v in variables.params.items() if k != "regularizer"}
    (_, aux), grads = jax.jit(jax.value_and_grad(value, has_aux=True))(params)
    return aux, grads


def case(objective, **settings):
    values = {"objective": objective, "regularizer.weight": 0.0, "batch_size": 32}
    experiment = tiny_experiment(**values, **settings)
    views = jax.jit(experiment.learner.make_views)(
        jax.random.key(0), real_batch(experiment), 0
    )
    return experiment, made_up_state(experiment).variables, views


@pytest.mark.parametrize("objective", ["moco_v3", "dino", "barlow_twins"])
def test_split_is_the_sum_of_the_two_parts_losses(objective):
    """Value, gradient, and what is b1's alone: state, statistics, metrics."""
    experiment, variables, views = case(objective, **SPLIT)
    learner, step = experiment.learner, jnp.zeros((), jnp.int32)

    def value(params):
        return learner.loss(params, variables, views, jax.random.key(0), step)

    (loss, aux), grads = jax.jit(jax.value_and_grad(value, has_aux=True))(
        variables.params
    )
    first = {name: views[name] for name in GLOBALS}
    second = {name: views[f"equiv/{i}"] for i, name in enumerate(GLOBALS)}
    b1, b1_grads = losses(experiment, variables, first)
    b2, b2_grads = losses(experiment, variables, second)
    assert_close(loss, b1.loss_inv + b2.loss_inv, 1e-5)
    assert_close(aux.loss_inv, loss)
    for part in ("encoder", "objective"):
        expected = jax.tree.map(np.add, b1_grads[part], b2_grads[part])
        jax.tree.map(assert_close, grads[part], expected)
    jax.tree.map(assert_close, aux.method_state, b1.method_state)
    for name, stats in aux.batch_stats.items():
        parts = [p for p in ("objective",) if p in stats]
        for part in parts:
            jax.tree.map(assert_close, stats[part], b1.batch_stats[name][part])
    for name, measured in b1.metrics.items():
        if name != "cls_std":
            assert_close(aux.metrics[name], measured)


def test_joint_is_one_loss_of_all_class_tokens():
    """Red if the parts are told apart in it: their losses do not add up to it."""
    experiment, variables, views = case("moco_v3")
    aux = jax.jit(
        lambda: experiment.learner.loss(
            variables.params, variables, views, jax.random.key(0), 0
        )[1]
    )()
    split = case("moco_v3", **SPLIT)[0].learner
    apart = jax.jit(
        lambda: split.loss(variables.params, variables, views, jax.random.key(0), 0)[1]
    )()
    assert abs(aux.loss_inv - apart.loss_inv) > 0.1 * aux.loss_inv


@pytest.mark.parametrize("name", ["global", "local"])
def test_uncropped_views_are_evaluation_s_square(name):
    """The host cuts it once for a pair of views; it is not flipped."""
    experiment = tiny_experiment(
        **{
            "regularizer.crop": "none",
            "objective.num_local": 2 * (name == "local"),
            "augment.resample": "pil",
            "augment.image_size": 160,
            "augment.local_size": 80,
            "model.variant": "Ti/16",
        }
    )
    size, key = (160, "whole") if name == "global" else (80, "whole/small")
    (spec,) = (crop for crop in experiment.crops if crop.name == key)
    assert len(experiment.crops) == (3 if name == "global" else 6)
    assert spec.size_px == size
    picture = smooth_picture(300, 220)
    rng = np.random.default_rng(0)
    crops = RandomCrops((spec,))
    crops_of = [crops.random_map(record(picture), rng) for _ in range(3)]
    for out in crops_of:
        box = centre_box(300, 220, size / eval_resize_px(size))
        assert tuple(out["crop_params"][key]) == (*box, 300, 220, 0)
        shown = CentreCrop(size, eval_resize_px(size)).crop(picture)
        assert np.abs(out["crops"][key].astype(int) - shown).max() <= 4


def smooth_picture(height, width):
    y, x = np.mgrid[:height, :width] / 100
    wave = np.stack([np.sin(3 * x), np.cos(2 * y), np.sin(x + 2 * y)], axis=-1)
    return (127 + 100 * wave).astype(np.uint8)


def record(picture):
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return {"image": data.getvalue(), "label": 0, "index": 0}


def test_b2_sees_the_whole_picture_and_b1_its_crops():
    experiment = tiny_experiment(**{"regularizer.crop": "none"})
    batch = real_batch(experiment)
    make = jax.jit(experiment.learner.make_views)
    views = make(jax.random.key(0), batch, 0)
    crops = batch["crops"]
    changed = {"crops": {**crops, "whole": 255 - crops["whole"]}}
    other = make(jax.random.key(0), batch | changed, 0)
    for name in GLOBALS:
        np.testing.assert_array_equal(views[name].images, other[name].images)
    for i in range(2):
        assert not np.allclose(views[f"equiv/{i}"].images, other[f"equiv/{i}"].images)
        whole = Cut.exact(16, 8).split(batch["crop_params"]["whole"])[1]
        np.testing.assert_array_equal(views[f"equiv/{i}"].params.crop, whole)
    changed = {"crops": {**crops, "global/0": 255 - crops["global/0"]}}
    other = make(jax.random.key(0), batch | changed, 0)
    for i in range(2):  # what b2 does not see
        same = views[f"equiv/{i}"].images, other[f"equiv/{i}"].images
        np.testing.assert_array_equal(*same)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"batch_size": 8}, "b2 holds 4 of 8 images .* moco_v3 need at least 8"),
        (
            {"objective": "barlow_twins", "objective.output_dim": 8192},
            "b2 holds 8 of 16 .* barlow_twins need at least 42. Set regularizer.share",
        ),
        (
            {"objective": "dino", "objective.head_batch_norm": True, "batch_size": 8},
            "dino need at least 8",
        ),
    ],
)
def test_split_is_refused_where_b2_is_too_small(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_experiment(**SPLIT, **settings)


def test_split_takes_what_is_large_enough():
    tiny_experiment(**SPLIT)
    tiny_experiment(**SPLIT, objective="dino", batch_size=8)
    few = {"objective": "barlow_twins", "objective.output_dim": 1000}
    tiny_experiment(**SPLIT, **few)  # .0051 * 999 = 5.1 images
