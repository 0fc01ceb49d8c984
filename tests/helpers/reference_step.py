"""Recorded SER steps in this package's terms: encoder, views, gradients.

In the recordings all that can have a gradient has one, keys included: that is
`equiv_grad="both"`, which `make_ser` sets.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from conftest import Golden

from helpers.support import assert_close
from ser_jax.geometry import action as geometry
from ser_jax.geometry import group
from ser_jax.methods.learner import Learner
from ser_jax.methods.regularizers.ser import SER
from ser_jax.methods.variables import LossAux, PyTree, Variables
from ser_jax.models.vit import ViT
from ser_jax.views.recipe import Recipe
from ser_jax.views.view import Cut, View

act_on_image = jax.jit(
    geometry.act_on_image, static_argnames=("patch_size", "max_side")
)
release_element = jax.jit(group.release_element)


def recorded_model() -> dict:
    """The transformer of all recorded steps; MoCo v3's file alone describes it."""
    return Golden("ser_moco_step").settings["model"]


def make_encoder(model: dict, *, freeze_patch_embed: bool) -> ViT:
    layer = model["equiv_layer"]
    return ViT(
        width=model["embed_dim"],
        depth=model["depth"],
        num_heads=model["num_heads"],
        patch_size=model["patch"],
        image_size=model["img_size"],
        cls_insert=layer,
        grid_layers=(layer,),
        pos_embed="learned",
        freeze_patch_embed=freeze_patch_embed,
    )


def make_ser(settings: dict, model: dict, params: PyTree, **options) -> SER:
    layer = model["equiv_layer"]
    projector = params["regularizer"][f"projector_{layer}"]
    return SER(
        weight=settings["equiv_lambda"],
        layer=layer,
        temperature=settings["temperature_equiv"],
        projector_dim=projector["fc1"]["kernel"].shape[1],
        negatives="opposite",
        equiv_grad="both",
        **options,
    )


def make_views(data: Golden, model: dict, standard: list, shared: list) -> dict:
    """The views of a step.

    Args:
        data: Recording with the elements, "geo/*".
        model: Patch and image size.
        standard: b1's images in both views, `[b, 3, h, w]`.
        shared: b2's, before the elements act.
    """
    params = np.zeros((), np.float32)  # no photometry was applied
    patch, holding = model["patch"], holding_group(data, model)
    views = {}
    for v in (0, 1):
        *grid_shape, turns = data[f"geo/view{v}"]
        element = release_element(
            rot180=data["geo/rot180_0"] ^ bool(v),
            hflip=data["geo/hflip_0"] ^ bool(v),
            grid_shape=np.array(grid_shape),
            quarter_turns=turns,
        )
        canvas = act_on_image(
            channels_last(shared[v]),
            element,
            patch_size=patch,
            max_side=holding.max_side,
        )
        active = np.ones(len(canvas), bool)
        b1, b2 = len(standard[v]), len(canvas)
        cut = Cut.exact(b1 + b2, b2)
        images = channels_last(standard[v])
        views[f"global/{v}"] = View(images, params, Recipe(), cut=cut)
        views[f"equiv/{v}"] = View(
            canvas, params, Recipe(), element, holding, active, cut
        )
    return views


def views_of_crops(data: Golden, model: dict) -> dict:
    """Views where b2's two start from the same pixels, the last rows of "image0"."""
    num_inv, num_equiv = data.settings["n_inv"], data.settings["n_equiv"]
    standard = [data[f"image{v}"][:num_inv] for v in (0, 1)]
    return make_views(data, model, standard, [data["image0"][-num_equiv:]] * 2)


def channels_last(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)


def holding_group(data: Golden, model: dict) -> group.Group:
    """A group whose static sizes hold the recorded grids."""
    base_side = model["img_size"] // model["patch"]
    grids = [data[f"geo/view{v}"][:2] for v in (0, 1)]
    largest = max(int(np.prod(grid)) for grid in grids)
    longest = max(int(max(grid)) for grid in grids)
    holding = group.Group(
        base_side,
        area_range=(0.5, max(1.0, (largest + 0.5) / base_side**2)),
        aspect_range=(0.1, longest**2 / base_side**2 + 1),
    )
    assert holding.num_slots >= largest and holding.max_side >= longest
    return holding


class Differentiated(NamedTuple):
    """Loss and gradients of one step, in host memory."""

    loss: np.ndarray
    aux: LossAux
    grads: PyTree  # of the loss
    equiv_grads: PyTree  # of loss_equiv alone, if asked for


@dataclasses.dataclass(frozen=True)
class Case:
    """A recorded step."""

    data: Golden
    learner: Learner
    variables: Variables
    views: dict[str, View]
    step: int = 0

    @property
    def layer(self) -> int:
        return self.learner.regularizer.layer

    def with_grad(self, equiv_grad: str) -> "Case":
        regularizer = dataclasses.replace(
            self.learner.regularizer, equiv_grad=equiv_grad
        )
        learner = dataclasses.replace(self.learner, regularizer=regularizer)
        return dataclasses.replace(self, learner=learner)

    def differentiate(self, *, equiv_alone: bool = False) -> Differentiated:
        """Loss and gradients as the step takes them.

        Args:
            equiv_alone: Whether the backward pass gives loss_equiv's own gradient too.
        """

        @jax.jit
        def run(variables, views, step):
            learner, params = self.learner, variables.params
            variables = variables.replace(
                target_params=learner.advance_target(
                    "before_forward", variables.target_params, params, step
                )
            )

            def losses(params):
                rng = jax.random.key(0)  # for stochastic depth, of which there is none
                loss, aux = learner.loss(params, variables, views, rng, step)
                return jnp.stack([loss, aux.loss_equiv]), (loss, aux)

            _, pull_back, (loss, aux) = jax.vjp(losses, params, has_aux=True)
            weights = jnp.eye(2)  # of the two losses
            if not equiv_alone:
                return Differentiated(loss, aux, *pull_back(weights[0]), None)
            (grads,) = jax.vmap(pull_back)(weights)
            first, second = (jax.tree.map(lambda g, i=i: g[i], grads) for i in (0, 1))
            return Differentiated(loss, aux, first, second)

        return jax.device_get(run(self.variables, self.views, np.int32(self.step)))

    def projector_grads(self) -> PyTree:
        """The equivariance projector's gradient alone: no pass back to the images."""

        @jax.jit
        def run(variables, views, step):
            def loss(regularizer):
                params = variables.params | {"regularizer": regularizer}
                rng = jax.random.key(0)
                return self.learner.loss(params, variables, views, rng, step)[0]

            return jax.grad(loss)(variables.params["regularizer"])

        grads = run(self.variables, self.views, np.int32(self.step))
        return grads[f"projector_{self.layer}"]


def assert_losses(result: Differentiated, data: Golden) -> None:
    aux = result.aux
    np.testing.assert_allclose(result.loss, data["loss"], rtol=1e-5)
    np.testing.assert_allclose(aux.loss_inv, data["loss_inv"], rtol=1e-5)
    np.testing.assert_allclose(aux.loss_equiv, data["loss_equiv"], rtol=1e-5)


def assert_grads(grads: PyTree, recorded: PyTree, sd: dict) -> None:
    """The gradients are the `recorded` ones, which are all that `sd` holds."""
    sizes = [
        sum(x.size for x in part) for part in (jax.tree.leaves(recorded), sd.values())
    ]
    assert sizes[0] == sizes[1], "a recorded gradient is not compared"
    jax.tree.map(assert_close, grads, recorded)


def assert_equiv_grads_stop_at(layer: int, grads: PyTree) -> None:
    """loss_equiv trains all blocks up to `layer`, its projector, and nothing after."""
    encoder = grads["encoder"]
    for leaf in jax.tree.leaves(encoder["blocks"]):
        assert all(np.any(block) for block in leaf[:layer])
        np.testing.assert_array_equal(leaf[layer:], 0.0)
    early = [encoder[k] for k in ("patch_embed", "pos_embed", f"norm_grid_{layer}")]
    assert all(np.any(g) for g in jax.tree.leaves([*early, grads["regularizer"]]))
    late = [encoder["cls_token"], encoder["norm"], grads["objective"]]
    assert not any(np.any(g) for g in jax.tree.leaves(late))
