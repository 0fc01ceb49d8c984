"""A whole SER + MoCo v3 step against the recorded one: loss, gradients, AdamW, EMA.

The reference's keys pass through the projector with gradient ("grad_intended"): that
is `equiv_grad="both"`. The default, "query", holds the keys constant as MoCo does
("grad_teacher_const"); only the projector's gradient differs. The release's own
gradient, where the term has none, is `equiv_grad="none"`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import Golden
from helpers import interop_torch
from helpers.interop_torch import subset, token_projector
from helpers.reference_step import (
    Case,
    assert_grads,
    assert_losses,
    make_encoder,
    make_ser,
    make_views,
    recorded_model,
)
from helpers.support import assert_close

from ser_jax.methods.learner import Learner
from ser_jax.methods.objectives.moco_v3 import MoCoV3
from ser_jax.methods.variables import Variables
from ser_jax.models.heads import TokenProjector
from ser_jax.train.optim.optimizers import make_optimizer
from ser_jax.train.step import TrainState, make_train_step

pytestmark = pytest.mark.slow


def params_from(sd: dict, layer: int) -> dict:
    """Online parameters (or their gradients) from a state dict."""
    projector, _ = interop_torch.batch_norm_mlp(subset(sd, "base_encoder.head."))
    predictor, _ = interop_torch.batch_norm_mlp(subset(sd, "predictor."))
    return {
        "encoder": interop_torch.vit(subset(sd, "base_encoder."), layer),
        "objective": {"projector": projector, "predictor": predictor},
        "regularizer": {f"projector_{layer}": token_projector(sd)},
    }


def target_from(sd: dict, layer: int) -> dict:
    head, _ = interop_torch.batch_norm_mlp(subset(sd, "momentum_encoder.head."))
    return {
        "encoder": interop_torch.vit(subset(sd, "momentum_encoder."), layer),
        "objective": {"projector": head},
    }


def stats_from(sd: dict) -> dict:
    def stats(prefix):
        return interop_torch.batch_norm_mlp(subset(sd, prefix))[1]

    student = {
        "projector": stats("base_encoder.head."),
        "predictor": stats("predictor."),
    }
    target = {"projector": stats("momentum_encoder.head.")}
    return {
        "student": {"encoder": {}, "objective": student, "regularizer": {}},
        "target": {"encoder": {}, "objective": target},
    }


@pytest.fixture(scope="module")
def case():
    data, model = Golden("ser_moco_step"), recorded_model()
    settings, layer, sd = data.settings, model["equiv_layer"], data.group("sd/")
    variables = Variables(
        params=params_from(sd, layer),
        target_params=target_from(sd, layer),
        batch_stats=stats_from(sd),
        method_state={},
    )
    standard, shared = (
        [data[f"image_{kind}{v}"] for v in (0, 1)] for kind in ("inv", "equiv")
    )
    views = make_views(data, model, standard, shared)
    learner = Learner(
        encoder=make_encoder(model, freeze_patch_embed=True),
        objective=MoCoV3(
            temperature=settings["T"],
            hidden_dim=model["mlp_dim"],
            output_dim=model["moco_dim"],
        ),
        regularizer=make_ser(settings, model, variables.params),
        make_views=lambda rng, batch, step: views,
        target_momentum=optax.constant_schedule(settings["moco_m"]),
        steps_per_epoch=1,
    )
    return Case(data, learner, jax.tree.map(jnp.asarray, variables), views)


@pytest.fixture(scope="module")
def intended(case):
    return case.differentiate()


def prune(tree, reference):
    """`tree` without what `reference` lacks: frozen weights' gradients."""
    if isinstance(reference, dict):
        return {k: prune(tree[k], v) for k, v in reference.items()}
    return tree


@pytest.mark.parity
def test_loss_and_gradient_with_keys_through_the_projector(case, intended):
    assert_losses(intended, case.data)
    sd = case.data.group("grad_intended/")
    recorded = params_from(sd, case.layer)
    assert_grads(prune(intended.grads, recorded), recorded, sd)


@pytest.mark.parity
def test_gradient_with_constant_keys_differs_in_the_projector_alone(case, intended):
    def projector(result):
        return result.grads["regularizer"][f"projector_{case.layer}"]

    constant = case.with_grad("query").differentiate()
    np.testing.assert_allclose(constant.loss, case.data["loss"], rtol=1e-5)
    recorded = case.data.group("grad_teacher_const/")
    assert_grads(projector(constant), token_projector(recorded), recorded)
    for part in ("encoder", "objective"):
        jax.tree.map(
            lambda a, b: assert_close(a, b, 1e-5, 1e-7),
            constant.grads[part],
            intended.grads[part],
        )
    difference = np.abs(
        projector(intended)["fc1"]["kernel"] - projector(constant)["fc1"]["kernel"]
    )
    assert difference.max() > 1e-5


@pytest.mark.parity
def test_gradient_of_the_release_is_that_of_the_invariance_loss(case):
    grads = case.with_grad("none").differentiate().grads
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0.0), grads["regularizer"])
    released = case.data.group("grad_released/")
    names = case.data.group("grad_intended/")
    assert released.keys() <= names.keys()
    unknown = {k: np.full_like(g, np.nan) for k, g in names.items()}
    recorded = params_from(unknown | released, case.layer)

    def check(actual, expected):
        known = ~np.isnan(expected)
        assert_close(actual[known], expected[known])

    jax.tree.map(check, prune(grads, recorded), recorded)


@pytest.mark.parity
def test_one_step_gives_the_recorded_state(case):
    settings = case.data.settings["adamw"]
    schedule = optax.constant_schedule(settings["lr"])
    optimizer = make_optimizer(
        "adamw",
        schedule,
        weight_decay=settings["weight_decay"],
        betas=tuple(settings["betas"]),
        frozen=("encoder/patch_embed",),
    )
    step = make_train_step(case.learner, optimizer, schedule, jax.random.key(0))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=case.variables,
        opt_state=jax.jit(optimizer.init)(case.variables.params),
    )
    state, metrics = jax.device_get(jax.jit(step)(state, {}))
    np.testing.assert_allclose(metrics["loss"], case.data["loss"], rtol=1e-5)
    assert int(state.step) == 1
    after = case.data.group("after/")
    grads = params_from(case.data.group("grad_intended/"), case.layer)
    expected = params_from(after, case.layer)

    def check(actual, expected, grad):
        # AdamW's first step is lr * sign(gradient): rounding decides where it is ~0.
        firm = np.abs(grad) >= 1e-4
        assert_close(actual[firm], expected[firm])

    jax.tree.map(
        check, prune(state.variables.params, grads), prune(expected, grads), grads
    )
    frozen = state.variables.params["encoder"]["patch_embed"]
    jax.tree.map(
        np.testing.assert_array_equal,
        frozen,
        case.variables.params["encoder"]["patch_embed"],
    )
    jax.tree.map(
        assert_close, state.variables.target_params, target_from(after, case.layer)
    )
    check_batch_stats(state, case, after)


def check_batch_stats(state, case, after):
    """torch stores the unbiased variance, Flax the biased: convert before comparing."""
    num_rows = case.data.settings["n_inv"] + case.data.settings["n_equiv"]
    biased = (num_rows - 1) / num_rows
    before, recorded = stats_from(case.data.group("sd/")), stats_from(after)

    def expected(path, old, new):
        if path[-1].key == "mean":
            return new
        num_updates = 2  # one per view
        kept = 0.9**num_updates * old
        return kept + (new - kept) * biased

    wanted = jax.tree_util.tree_map_with_path(expected, before, recorded)
    jax.tree.map(assert_close, state.variables.batch_stats, wanted)


@pytest.mark.parity
def test_heads_match_the_reference(golden):
    data = golden("moco_loss_heads")
    sd = data.group("sd/")
    heads = MoCoV3(
        hidden_dim=data.settings["mlp_dim"], output_dim=data.settings["moco_dim"]
    ).make_heads()
    names = {"projector": "base_encoder.head.", "predictor": "predictor."}
    parts = {k: interop_torch.batch_norm_mlp(subset(sd, v)) for k, v in names.items()}
    params, stats = ({k: v[i] for k, v in parts.items()} for i in (0, 1))

    def predict(params, x):
        out, updated = heads.apply(
            {"params": params, "batch_stats": stats},
            x,
            True,
            method="student",
            mutable=["batch_stats"],
        )
        return jnp.sum(out * data["heads/cot_p"]), (out, updated)

    (grads, grad_x), (out, updated) = jax.jit(
        jax.grad(predict, argnums=(0, 1), has_aux=True)
    )(params, data["heads/x"])
    assert_close(out, data["heads/p"])
    assert_close(grad_x, data["heads/grad_x"])
    recorded = data.group("grad/")
    for part, prefix in names.items():
        expected, _ = interop_torch.batch_norm_mlp(subset(recorded, prefix))
        jax.tree.map(assert_close, grads[part], expected)
    biased = (data.settings["batch"] - 1) / data.settings["batch"]
    after = sd | data.group("after/")  # the statistics alone are recorded anew
    for part, prefix in names.items():
        _, new_stats = interop_torch.batch_norm_mlp(subset(after, prefix))
        assert new_stats.keys() == stats[part].keys()
        for layer, new in new_stats.items():
            assert_close(updated["batch_stats"][part][layer]["mean"], new["mean"])
            kept = 0.9 * stats[part][layer]["var"]
            assert_close(
                updated["batch_stats"][part][layer]["var"],
                kept + (new["var"] - kept) * biased,
            )

    @jax.jit
    def make_keys(params, x):
        return heads.apply(
            {"params": params, "batch_stats": stats},
            x,
            True,
            method="target",
            mutable=["batch_stats"],
        )[0]

    assert_close(make_keys(params, data["heads/x"]), data["heads/z"])


def test_token_projector_is_two_linear_layers_with_gelu(rng):
    projector = TokenProjector(5)

    @jax.jit
    def both(x):
        params = projector.init(rng, x)["params"]
        hidden = nn.gelu(x @ params["fc1"]["kernel"], approximate=False)
        expected = hidden @ params["fc2"]["kernel"]
        return projector.apply({"params": params}, x), expected

    actual, expected = both(np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
