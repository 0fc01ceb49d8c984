"""A whole SER + MoCo v3 step against the recorded one: loss, gradients, AdamW, EMA.

The reference's keys pass through the projector with gradient ("grad_intended"): that
is `equiv_grad="both"`. The default, "query", holds the keys constant as MoCo does
("grad_teacher_const"); only the projector's gradient differs. The release's own
gradient, where the term has none, is `equiv_grad="none"`.
"""

import dataclasses

import flax.linen as nn
import interop_torch
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import assert_close

from ser_jax.equivariance import geometry, group
from ser_jax.equivariance.ser import SER
from ser_jax.learner import Learner, Variables
from ser_jax.models.heads import TokenProjector
from ser_jax.models.vit import ViT
from ser_jax.objectives.moco_v3 import MoCoV3
from ser_jax.optim.optimizers import adamw
from ser_jax.train_state import TrainState
from ser_jax.train_step import make_train_step
from ser_jax.views import View


def subset(arrays: dict, prefix: str) -> dict:
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}


def params_from(sd: dict, layer: int) -> dict:
    """Online parameters (or their gradients) from a state dict."""
    projector, _ = interop_torch.batch_norm_mlp(subset(sd, "base_encoder.head."))
    predictor, _ = interop_torch.batch_norm_mlp(subset(sd, "predictor."))
    return {
        "encoder": interop_torch.vit(encoder_part(sd, "base_encoder."), layer),
        "objective": {"projector": projector, "predictor": predictor},
        "regularizer": {"projector": token_projector(sd)},
    }


def encoder_part(sd: dict, prefix: str) -> dict:
    return {k: v for k, v in subset(sd, prefix).items() if not k.startswith("head.")}


def token_projector(sd: dict) -> dict:
    part = subset(sd, "projector_equiv.")
    first, second = sorted({name.split(".")[0] for name in part})
    return {
        "fc1": interop_torch.dense(part, first),
        "fc2": interop_torch.dense(part, second),
    }


def target_from(sd: dict, layer: int) -> dict:
    head, _ = interop_torch.batch_norm_mlp(subset(sd, "momentum_encoder.head."))
    return {
        "encoder": interop_torch.vit(encoder_part(sd, "momentum_encoder."), layer),
        "objective": {"projector": head},
    }


def stats_from(sd: dict) -> dict:
    def stats(prefix):
        return interop_torch.batch_norm_mlp(subset(sd, prefix))[1]

    return {
        "student": {
            "objective": {
                "projector": stats("base_encoder.head."),
                "predictor": stats("predictor."),
            },
            "regularizer": {},
        },
        "target": {"objective": {"projector": stats("momentum_encoder.head.")}},
    }


class Case:
    """The recorded step, set up in this package's terms."""

    def __init__(self, data):
        settings, model = data.settings, data.settings["model"]
        self.data, self.settings = data, settings
        self.layer = model["equiv_layer"]
        sd = data.group("sd/")
        self.variables = Variables(
            params=params_from(sd, self.layer),
            target_params=target_from(sd, self.layer),
            batch_stats=stats_from(sd),
            method_state={},
        )
        self.variables = jax.tree.map(jnp.asarray, self.variables)
        patch = model["patch"]
        self.views = self.make_views(data, patch, model["img_size"] // patch)
        self.learner = Learner(
            encoder=ViT(
                width=model["embed_dim"],
                depth=model["depth"],
                num_heads=model["num_heads"],
                patch_size=patch,
                image_size=model["img_size"],
                cls_layer=self.layer,
                grid_layers=(self.layer,),
                pos_embed="learned",
                freeze_patch_embed=True,
            ),
            objective=MoCoV3(
                temperature=settings["T"],
                hidden_dim=model["mlp_dim"],
                output_dim=model["moco_dim"],
            ),
            regularizer=SER(
                weight=settings["equiv_lambda"],
                layer=self.layer,
                temperature=settings["temperature_equiv"],
                projector_dim=data["sd/projector_equiv.0.weight"].shape[0],
                negatives="opposite",
                equiv_grad="both",
            ),
            make_views=lambda rng, batch: self.views,
            target_momentum=optax.constant_schedule(settings["moco_m"]),
        )

    @staticmethod
    def make_views(data, patch, base_side):
        params = jnp.zeros(())  # no photometry was applied
        # A group whose static sizes hold the recorded grids.
        largest = max(int(np.prod(data[f"geo/view{v}"][:2])) for v in (0, 1))
        longest = max(int(max(data[f"geo/view{v}"][:2])) for v in (0, 1))
        held = group.Group(
            base_side,
            area_range=(0.5, max(1.0, (largest + 0.5) / base_side**2)),
            aspect_range=(0.1, longest**2 / base_side**2 + 1),
        )
        assert held.num_slots >= largest and held.max_side >= longest
        views = {}
        for v in (0, 1):
            rows, cols, turns = (jnp.asarray(x) for x in data[f"geo/view{v}"])
            images = {
                kind: jnp.asarray(data[f"image_{kind}{v}"].transpose(0, 2, 3, 1))
                for kind in ("inv", "equiv")
            }
            element = group.release_element(
                rot180=jnp.asarray(data["geo/rot180_0"]) ^ bool(v),
                hflip=jnp.asarray(data["geo/hflip_0"]) ^ bool(v),
                grid_shape=jnp.stack([rows, cols]),
                quarter_turns=turns,
            )
            canvas = geometry.act_on_image(
                images["equiv"], element, patch_size=patch, max_side=held.max_side
            )
            views[f"global/{v}"] = View(images["inv"], params)
            views[f"equiv/{v}"] = View(canvas, params, element, held)
        return views

    def with_grad(self, equiv_grad):
        regularizer = dataclasses.replace(
            self.learner.regularizer, equiv_grad=equiv_grad
        )
        return dataclasses.replace(self.learner, regularizer=regularizer)

    def loss_and_grad(self, learner):
        """Loss and gradient as the step takes them: the target moves first."""
        step = jnp.zeros((), jnp.int32)
        params = self.variables.params
        variables = self.variables.replace(
            target_params=learner.advance_target(
                "before_forward", self.variables.target_params, params, step
            )
        )
        return jax.jit(jax.value_and_grad(learner.loss, has_aux=True))(
            params, variables, self.views, jax.random.key(0), step
        )


@pytest.fixture(scope="module")
def case():
    from conftest import Golden

    return Case(Golden("ser_moco_step"))


def prune(tree, reference):
    """`tree` without what `reference` lacks: frozen weights' gradients."""
    if isinstance(reference, dict):
        return {k: prune(tree[k], v) for k, v in reference.items()}
    return tree


@pytest.mark.parity
def test_loss_and_gradient_with_keys_through_the_projector(case):
    (loss, aux), grads = case.loss_and_grad(case.learner)
    np.testing.assert_allclose(loss, case.data["loss"], rtol=1e-5)
    np.testing.assert_allclose(aux.loss_inv, case.data["loss_inv"], rtol=1e-5)
    np.testing.assert_allclose(aux.loss_equiv, case.data["loss_equiv"], rtol=1e-5)
    recorded = params_from(case.data.group("grad_intended/"), case.layer)
    jax.tree.map(assert_close, prune(grads, recorded), recorded)


@pytest.mark.parity
def test_gradient_with_constant_keys_differs_in_the_projector_alone(case):
    _, intended = case.loss_and_grad(case.learner)
    (loss, _), constant = case.loss_and_grad(case.with_grad("query"))
    np.testing.assert_allclose(loss, case.data["loss"], rtol=1e-5)
    recorded = token_projector(case.data.group("grad_teacher_const/"))
    jax.tree.map(assert_close, constant["regularizer"]["projector"], recorded)
    for part in ("encoder", "objective"):
        jax.tree.map(
            lambda a, b: assert_close(a, b, 1e-5, 1e-7), constant[part], intended[part]
        )
    difference = np.abs(
        intended["regularizer"]["projector"]["fc1"]["kernel"]
        - constant["regularizer"]["projector"]["fc1"]["kernel"]
    )
    assert difference.max() > 1e-5


@pytest.mark.parity
def test_gradient_of_the_release_is_that_of_the_invariance_loss(case):
    _, grads = case.loss_and_grad(case.with_grad("none"))
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0.0), grads["regularizer"])
    released = case.data.group("grad_released/")
    encoder = subset(released, "base_encoder.")
    assert encoder
    for name, expected in encoder.items():
        if name == "pos_embed":
            assert_close(grads["encoder"]["pos_embed"], expected[0])
        elif name == "cls_token":
            assert_close(grads["encoder"]["cls_token"], expected)
        elif name.startswith("blocks.") and name.endswith("attn.qkv.weight"):
            index = int(name.split(".")[1])
            actual = grads["encoder"]["blocks"]["attn"]["qkv"]["kernel"][index]
            assert_close(actual, expected.T)


@pytest.mark.parity
def test_one_step_gives_the_recorded_state(case):
    settings = case.settings["adamw"]
    schedule = optax.constant_schedule(settings["lr"])
    optimizer = adamw(
        schedule,
        weight_decay=settings["weight_decay"],
        b1=settings["betas"][0],
        b2=settings["betas"][1],
        frozen=("encoder/patch_embed",),
    )
    step = make_train_step(case.learner, optimizer, schedule, jax.random.key(0))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=case.variables,
        opt_state=optimizer.init(case.variables.params),
    )
    state, metrics = jax.jit(step)(state, {})
    np.testing.assert_allclose(metrics["loss"], case.data["loss"], rtol=1e-5)
    assert int(state.step) == 1
    after = case.data.group("after/")
    grads = params_from(case.data.group("grad_intended/"), case.layer)
    expected = params_from(after, case.layer)

    def check(actual, expected, grad):
        # AdamW's first step is lr * sign(gradient): rounding decides where it is ~0.
        firm = np.abs(grad) >= 1e-4
        assert_close(np.asarray(actual)[firm], np.asarray(expected)[firm])

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
    num_rows = case.settings["n_inv"] + case.settings["n_equiv"]
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
    params = {k: jax.tree.map(jnp.asarray, v[0]) for k, v in parts.items()}
    stats = {k: v[1] for k, v in parts.items()}

    def predict(params, x):
        out, updated = heads.apply(
            {"params": params, "batch_stats": stats},
            x,
            True,
            method="student",
            mutable=["batch_stats"],
        )
        return jnp.sum(out * data["heads/cot_p"]), (out, updated)

    (grads, grad_x), (out, updated) = jax.grad(predict, argnums=(0, 1), has_aux=True)(
        params, jnp.asarray(data["heads/x"])
    )
    assert_close(out, data["heads/p"])
    assert_close(grad_x, data["heads/grad_x"])
    recorded = data.group("grad/")
    for part, prefix in names.items():
        expected, _ = interop_torch.batch_norm_mlp(subset(recorded, prefix))
        jax.tree.map(assert_close, grads[part], expected)
    biased = (data.settings["batch"] - 1) / data.settings["batch"]
    for part, prefix in names.items():
        _, after = interop_torch.batch_norm_mlp(subset(data.group("after/"), prefix))
        for layer, new in after.items():
            assert_close(updated["batch_stats"][part][layer]["mean"], new["mean"])
            kept = 0.9 * stats[part][layer]["var"]
            assert_close(
                updated["batch_stats"][part][layer]["var"],
                kept + (new["var"] - kept) * biased,
            )
    keys = heads.apply(
        {"params": params, "batch_stats": stats},
        data["heads/x"],
        True,
        method="target",
        mutable=["batch_stats"],
    )[0]
    assert_close(keys, data["heads/z"])


def test_token_projector_is_two_linear_layers_with_gelu(rng):
    x = jax.random.normal(rng, (2, 3, 4))
    projector = TokenProjector(5)
    params = projector.init(rng, x)["params"]
    expected = nn.gelu(x @ params["fc1"]["kernel"], approximate=False)
    np.testing.assert_allclose(
        projector.apply({"params": params}, x),
        expected @ params["fc2"]["kernel"],
        rtol=1e-6,
    )
