"""A whole SER + Barlow Twins step against the recorded one: loss and gradients.

One encoder makes queries and keys, and both have a gradient. The patch loss has one
direction: view 0 carried to view 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
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

from ser_jax.methods.learner import Learner
from ser_jax.methods.objectives.barlow_twins import BarlowTwins
from ser_jax.methods.variables import Variables

pytestmark = pytest.mark.slow


def params_from(sd: dict, layer: int) -> dict:
    """Parameters (or their gradients) from a state dict."""
    projector, _ = interop_torch.batch_norm_mlp(subset(sd, "projector."))
    return {
        "encoder": interop_torch.vit(subset(sd, "backbone."), layer),
        "objective": {"projector": projector},
        "regularizer": {f"projector_{layer}": interop_torch.token_projector(sd)},
    }


@pytest.fixture(scope="module")
def case():
    data, model = Golden("ser_barlow_step"), recorded_model()
    settings, layer, sd = data.settings, model["equiv_layer"], data.group("sd/")
    params = params_from(sd, layer)
    _, stats = interop_torch.batch_norm_mlp(subset(sd, "projector."))
    student = {"encoder": {}, "objective": {"projector": stats}, "regularizer": {}}
    variables = Variables(
        params=params,
        target_params={},
        batch_stats={"student": student, "target": {}},
        method_state={},
    )
    views = views_of_crops(data, model)
    *hidden_dims, output_dim = map(int, settings["projector"].split("-"))
    learner = Learner(
        encoder=make_encoder(model, freeze_patch_embed=False),
        objective=BarlowTwins(
            off_diagonal_weight=settings["lambd"],
            hidden_dim=hidden_dims[0],
            output_dim=output_dim,
        ),
        regularizer=make_ser(settings, model, params, directions="forward"),
        make_views=lambda rng, batch, step: views,
        target_momentum=None,
        steps_per_epoch=1,
    )
    return Case(data, learner, jax.tree.map(jnp.asarray, variables), views)


@pytest.fixture(scope="module")
def result(case):
    return case.differentiate(equiv_alone=True)


@pytest.mark.slow
@pytest.mark.parity
def test_loss_and_gradient(case, result):
    assert_losses(result, case.data)
    recorded = case.data.group("grad/")
    # The last bias has none but rounding, there and here: red in float64 if it had, in
    # objectives/test_joint_embedding.py.
    assert np.abs(recorded["backbone.norm.bias"]).max() < 1e-5
    assert_grads(result.grads, params_from(recorded, case.layer), recorded)


@pytest.mark.parity
def test_loss_equiv_trains_up_to_its_layer(case, result):
    assert_equiv_grads_stop_at(case.layer, result.equiv_grads)
