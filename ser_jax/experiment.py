"""What a config describes, built: learner, optimizer, crops."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from ser_jax import config as config_lib
from ser_jax import train_state
from ser_jax.data.crops import CROP_PARAMS, CropSpec
from ser_jax.data.make_views import ViewMaker
from ser_jax.data.recipes import crop_scale, recipe
from ser_jax.equivariance.registry import REGULARIZERS
from ser_jax.learner import Learner
from ser_jax.models.variants import make_vit
from ser_jax.objectives import OBJECTIVES
from ser_jax.optim.optimizers import adamw
from ser_jax.optim.schedules import cosine_momentum, warmup_cosine


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run is made of but data, devices and state.

    Attributes:
        config: The config it was built from.
        resolved: What follows from it.
        learner: Encoder, objective and regularizer.
        optimizer: Optimizer.
        learning_rate: Its schedule.
        crops: Crops the host takes of every image.
        mean: Channel means of normalised images.
        std: Channel standard deviations.
    """

    config: ConfigDict
    resolved: config_lib.Resolved
    learner: Learner
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    crops: tuple[CropSpec, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def init_rng(self) -> jax.Array:
        """Key of the initial weights."""
        return jax.random.fold_in(jax.random.key(self.config.seed), 0)

    @property
    def step_rng(self) -> jax.Array:
        """Key of everything random in the steps."""
        return jax.random.fold_in(jax.random.key(self.config.seed), 1)

    def abstract_batch(self) -> dict[str, Any]:
        """Shapes of a global batch as the loader makes it."""
        b = self.config.batch_size

        def crop(spec):
            return jax.ShapeDtypeStruct((b, spec.size_px, spec.size_px, 3), jnp.uint8)

        params = jax.ShapeDtypeStruct((b, len(CROP_PARAMS)), jnp.float32)
        return {
            "crops": {spec.name: crop(spec) for spec in self.crops},
            "crop_params": {spec.name: params for spec in self.crops},
        }

    def init_state(self, rng: jax.Array) -> train_state.TrainState:
        """Fresh training state; to be called inside `jit`."""
        return train_state.create(
            rng, self.learner, self.optimizer, self.abstract_batch()
        )

    def embed(self, encoder_params: Any, images: jax.Array) -> jax.Array:
        """Class tokens `[b, d]` of evaluation images `[b, h, w, 3]`, uint8."""
        mean, std = (
            jnp.asarray(x, jnp.float32).reshape(1, 1, 1, 3)
            for x in (self.mean, self.std)
        )
        images = (images.astype(jnp.float32) / 255 - mean) / std
        features: Any = self.learner.encoder.apply({"params": encoder_params}, images)
        return features.cls

    @property
    def eval_resize_px(self) -> int:
        """Short side to resize evaluation images to before their centre crop.

        The usual margin (256 to 224 px), but none for small pictures, which have no
        border to spare.
        """
        size = self.config.augment.image_size
        return round(size * 256 / 224) if size >= 128 else size


def build(config: ConfigDict, num_train_examples: int) -> Experiment:
    """Builds the parts of an experiment.

    Args:
        config: The experiment.
        num_train_examples: Size of the training split.

    Returns:
        The experiment.

    Raises:
        ValueError: If a setting is refused; the message says what to change.
    """
    resolved = config_lib.finalize(config, num_train_examples)
    objective = config_lib.make_part(OBJECTIVES, "objective", config.objective)
    regularizer = config_lib.make_part(REGULARIZERS, "regularizer", config.regularizer)
    size = config.augment.image_size
    model = config.model.to_dict()
    encoder = make_vit(
        model.pop("variant"),
        image_size=size,
        cls_layer=regularizer.cls_layer,
        grid_layers=regularizer.grid_layers,
        **(model | {"dtype": jnp.dtype(model["dtype"])}),
    )
    specs = (*objective.views, *regularizer.views)
    name = config.augment.recipe
    recipes = tuple(recipe(name, spec.extends or spec.name, size) for spec in specs)
    make_views = ViewMaker(
        specs=specs,
        recipes=recipes,
        share=regularizer.share,
        patch_size=encoder.patch_size,
        group=regularizer.make_group(size // encoder.patch_size),
    )
    target = objective.target
    momentum = target and cosine_momentum(
        target.momentum, total_steps=resolved.total_steps
    )
    learning_rate = warmup_cosine(
        resolved.peak_lr,
        warmup_steps=resolved.warmup_steps,
        total_steps=resolved.total_steps,
    )
    frozen = ("encoder/patch_embed",) if config.model.freeze_patch_embed else ()
    crops = tuple(
        CropSpec(
            name=source,
            size_px=size,
            scale=tuple(config.augment.crop_scale) or crop_scale(name, source),
            flip_prob=config.augment.flip_prob,
            resample=config.augment.resample,
        )
        for source in dict.fromkeys(spec.source for spec in specs)
    )
    return Experiment(
        config=config,
        resolved=resolved,
        learner=Learner(encoder, objective, regularizer, make_views, momentum),
        optimizer=adamw(
            learning_rate, weight_decay=config.optimizer.weight_decay, frozen=frozen
        ),
        learning_rate=learning_rate,
        crops=crops,
        mean=recipes[0].mean,
        std=recipes[0].std,
    )


def random_batch(experiment: Experiment, seed: int = 0) -> dict[str, Any]:
    """A batch of noise in the loader's form, for timing and tests.

    Args:
        experiment: Says which shapes.
        seed: Seed of the noise.

    Returns:
        Pytree of NumPy arrays.
    """
    rng = np.random.default_rng(seed)

    def fill(x):
        if x.dtype == jnp.uint8:
            return rng.integers(0, 256, x.shape, np.uint8)
        return np.zeros(x.shape, x.dtype)

    return jax.tree.map(fill, experiment.abstract_batch())
