"""From the host's uint8 crops to the views that a step trains on, on device."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ser_jax.data.crops import Batch
from ser_jax.geometry.action import act_on_image
from ser_jax.geometry.group import IDENTITY, Element, Group
from ser_jax.models.placement import num_devices
from ser_jax.views.augment import augment, sample_params
from ser_jax.views.recipe import Recipe
from ser_jax.views.view import (
    AugmentParams,
    Cut,
    View,
    ViewSpec,
    equiv_count,
    interleave,
)


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
        mixed: Whether rows of b1 may lie among b2's, on their canvases: not with
            BatchNorm in the encoder, whose statistics are a view's.
    """

    specs: tuple[ViewSpec, ...]
    recipes: tuple[Recipe, ...]
    share: float
    patch_size: int
    make_group: Callable[[int], Group | None]
    share_factor: optax.Schedule | None = None
    paired: bool = False
    mixed: bool = False

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
            one b2; every other view covers the batch. Where the devices do not divide
            b2, cutting its rows out of the batch would move all pictures: every device
            then has as many rows beside its rows of b1, and those that are not b2's
            are b1's (`View.cut`). Nothing that is drawn depends on it.
        """
        return self.paint(self.draw(rng, batch, step))

    def draw(self, rng: jax.Array, batch: Batch, step: jax.Array) -> dict[str, View]:
        """All that is random in the views, for the whole batch; no pictures.

        Args:
            rng: As of `__call__`.
            batch: As of `__call__`.
            step: As of `__call__`.

        Returns:
            View name -> view, but that its `images` are the host's crops, uint8.
        """
        photo_rng, element_rng = jax.random.split(rng)
        extended = {spec.extends for spec in self.specs if spec.extends}
        batch_size = jax.tree.leaves(batch["crops"])[0].shape[0]
        cut = self._cut(batch_size) if extended else None
        by_name = {spec.name: i for i, spec in enumerate(self.specs)}

        @functools.cache
        def drawn(i: int) -> tuple[jax.Array, AugmentParams]:
            """Crops of the batch, and what is to be done to them."""
            images = batch["crops"][self.specs[i].source]
            crop = batch["crop_params"][self.specs[i].source]
            rng = jax.random.fold_in(photo_rng, i)
            return images, sample_params(rng, self.recipes[i], crop, paired=self.paired)

        def part_of(i: int, part: int) -> tuple[jax.Array, AugmentParams]:
            """Of b1 (0), or of b2 and the rows among it (1)."""
            assert cut is not None
            return jax.tree.map(lambda x: cut.split(x)[part], drawn(i))

        views: dict[str, View] = {}
        num_geometric = 0
        for i, (spec, recipe) in enumerate(zip(self.specs, self.recipes, strict=True)):
            if spec.copy_of:
                original = views[spec.copy_of]
                turns = jnp.full_like(original.params.quarter_turns, spec.quarter_turns)
                params = dataclasses.replace(original.params, quarter_turns=turns)
                views[spec.name] = dataclasses.replace(original, params=params)
                continue
            if not spec.extends:
                of_b1 = cut if spec.name in extended else None
                found = drawn(i) if of_b1 is None else part_of(i, 0)
                views[spec.name] = View(*found, recipe, cut=of_b1)
                continue
            pair, member = divmod(num_geometric, 2)
            num_geometric += 1
            assert cut is not None
            images, params = part_of(i, 1)
            group = self.make_group(images.shape[1] // self.patch_size)
            assert group is not None  # SER and its like bring one
            pair_rng = jax.random.fold_in(element_rng, pair)
            element = group.sample_pair(pair_rng, cut.num_equiv)[member]
            active = self._active(cut, step)
            if not (cut.is_exact and self.share_factor is None):
                base = Element(
                    jnp.full(cut.num_rows, IDENTITY, element.d4.dtype),
                    jnp.full((cut.num_rows, 2), group.base_side),
                )
                own = jax.tree.map(lambda x: x[np.maximum(cut.images, 0)], element)
                standard = by_name[spec.extends]
                images, params, element = _choose(
                    active, (images, params, own), (*part_of(standard, 1), base)
                )
                recipe = recipe.or_of(self.recipes[standard])
            views[spec.name] = View(images, params, recipe, element, group, active, cut)
        return views

    def paint(self, drawn: Mapping[str, View]) -> dict[str, View]:
        """The views with their pictures: of each row by itself.

        Args:
            drawn: What `draw` gave, of all views; or some rows of it.

        Returns:
            View name -> view.
        """
        views: dict[str, View] = {}
        geometric: dict[tuple[int, ...], list[str]] = {}
        for spec in self.specs:
            view = drawn[spec.name]
            if view.element is not None:
                geometric.setdefault(view.images.shape, []).append(spec.name)
                continue
            if spec.copy_of:
                original = views[spec.copy_of].images
                images = jnp.rot90(original, spec.quarter_turns, axes=(1, 2))
            else:
                images = augment(view.images, view.params, view.recipe)
            views[spec.name] = dataclasses.replace(view, images=images)
        for names in geometric.values():  # of few rows: together they take fewer steps
            images = self._geometric([drawn[name] for name in names])
            for j, name in enumerate(names):
                own = images[j :: len(names)]
                views[name] = dataclasses.replace(drawn[name], images=own)
        return views

    def _geometric(self, views: Sequence[View]) -> jax.Array:
        """Pictures of geometric views of one size, interleaved."""
        images, params, element = jax.tree.map(
            lambda *x: interleave(x), *((v.images, v.params, v.element) for v in views)
        )
        recipe = functools.reduce(Recipe.or_of, (view.recipe for view in views))
        group = views[0].group
        assert group is not None
        return act_on_image(
            augment(images, params, recipe),
            element,
            patch_size=self.patch_size,
            max_side=group.max_side,
        )

    def _cut(self, batch_size: int) -> Cut:
        """Which rows of the batch are b2's, and which lie among them."""
        count = equiv_count(batch_size, self.share)
        if self.mixed and batch_size % num_devices() == 0:
            return Cut.on(num_devices(), batch_size, count)
        return Cut.exact(batch_size, count)

    def _active(self, cut: Cut, step: jax.Array) -> jax.Array:
        """Which rows take part in the term at this step, `[r]`, bool."""
        images = cut.images
        if self.share_factor is None:
            return jnp.asarray(images >= 0)
        count = jnp.round(self.share_factor(step) * cut.num_equiv)
        return jnp.asarray(images >= 0) & (images < count)


def _choose(active: jax.Array, yes: Any, no: Any) -> Any:
    """`yes` where a row is active, else `no`; pytrees of `[b, ...]`."""

    def choose(a, b):
        mask = active.reshape(-1, *(1 for _ in a.shape[1:]))
        return jnp.where(mask, a, b)

    return jax.tree.map(choose, yes, no)
