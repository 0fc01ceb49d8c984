"""From the host's uint8 crops to the views that a step trains on, on device."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from ser_jax.data.augment import augment
from ser_jax.data.recipes import Recipe
from ser_jax.equivariance.geometry import act_on_image
from ser_jax.equivariance.group import Element, Group
from ser_jax.views import View, ViewSpec, equiv_count, split_rows


@dataclasses.dataclass(frozen=True)
class ViewMaker:
    """Makes all views of a step; called inside the jitted step.

    Attributes:
        specs: Every view wanted, the objective's and the regularizer's.
        recipes: Photometric recipe of each of them.
        share: Share of the batch for views that extend another.
        patch_size: Pixels a side of the encoder's patch.
        group: Group of the geometric views, if there are any.
    """

    specs: tuple[ViewSpec, ...]
    recipes: tuple[Recipe, ...]
    share: float
    patch_size: int
    group: Group | None

    def __call__(self, rng: jax.Array, batch: Mapping[str, Any]) -> dict[str, View]:
        """Augments a batch.

        Args:
            rng: Key. Draws depend on it, the view and the row alone, so that they are
                the same on any number of devices.
            batch: `crops`: name -> `[b, s, s, 3]`, uint8; `crop_params`: name ->
                `[b, 7]`, float32.

        Returns:
            View name -> view. A view that another one extends covers b1, the extending
            one b2; every other view covers the batch.
        """
        photo_rng, element_rng = jax.random.split(rng)
        extended = {spec.extends for spec in self.specs if spec.extends}
        elements = self._sample_elements(element_rng, batch)
        views = {}
        for i, (spec, recipe) in enumerate(zip(self.specs, self.recipes, strict=True)):
            images, crop = (
                batch["crops"][spec.source],
                batch["crop_params"][spec.source],
            )
            if spec.extends or spec.name in extended:
                count = equiv_count(images.shape[0], self.share)
                part = 1 if spec.extends else 0
                images, crop = (split_rows(x, count)[part] for x in (images, crop))
            images, params = augment(
                jax.random.fold_in(photo_rng, i), images, crop, recipe
            )
            if not spec.geometric:
                views[spec.name] = View(images, params)
                continue
            assert self.group is not None  # SER and its like bring one
            element = elements[spec.name]
            canvas = act_on_image(
                images,
                element,
                patch_size=self.patch_size,
                max_side=self.group.max_side,
            )
            views[spec.name] = View(canvas, params, element, self.group)
        return views

    def _sample_elements(
        self, rng: jax.Array, batch: Mapping[str, Any]
    ) -> dict[str, Element]:
        """Elements of the geometric views, drawn pair by pair."""
        names = [spec.name for spec in self.specs if spec.geometric]
        if self.group is None or not names:
            return {}
        b = jax.tree.leaves(batch["crops"])[0].shape[0]
        count = equiv_count(b, self.share)
        drawn: list[Element] = []
        for pair_rng in jax.random.split(rng, len(names) // 2):
            drawn.extend(self.group.sample_pair(pair_rng, count))
        return dict(zip(names, drawn, strict=True))
