"""A whole SER + DINO step against the recorded one: loss, gradients, center."""

import jax
import jax.numpy as jnp
import optax
import pytest
from conftest import Golden
from helpers import interop_torch
from helpers.interop_torch import subset
from helpers.reference_step import (
    Case,
    assert_equiv_grads_stop_at,
    assert_grads,
    assert_losses,
    make_encoder,
    make_ser,
    recorded_model,
    views_of_crops,
)
from helpers.support import assert_close

from ser_jax.methods.learner import Learner
from ser_jax.methods.objectives.dino import DINO
from ser_jax.methods.variables import Variables

pytestmark = pytest.mark.slow

STEPS_PER_EPOCH = 5  # any: the recorded step is taken for the last of its epoch


def network_from(sd: dict, layer: int) -> dict:
    """Encoder and head, student's or teacher's."""
    return {
        "encoder": interop_torch.vit(subset(sd, "backbone."), layer),
        "objective": interop_torch.dino_head(subset(sd, "head."))[0],
    }


def params_from(sd: dict, layer: int) -> dict:
    """Student's parameters (or their gradients) from a state dict."""
    projector = {f"projector_{layer}": interop_torch.token_projector(sd)}
    return network_from(sd, layer) | {"regularizer": projector}


def make_objective(settings: dict, *, norm_last_layer: bool) -> DINO:
    temperatures = settings["loss"]
    return DINO(
        student_temp=temperatures["student_temp"],
        warmup_teacher_temp=temperatures["warmup_teacher_temp"],
        teacher_temp=temperatures["teacher_temp"],
        teacher_temp_warmup_epochs=temperatures["warmup_teacher_temp_epochs"],
        hidden_dim=settings["hidden"],
        bottleneck_dim=settings["bottleneck"],
        output_dim=settings["out_dim"],
        norm_last_layer=norm_last_layer,
    )


@pytest.fixture(scope="module")
def case():
    data, model = Golden("ser_dino_step"), recorded_model()
    settings, layer = data.settings, model["equiv_layer"]
    assert settings["drop_path"] == 0.0
    params = params_from(data.group("student/"), layer)
    none = {"encoder": {}, "objective": {}}
    variables = Variables(
        params=params,
        target_params=network_from(data.group("teacher/"), layer),
        batch_stats={"student": none | {"regularizer": {}}, "target": none},
        method_state={"center": data["center_before"]},
    )
    views = views_of_crops(data, model)
    objective = make_objective(
        settings, norm_last_layer="grad/head.last_layer.weight_g" not in data
    )
    learner = Learner(
        encoder=make_encoder(model, freeze_patch_embed=False),
        objective=objective,
        regularizer=make_ser(settings, model, params),
        make_views=lambda rng, batch, step: views,
        target_momentum=optax.constant_schedule(objective.momentum),
        steps_per_epoch=STEPS_PER_EPOCH,
    )
    step = (settings["epoch"] + 1) * STEPS_PER_EPOCH - 1
    return Case(data, learner, jax.tree.map(jnp.asarray, variables), views, step)


@pytest.fixture(scope="module")
def result(case):
    return case.differentiate(equiv_alone=True)


@pytest.mark.parity
def test_loss_gradient_and_center(case, result):
    assert_losses(result, case.data)
    recorded = case.data.group("grad/")
    assert_grads(result.grads, params_from(recorded, case.layer), recorded)
    assert_close(result.aux.method_state["center"], case.data["center_after"])


@pytest.mark.parity
def test_projector_gradient_with_a_constant_teacher_side(case):
    grads = case.with_grad("query").projector_grads()
    recorded = case.data.group("grad_teacher_const/")
    assert_grads(grads, interop_torch.token_projector(recorded), recorded)


@pytest.mark.parity
def test_loss_equiv_trains_up_to_its_layer(case, result):
    assert_equiv_grads_stop_at(case.layer, result.equiv_grads)
