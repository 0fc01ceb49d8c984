"""What a config describes, built: learner, optimizer, crops. Configs end here."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from ser_jax.config import defaults as config_lib
from ser_jax.config.normalization import own_normalization
from ser_jax.config.recorded import complete
from ser_jax.data.cores import workers_for
from ser_jax.data.crops import CROP_PARAMS, CropSpec, eval_resize_px
from ser_jax.methods.learner import Learner
from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.methods.objectives.base import Objective
from ser_jax.methods.regularizers import REGULARIZERS
from ser_jax.methods.regularizers.base import Regularizer
from ser_jax.methods.settings import make_part
from ser_jax.methods.variables import Variables
from ser_jax.models.outputs import PATCH_EMBED, PROTOTYPES, Encoder, EncoderOutput
from ser_jax.models.variants import make_encoder
from ser_jax.train.finite import Divergence
from ser_jax.train.optim.optimizers import make_optimizer
from ser_jax.train.optim.schedules import cosine_momentum, equiv_factor, warmup_cosine
from ser_jax.train.step import TrainState, create_state
from ser_jax.views.make import ViewMaker
from ser_jax.views.recipe import Recipe, crop_scale, recipe
from ser_jax.views.view import ViewSpec, equiv_count


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run is made of but data, devices and state.

    Attributes:
        config: The config it was built from, as plain dicts: for the record. What the
            data set decides is in it.
        resolved: What follows from it.
        learner: Encoder, objective and regularizer.
        optimizer: Optimizer.
        learning_rate: Its schedule.
        crops: Crops the host takes of every image.
        mean: Channel means of normalised images.
        std: Channel standard deviations.
        seed: Seed of all that is random.
        batch_size: Images a step, over all devices.
        accumulate_steps: Parts of a device's rows, encoded one after the other.
        image_size: Pixels a side of the images that are evaluated, and of most views.
        num_threads: Threads of a process that decode.
        num_workers: Processes that decode instead, on this host; 0: none.
        prefetch_batches: Batches the loader is ahead.
        loader_timeout_s: Seconds that a batch may take.
        max_bad_frac: Share of the records that may be unreadable.
        log_every_steps: Steps between rows of metrics.
        save_every_steps: Steps between checkpoints.
        save_every_minutes: Most minutes between checkpoints; 0: any number.
        divergence: What is done about numbers that are not finite.
    """

    config: dict[str, Any]
    resolved: config_lib.Resolved
    learner: Learner
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    crops: tuple[CropSpec, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    seed: int
    batch_size: int
    accumulate_steps: int
    image_size: int
    num_threads: int
    num_workers: int
    prefetch_batches: int
    loader_timeout_s: float
    max_bad_frac: float
    log_every_steps: int
    save_every_steps: int
    save_every_minutes: float
    divergence: Divergence

    @property
    def init_rng(self) -> jax.Array:
        """Key of the initial weights."""
        return jax.random.fold_in(jax.random.key(self.seed), 0)

    @property
    def step_rng(self) -> jax.Array:
        """Key of everything random in the steps."""
        return jax.random.fold_in(jax.random.key(self.seed), 1)

    @property
    def pair_seed(self) -> int | None:
        """Seed of the crops that paired images share; None if they are not paired."""
        return self.seed if self.learner.regularizer.paired else None

    @property
    def evaluates_target(self) -> bool:
        """Whether evaluation reads the target network's encoder, not the online one."""
        target = self.learner.objective.target
        return target is not None and target.evaluated

    def evaluated(self, variables: Variables) -> Any:
        """Variables of the encoder that evaluation reads, for `embed`."""
        return variables.encoder(self.evaluates_target)

    def abstract_batch(self) -> dict[str, Any]:
        """Shapes of a global batch as the loader makes it."""
        b = self.batch_size

        def crop(spec):
            return jax.ShapeDtypeStruct((b, spec.size_px, spec.size_px, 3), jnp.uint8)

        params = jax.ShapeDtypeStruct((b, len(CROP_PARAMS)), jnp.float32)
        return {
            "crops": {spec.name: crop(spec) for spec in self.crops},
            "crop_params": {spec.name: params for spec in self.crops},
        }

    def with_encoder(self, **changes: Any) -> "Experiment":
        """The same with changes to those of the encoder's attributes that it has."""
        old = self.learner.encoder
        changed = old.clone(**{k: v for k, v in changes.items() if hasattr(old, k)})
        learner = dataclasses.replace(self.learner, encoder=changed)
        return dataclasses.replace(self, learner=learner)

    def init_state(self, rng: jax.Array, weights: Any = None) -> TrainState:
        """Fresh training state; to be called inside `jit`.

        Args:
            rng: Key.
            weights: What the encoder starts from: see `Learner.init`.

        Returns:
            The state.
        """
        batch = self.abstract_batch()
        return create_state(rng, self.learner, self.optimizer, batch, weights)

    def embed(self, encoder_variables: Any, images: jax.Array) -> jax.Array:
        """Class tokens, `[b, d]`, float32; arguments as of `encode`."""
        return self.encode(encoder_variables, images).cls

    def encode(self, encoder_variables: Any, images: jax.Array) -> EncoderOutput:
        """Features of evaluation images.

        Args:
            encoder_variables: What `evaluated` gives.
            images: As decoded, cropped, `[b, h, w, 3]`, uint8.

        Returns:
            What the encoder gives in evaluation mode.
        """
        return self.learner.encoder.apply(encoder_variables, self.normalize(images))

    def normalize(self, images: jax.Array) -> jax.Array:
        """Pictures `[b, h, w, 3]`, uint8, as the encoder takes them: float32."""
        mean, std = (
            jnp.asarray(x, jnp.float32).reshape(1, 1, 1, 3)
            for x in (self.mean, self.std)
        )
        return (images.astype(jnp.float32) / 255 - mean) / std


def build(
    config: ConfigDict | Mapping[str, Any], num_train_examples: int
) -> Experiment:
    """Builds the parts of an experiment.

    Args:
        config: The experiment; a recorded one, in plain dicts, will do, and if it
            lacks a setting, the version that wrote it is followed: see `complete`.
        num_train_examples: Size of the training split.

    Returns:
        The experiment.

    Raises:
        ValueError: If a setting is refused; the message says what to change.
    """
    config = _completed(config)
    resolved = config_lib.finalize(config, num_train_examples)
    objective = make_part(OBJECTIVES, "objective", config.objective.to_dict())
    regularizer = make_part(REGULARIZERS, "regularizer", config.regularizer.to_dict())
    encoder = _encoder(config, regularizer)
    if regularizer.paired and config.batch_size % 2:
        raise ValueError(
            f"{config.regularizer.name} pairs the images of a batch: batch_size must "
            f"be even, got {config.batch_size}."
        )
    if encoder.has_batch_norm and config.optimizer.accumulate_steps > 1:
        raise ValueError(
            f"optimizer.accumulate_steps is {config.optimizer.accumulate_steps}, but "
            f"{config.model.variant} has BatchNorm, whose statistics would be those of "
            "a part of the batch. Set it to 1, with more devices or a smaller "
            "batch_size if memory is short, or choose a ViT as model.variant."
        )
    _refuse_small_split(config, objective, regularizer)
    specs = (*objective.views, *regularizer.views(objective.views))
    recipes = tuple(_recipe(config, spec) for spec in specs)
    make_views = ViewMaker(
        specs=specs,
        recipes=recipes,
        share=regularizer.share,
        patch_size=encoder.patch_size,
        make_group=regularizer.make_group,
        share_factor=_equiv_factor(config.equiv_share, resolved),
        paired=regularizer.paired,
        mixed=not encoder.has_batch_norm,
    )
    target = objective.target
    momentum = target and cosine_momentum(
        target.momentum, total_steps=resolved.total_steps
    )
    learning_rate = warmup_cosine(
        resolved.peak_lr,
        warmup_steps=resolved.warmup_steps,
        total_steps=resolved.total_steps,
        start=config.optimizer.start_lr,
        end=config.optimizer.end_lr,
        inclusive=config.optimizer.warmup_inclusive,
    )
    sources = {spec.source: spec for spec in specs if not spec.copy_of}
    # The spec that names a crop says what it is like, not those that borrow it.
    sources |= {spec.name: spec for spec in specs if spec.name in sources}
    return Experiment(
        config=config.to_dict(),
        resolved=resolved,
        learner=Learner(
            encoder,
            objective,
            regularizer,
            make_views,
            momentum,
            resolved.steps_per_epoch,
            _equiv_factor(config.equiv_weight, resolved),
        ),
        optimizer=_optimizer(config, resolved, learning_rate),
        learning_rate=learning_rate,
        crops=tuple(_crop(config, name, spec) for name, spec in sources.items()),
        mean=config.dataset.mean,
        std=config.dataset.std,
        seed=config.seed,
        batch_size=config.batch_size,
        accumulate_steps=config.optimizer.accumulate_steps,
        image_size=config.augment.image_size,
        num_threads=config.loader.num_threads,
        num_workers=workers_for(config.loader.num_workers),
        prefetch_batches=config.loader.prefetch_batches,
        loader_timeout_s=config.loader.timeout_s,
        max_bad_frac=config.loader.max_bad_frac,
        log_every_steps=config.log_every_steps,
        save_every_steps=config.checkpoint.every_steps,
        save_every_minutes=config.checkpoint.every_minutes,
        divergence=Divergence(**config.divergence),
    )


def encoder_of(
    config: ConfigDict | Mapping[str, Any],
) -> tuple[Encoder, dict[str, Any]]:
    """The encoder that a config describes; its data is not needed.

    Args:
        config: As of `build`.

    Returns:
        The encoder, and the config as plain dicts that lack nothing.

    Raises:
        ValueError: If a setting is refused.
    """
    config = _completed(config)
    config_lib.check_ranges(config)
    settings = config.regularizer.to_dict()
    regularizer = make_part(REGULARIZERS, "regularizer", settings)
    return _encoder(config, regularizer), config.to_dict()


def _completed(config: ConfigDict | Mapping[str, Any]) -> ConfigDict:
    """A copy that lacks nothing, what the data set decides in numbers."""
    plain = config.to_dict() if isinstance(config, ConfigDict) else config
    config = ConfigDict(complete(plain))
    mean, std = own_normalization(config.dataset.name)
    config.dataset.mean = tuple(config.dataset.mean) or mean
    config.dataset.std = tuple(config.dataset.std) or std
    return config


def _encoder(config: ConfigDict, regularizer: Regularizer) -> Encoder:
    model = config.model.to_dict()
    return make_encoder(
        model.pop("variant"),
        image_size=config.augment.image_size,
        cls_insert=regularizer.cls_insert,
        grid_layers=regularizer.grid_layers,
        cls_layers=regularizer.cls_layers,
        **(model | {"dtype": jnp.dtype(model["dtype"])}),
    )


def _refuse_small_split(
    config: ConfigDict, objective: Objective, regularizer: Regularizer
) -> None:
    """Raises if b2 has an invariance loss of its own and too few images for it."""
    if not regularizer.splits_invariance:
        return
    count = equiv_count(config.batch_size, regularizer.share)
    if count < objective.fewest_images:
        share = objective.fewest_images / config.batch_size
        raise ValueError(
            f"regularizer.invariance is 'split', but b2 holds {count} of "
            f"{config.batch_size} images and the statistics of {config.objective.name} "
            f"need at least {objective.fewest_images}. Set regularizer.share to "
            f"{share:.3g} or more (at most 0.5), or regularizer.invariance to 'joint'."
        )


def _optimizer(
    config: ConfigDict, resolved: config_lib.Resolved, learning_rate: optax.Schedule
) -> optax.GradientTransformation:
    settings = config.optimizer
    decay = settings.weight_decay
    if settings.end_weight_decay is not None:
        decay = warmup_cosine(
            decay,
            warmup_steps=0,
            total_steps=resolved.total_steps,
            end=settings.end_weight_decay,
        )
    late = {f"objective/{PROTOTYPES}": resolved.freeze_last_layer_steps}
    return make_optimizer(
        settings.name,
        learning_rate,
        weight_decay=decay,
        decay_mask=settings.decay_mask,
        momentum=settings.momentum,
        lars_form=settings.lars_form,
        clip_norm=settings.clip_norm,
        bias_lr_factor=settings.bias_lr_factor,
        frozen=(f"encoder/{PATCH_EMBED}",) if config.model.freeze_patch_embed else (),
        late={path: steps for path, steps in late.items() if steps},
    )


def _equiv_factor(
    settings: ConfigDict, resolved: config_lib.Resolved
) -> optax.Schedule | None:
    """The schedule, or None where it is 1 throughout."""
    values = settings.to_dict()
    if values == {"start": 1.0, "end": 1.0, "warmup_epochs": 0.0, "rest_epochs": 0.0}:
        return None
    return equiv_factor(
        settings.start,
        settings.end,
        total_steps=resolved.total_steps,
        warmup_steps=round(settings.warmup_epochs * resolved.steps_per_epoch),
        rest_steps=round(settings.rest_epochs * resolved.steps_per_epoch),
    )


def _size_px(config: ConfigDict, spec: ViewSpec) -> int:
    return config.augment.local_size if spec.small else config.augment.image_size


def _recipe(config: ConfigDict, spec: ViewSpec) -> Recipe:
    augment, dataset = config.augment, config.dataset
    found = recipe(augment.recipe, spec.photometry, _size_px(config, spec))
    found = dataclasses.replace(found, mean=dataset.mean, std=dataset.std)
    if spec.geometric or spec.photometry not in ("global/0", "global/1"):
        return found  # its turns are known, or none
    return dataclasses.replace(found, rot90_prob=augment.rot90_prob)


def _crop(config: ConfigDict, name: str, spec: ViewSpec) -> CropSpec:
    augment = config.augment
    chosen = augment.local_crop_scale if spec.small else augment.crop_scale
    size = _size_px(config, spec)
    return CropSpec(
        name=name,
        size_px=size,
        scale=spec.crop_scale
        or tuple(chosen)
        or crop_scale(augment.recipe, small=spec.small),
        flip_prob=augment.flip_prob,
        resample=augment.resample,
        centre_frac=size / eval_resize_px(size) if spec.centre else 0.0,
    )
