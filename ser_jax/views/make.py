"""From the host's uint8 crops to the views that a step trains on, on device."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ser_jax.data.crops import Batch
from ser_jax.geometry.action import act_on_image
from ser_jax.geometry.group import IDENTITY, Element, Group
from ser_jax.views.augment import augment
from ser_jax.views.recipe import Recipe
from ser_jax.views.view import View, ViewSpec, equiv_count, split_rows


@dataclasses.dataclass(frozen=True)
class ViewMaker:
    """Makes all views of a step; called inside the jitted step.

    Attributes:
        specs: Every view wanted, the objective's and the regularizer's.
        recipes: Photometric recipe of each of them.
        share: Share of the batch for views that extend another.
        patch_size: Pixels a side of the encoder's patch.
        make_group: Base grid's side in patches -> group of the geometric views.
        share_factor: Factor on the share by step, in [0, 1]; None for 1 throughout.
            Shapes do not change with it: the rows of b2 it leaves out become standard
            views again, on the same canvases, and take no part in the term.
        paired: Whether images 2i and 2i + 1 share their colours.
    """

    specs: tuple[ViewSpec, ...]
    recipes: tuple[Recipe, ...]
    share: float
    patch_size: int
    make_group: Callable[[int], Group | None]
    share_factor: optax.Schedule | None = None
    paired: bool = False

    def __call__(
        self, rng: jax.Array, batch: Batch, step: jax.Array
    ) -> dict[str, View]:
        """Augments a batch.

        Args:
            rng: Key. Draws depend on it, the view and the row alone, so that they are
                the same on any number of devices.
            batch: The host's crops and how they were cut.
            step: Optimizer step, `[]`, int32.

        Returns:
            View name -> view. A view that another one extends covers b1, the extending
            one b2; every other view covers the batch.
        """
        photo_rng, element_rng = jax.random.split(rng)
        extended = {spec.extends for spec in self.specs if spec.extends}
        batch_size = jax.tree.leaves(batch["crops"])[0].shape[0]
        count = equiv_count(batch_size, self.share) if extended else 0
        active = self._active(count, step)
        views: dict[str, View] = {}
        num_geometric = 0
        for i, (spec, recipe) in enumerate(zip(self.specs, self.recipes, strict=True)):
            if spec.copy_of:
                original = views[spec.copy_of]
                turned = jnp.rot90(original.images, spec.quarter_turns, axes=(1, 2))
                turns = jnp.full_like(original.params.quarter_turns, spec.quarter_turns)
                params = dataclasses.replace(original.params, quarter_turns=turns)
                views[spec.name] = View(turned, params, original.recipe)
                continue
            images, crop = _crops(batch, spec.source)
            if spec.extends:
                images, crop = (split_rows(x, count)[1] for x in (images, crop))
                if self.share_factor is not None and spec.source != spec.extends:
                    own = [split_rows(x, count)[1] for x in _crops(batch, spec.extends)]
                    images, crop = _choose(active, [images, crop], own)
            elif spec.name in extended:
                images, crop = (split_rows(x, count)[0] for x in (images, crop))
            images, params = augment(
                jax.random.fold_in(photo_rng, i),
                images,
                crop,
                recipe,
                paired=self.paired,
            )
            if not spec.geometric:
                views[spec.name] = View(images, params, recipe)
                continue
            pair, member = divmod(num_geometric, 2)
            num_geometric += 1
            group = self.make_group(images.shape[1] // self.patch_size)
            assert group is not None  # SER and its like bring one
            pair_rng = jax.random.fold_in(element_rng, pair)
            element = group.sample_pair(pair_rng, count)[member]
            if self.share_factor is not None:
                base = Element(
                    jnp.full_like(element.d4, IDENTITY),
                    jnp.full_like(element.grid_shape, group.base_side),
                )
                element = _choose(active, element, base)
            canvas = act_on_image(
                images,
                element,
                patch_size=self.patch_size,
                max_side=group.max_side,
            )
            views[spec.name] = View(canvas, params, recipe, element, group, active)
        return views

    def _active(self, count: int, step: jax.Array) -> jax.Array:
        """Which rows of b2 take part in the term at this step, `[count]`, bool."""
        if self.share_factor is None:
            return jnp.ones(count, bool)
        return jnp.arange(count) < jnp.round(self.share_factor(step) * count)


def _crops(batch: Batch, name: str) -> tuple[Any, Any]:
    return batch["crops"][name], batch["crop_params"][name]


def _choose(active: jax.Array, yes: Any, no: Any) -> Any:
    """`yes` where a row is active, else `no`; pytrees of `[b, ...]`."""

    def choose(a, b):
        mask = active.reshape(-1, *(1 for _ in a.shape[1:]))
        return jnp.where(mask, a, b)

    return jax.tree.map(choose, yes, no)
