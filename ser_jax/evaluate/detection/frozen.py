"""A stack of detectors on one frozen encoder: their training step, what they find."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ser_jax.evaluate.detection.assign import Locations, make_locations
from ser_jax.evaluate.detection.decode import Detections, predict
from ser_jax.evaluate.detection.head import Detector, apply_stack
from ser_jax.evaluate.detection.losses import detection_loss
from ser_jax.evaluate.detection.maps import Maps, feature_maps
from ser_jax.evaluate.detection.pyramid import pyramid_strides
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.train.optim.optimizers import make_optimizer
from ser_jax.train.optim.schedules import warmup_cosine
from ser_jax.train.sharding import batch_sharded, replicated, shard_batch

_LEARNED_FROM = ("image", "pad", "boxes", "labels")
_FOUND_ON = ("image", "pad", "extent")
_TOLD = ("index", "scale", "valid")


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """How detectors are trained: AdamW, cosine, gradients clipped.

    Attributes:
        total_steps: Optimizer steps, >= 0.
        batch_size: Pictures of a step, over all devices.
        learning_rate: At its peak.
        warmup_steps: Steps of linear warm-up, fewer than all.
        weight_decay: AdamW's, not on biases and norms.
        clip_norm: Largest norm of a detector's gradient.
    """

    total_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float = 0.05
    clip_norm: float = 10.0


class Heads(NamedTuple):
    """Detectors in training, each leaf `[number of detectors, ...]`.

    Attributes:
        params: Their parameters.
        opt_state: Of their optimizers.
    """

    params: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Detectors:
    """Detectors with different initial weights that see the same maps.

    A picture is encoded once for all of them; beyond that they share the batches and
    nothing else. The encoder's weights are an argument of what is compiled: they stay
    as they are.

    Attributes:
        encoder: The encoder.
        num_classes: Number of classes.
        size_px: Side of the pictures, a multiple of the encoder's patch.
        layer: Whose maps are read: `feature_maps`.
        channels: Width of the detectors.
        settings: How they are trained.
        mesh: The mesh.

    Raises:
        ValueError: If there is no such layer, or size or width are not multiples.
    """

    encoder: FrozenEncoder
    num_classes: int
    size_px: int
    layer: int | str | None
    channels: int
    settings: HeadSettings
    mesh: Mesh

    def __post_init__(self):
        """Checks size, layer and width."""
        _ = self.detector

    @functools.cached_property
    def detector(self) -> Detector:
        """The module, of the encoder's compute dtype."""
        shapes = self._map_shapes
        strides = pyramid_strides(shapes, self.size_px)
        dtype = next(iter(shapes.values())).dtype
        return Detector(self.num_classes, strides, self.channels, dtype=dtype)

    @functools.cached_property
    def locations(self) -> Locations:
        """Where boxes are looked for."""
        return make_locations(self.size_px, self.detector.strides)

    def init(self, seeds: tuple[int, ...]) -> Heads:
        """Fresh detectors, on every device.

        Args:
            seeds: Of their initial weights.

        Returns:
            One for each seed.
        """
        maps = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self._map_shapes)

        def one(seed):
            params = self.detector.init(jax.random.key(seed), maps)["params"]
            return Heads(params, self._optimizer.init(params))

        init = jax.jit(jax.vmap(one), out_shardings=replicated(self.mesh))
        return init(jnp.asarray(seeds, jnp.uint32))

    def train_step(
        self, heads: Heads, batch: Mapping[str, np.ndarray]
    ) -> tuple[Heads, dict[str, jax.Array]]:
        """One step of all of them.

        Args:
            heads: Donated.
            batch: This process's rows of a batch of `train_examples`.

        Returns:
            The heads, and their losses, each `[number of detectors]`: "loss" and its
            terms, "class", "box" and "centerness".
        """
        rows = shard_batch({k: batch[k] for k in _LEARNED_FROM}, self.mesh)
        with jax.set_mesh(self.mesh):
            return self._train_step(heads, self._variables, rows)

    def find(
        self, params: Any, batch: Mapping[str, np.ndarray]
    ) -> tuple[Detections, dict[str, jax.Array]]:
        """What they find.

        Args:
            params: Of the detectors.
            batch: This process's rows of a batch of `eval_examples`.

        Returns:
            Detections `[number of detectors, b, ...]`, and of the same global batch
            `index`, `scale` and `valid`, `[b]`; all on every device.
        """
        rows = shard_batch({k: batch[k] for k in _FOUND_ON + _TOLD}, self.mesh)
        with jax.set_mesh(self.mesh):
            return self._find(params, self._variables, rows)

    @functools.cached_property
    def _map_shapes(self) -> Maps:
        """Of one picture."""
        side = self.size_px
        image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        read = feature_maps(self.encoder, side, self.layer)
        return jax.eval_shape(read, self.encoder.variables, image)

    @functools.cached_property
    def _variables(self) -> Any:
        return jax.device_put(self.encoder.variables, replicated(self.mesh))

    @functools.cached_property
    def _optimizer(self) -> optax.GradientTransformation:
        settings = self.settings
        schedule = warmup_cosine(
            settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            total_steps=max(1, settings.total_steps),
        )
        adamw = make_optimizer(
            "adamw", schedule, weight_decay=settings.weight_decay, decay_mask="no_1d"
        )
        return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adamw)

    def _maps(self, variables: Any, batch: Mapping[str, jax.Array]) -> Maps:
        """Maps of normalised pictures, 0 beside them."""
        images = self.encoder.normalize(batch["image"])
        places = jnp.arange(self.size_px)[None]
        rows, cols = (places < batch["pad"][:, i, None] for i in range(2))
        inside = rows[:, :, None, None] & cols[:, None, :, None]
        images = jnp.where(inside, images, 0.0)
        return feature_maps(self.encoder, self.size_px, self.layer)(variables, images)

    @functools.cached_property
    def _train_step(self) -> Any:
        def losses_of(params, maps, batch):
            outputs = apply_stack(self.detector, {"params": params}, maps)
            of_each = jax.vmap(detection_loss, (0, None, None, None))
            truth = batch["boxes"], batch["labels"]
            losses, terms = of_each(outputs, self.locations, *truth)
            return jnp.sum(losses), {"loss": losses, **terms}

        def step(heads, variables, batch):
            params, opt_state = heads
            maps = self._maps(variables, batch)
            # They share no parameter: the gradient of the sum is that of each.
            grads, losses = jax.grad(losses_of, has_aux=True)(params, maps, batch)
            update = jax.vmap(self._optimizer.update)
            updates, opt_state = update(grads, opt_state, params)
            return Heads(optax.apply_updates(params, updates), opt_state), losses

        everywhere = replicated(self.mesh)
        return jax.jit(
            step,
            in_shardings=(everywhere, everywhere, batch_sharded(self.mesh)),
            out_shardings=everywhere,
            donate_argnums=0,
        )

    @functools.cached_property
    def _find(self) -> Any:
        def find(params, variables, batch):
            maps = self._maps(variables, batch)
            outputs = apply_stack(self.detector, {"params": params}, maps)
            of_each = jax.vmap(predict, (0, None, None))
            found = of_each(outputs, self.locations, batch["extent"])
            return found, {k: batch[k] for k in _TOLD}

        everywhere = replicated(self.mesh)
        return jax.jit(
            find,
            in_shardings=(everywhere, everywhere, batch_sharded(self.mesh)),
            out_shardings=everywhere,
        )
