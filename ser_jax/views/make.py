"""From the host's uint8 crops to the views that a step trains on, on device."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ser_jax.data.crops import Batch
from ser_jax.geometry.action import act_on_image
from ser_jax.geometry.group import IDENTITY, Element, Group
from ser_jax.models.placement import by_rows, everywhere, num_devices
from ser_jax.views.augment import augment, sample_params
from ser_jax.views.recipe import Recipe
from ser_jax.views.view import (
    AugmentParams,
    View,
    ViewSpec,
    equiv_count,
    place_of_rows,
    split_rows,
)


@flax.struct.dataclass
class Sketch:
    """A view whose pictures are still to be made.

    Attributes:
        view: The view, but that its `images` are the host's crops, `[b, h, w, 3]`,
            uint8.
        params: What is to be done to each of their rows.
        element: The group element of each of them, if the view is geometric.
    """

    view: View
    params: AugmentParams
    element: Element | None = None


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
        whole_b1: Whether b1's views may cover b2's rows too, which are then encoded for
            nothing: not with BatchNorm in the encoder.
    """

    specs: tuple[ViewSpec, ...]
    recipes: tuple[Recipe, ...]
    share: float
    patch_size: int
    make_group: Callable[[int], Group | None]
    share_factor: optax.Schedule | None = None
    paired: bool = False
    whole_b1: bool = False

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
            b2, cutting its rows out of the batch would move all pictures: b1's views
            then cover the batch (`View.replaced`), and b2's few rows are copied to
            devices of their own (`View.spread`). Neither changes what is drawn.
        """
        return self.paint(self.draw(rng, batch, step))

    def draw(
        self, rng: jax.Array, batch: Batch, step: jax.Array, *, apart: bool = False
    ) -> dict[str, Sketch]:
        """All that is random in the views, for the whole batch; no pictures.

        Args:
            rng: As of `__call__`.
            batch: As of `__call__`.
            step: As of `__call__`.
            apart: Whether b2's views, where they would be spread, are so one by one:
                `View.spread` is then 1, and their rows are b2's, padded.

        Returns:
            View name -> what `paint` makes it of.
        """
        photo_rng, element_rng = jax.random.split(rng)
        extended = {spec.extends for spec in self.specs if spec.extends}
        batch_size = jax.tree.leaves(batch["crops"])[0].shape[0]
        count = equiv_count(batch_size, self.share) if extended else 0
        active = self._active(count, step)
        sides = {name: crops.shape[1] for name, crops in batch["crops"].items()}
        sketches: dict[str, Sketch] = {}
        num_geometric = 0
        for i, (spec, recipe) in enumerate(zip(self.specs, self.recipes, strict=True)):
            if spec.copy_of:
                original = sketches[spec.copy_of]
                turns = jnp.full_like(original.params.quarter_turns, spec.quarter_turns)
                params = dataclasses.replace(original.params, quarter_turns=turns)
                view = View(original.view.images, params, original.view.recipe)
                sketches[spec.name] = Sketch(view, params)
                continue
            is_extended = spec.name in extended
            rows = self._rows(spec, batch_size, count, is_extended, apart, sides)
            images, crop = rows.taken(_crops(batch, spec.source))
            if spec.extends and self.share_factor is not None:
                if spec.source != spec.extends:
                    own = rows.taken(_crops(batch, spec.extends))
                    chosen = rows.of_images(active)
                    images, crop = _choose(chosen, (images, crop), own)
            params = sample_params(
                jax.random.fold_in(photo_rng, i),
                recipe,
                crop,
                paired=self.paired,
                places=rows.places,
            )
            if not spec.geometric:
                view = View(images, params, recipe, replaced=rows.replaced)
                sketches[spec.name] = Sketch(view, params)
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
            view = View(
                images,
                rows.by_image(params),
                recipe,
                element,
                group,
                active,
                spread=rows.spread,
                number=rows.number,
            )
            sketches[spec.name] = Sketch(view, params, rows.of_images(element))
        return sketches

    def paint(self, sketches: Mapping[str, Sketch]) -> dict[str, View]:
        """The views with their pictures: of each row by itself.

        Args:
            sketches: What `draw` gave, of all views; or some rows of it.

        Returns:
            View name -> view.
        """
        views: dict[str, View] = {}
        for spec in self.specs:
            sketch = sketches[spec.name]
            group = sketch.view.group
            if spec.copy_of:
                original = views[spec.copy_of].images
                images = jnp.rot90(original, spec.quarter_turns, axes=(1, 2))
            else:
                images = augment(sketch.view.images, sketch.params, sketch.view.recipe)
            if sketch.element is not None and group is not None:
                images = act_on_image(
                    images,
                    sketch.element,
                    patch_size=self.patch_size,
                    max_side=group.max_side,
                )
            views[spec.name] = dataclasses.replace(sketch.view, images=images)
        return views

    def _rows(
        self,
        spec: ViewSpec,
        batch_size: int,
        count: int,
        is_extended: bool,
        apart: bool,
        sides: Mapping[str, int],
    ) -> "_Rows":
        """The rows of the batch that a view is made of, and how they lie."""
        if not (spec.extends or is_extended):
            return _Rows()
        is_aligned = math.gcd(batch_size, count) % num_devices() == 0
        if is_aligned or not self.whole_b1:
            part = 1 if spec.extends else 0
            return _Rows(lambda x: split_rows(x, count)[part])
        if is_extended:  # every image's draw is the one that it would have in b1
            return _Rows(places=place_of_rows(batch_size, count), replaced=count)
        b2 = split_rows(np.arange(batch_size), count)[1]
        side = sides[spec.source]
        alike = [x for x in self.specs if x.extends and sides[x.source] == side]
        alike = [spec] if apart else alike
        num = len(alike)
        places = np.repeat(np.arange(count), num)
        places = np.pad(places, (0, -len(places) % num_devices()), mode="edge")
        return _Rows(
            lambda x: by_rows(everywhere(x[b2])[places]),
            places,
            spread=num,
            number=alike.index(spec),
            num_images=count,
        )

    def _active(self, count: int, step: jax.Array) -> jax.Array:
        """Which rows of b2 take part in the term at this step, `[count]`, bool."""
        if self.share_factor is None:
            return jnp.ones(count, bool)
        return jnp.arange(count) < jnp.round(self.share_factor(step) * count)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Rows that a view is made of.

    Attributes:
        take: Array of the batch `[b, ...]` -> of these rows.
        places: The image whose draw each row takes; None: each its own.
        replaced: See `View`.
        spread: See `View`; the view is number `number` of so many.
        number: See `spread`.
        num_images: How many images are spread.
    """

    take: Callable[[jax.Array], jax.Array] = lambda x: x
    places: np.ndarray | None = None
    replaced: int = 0
    spread: int = 0
    number: int = 0
    num_images: int = 0

    def taken(self, arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """These rows of arrays of the batch."""
        return tuple(self.take(x) for x in arrays)

    def of_images(self, tree: Any) -> Any:
        """A value for each image -> for each row."""
        if not self.spread:
            return tree
        return jax.tree.map(lambda x: x[self.places], tree)

    def by_image(self, tree: Any) -> Any:
        """A value for each row -> for each image."""
        if not self.spread:
            return tree
        end = self.num_images * self.spread
        return jax.tree.map(lambda x: x[self.number : end : self.spread], tree)


def _crops(batch: Batch, name: str) -> tuple[Any, Any]:
    return batch["crops"][name], batch["crop_params"][name]


def _choose(active: jax.Array, yes: Any, no: Any) -> Any:
    """`yes` where a row is active, else `no`; pytrees of `[b, ...]`."""

    def choose(a, b):
        mask = active.reshape(-1, *(1 for _ in a.shape[1:]))
        return jnp.where(mask, a, b)

    return jax.tree.map(choose, yes, no)
