"""Experiment configuration: defaults, checks, and what follows from them.

`configs/*.py` start from `base_config` and assign. The program resolves the result once
(`finalize`) and builds every part from it (`experiment.py`); below that no code sees a
ConfigDict.
"""

import dataclasses
import math

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from ser_jax.config.differences import flatten
from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.methods.regularizers import REGULARIZERS
from ser_jax.methods.settings import settings_of

_MINIMA = {  # None, where it is a value, is below none of them
    "batch_size": 1,
    "log_every_steps": 1,
    "max_steps": 0,
    "model.width": 0,
    "model.depth": 0,
    "model.num_heads": 0,
    "model.norm_eps": 0,
    "optimizer.lr_reference_batch": 1,
    "optimizer.base_lr": 0,
    "optimizer.start_lr": 0,
    "optimizer.end_lr": 0,
    "optimizer.weight_decay": 0,
    "optimizer.end_weight_decay": 0,
    "optimizer.freeze_last_layer_epochs": 0,
    "optimizer.accumulate_steps": 1,
    "checkpoint.every_steps": 1,
    "checkpoint.every_minutes": 0,
    "checkpoint.keep_latest": 1,
    "knn.every_epochs": 0,
    "knn.num_neighbors": 1,
    "loader.num_threads": 1,
    "loader.num_workers": -1,
    "loader.prefetch_batches": 1,
}


def base_config(objective: str = "moco_v3", regularizer: str = "none") -> ConfigDict:
    """Defaults of every setting.

    Args:
        objective: Name in `OBJECTIVES`.
        regularizer: Name in `REGULARIZERS`.

    Returns:
        A config whose `objective` and `regularizer` parts hold that class's own
        settings. `batch_size` is global.

    Raises:
        ValueError: If a name is not known.
    """
    config = ConfigDict()
    config.seed = 0
    config.batch_size = 256  # global
    config.total_epochs = 100.0
    config.max_steps = 0  # stop early here, schedules unchanged; 0: run to the end
    config.init = ""  # file or folder of weights that the encoder starts from

    config.dataset = ConfigDict()
    config.dataset.name = "digits"
    config.dataset.data_dir = "~/tensorflow_datasets"
    config.dataset.train_split = "train"
    config.dataset.eval_split = "test"
    config.dataset.mean = ()  # of red, green, blue in [0, 1]; (): the data set's own
    config.dataset.std = ()  # likewise

    config.loader = ConfigDict()
    config.loader.num_threads = 16
    config.loader.num_workers = -1  # processes that decode; -1: by the cores
    config.loader.prefetch_batches = 4  # over all workers
    config.loader.timeout_s = 600.0  # that a batch may take until the run ends
    config.loader.max_bad_frac = 0.0  # of the records, unreadable, to do without

    config.augment = ConfigDict()
    config.augment.recipe = "moco_v3"
    config.augment.image_size = 224  # px
    config.augment.local_size = 96  # px, of local and other small views
    config.augment.crop_scale = ()  # area range of the crop; (): the recipe's
    config.augment.local_crop_scale = ()  # likewise
    config.augment.flip_prob = 0.5
    config.augment.rot90_prob = 0.0
    config.augment.resample = "cv2"  # or "cv2_reduced", "pil", "bilinear"

    config.model = ConfigDict()
    config.model.variant = "S/16"
    config.model.width = 0  # this and the next two, 0: the variant's own
    config.model.small_images = False  # a ResNet's stem: that of CIFAR
    config.model.depth = 0
    config.model.num_heads = 0
    config.model.pos_embed = "sincos"
    config.model.resample = "dino"  # of positions, to other grids; or "hf", "timm"
    config.model.norm_eps = 1e-6
    config.model.init_scheme = "moco_v3"
    config.model.freeze_patch_embed = True
    config.model.drop_path_rate = 0.0
    config.model.dtype = "bfloat16"
    config.model.attention = "auto"
    # Of any type: True or False, and for remat also a policy's name.
    for name in ("remat", "scan"):
        config.model[name] = FieldReference("auto", field_type=object)

    config.objective = ConfigDict(settings_of(OBJECTIVES, "objective", objective))
    config.regularizer = ConfigDict(
        settings_of(REGULARIZERS, "regularizer", regularizer)
    )
    for part in ("equiv_weight", "equiv_share"):  # factor on the regularizer's own
        config[part] = ConfigDict()
        config[part].start = 1.0
        config[part].end = 1.0  # half a cosine leads there
        config[part].warmup_epochs = 0.0  # 0 until then
        config[part].rest_epochs = 0.0  # 0 at the end

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.base_lr = 1.5e-4  # at lr_reference_batch; scales linearly
    config.optimizer.lr_reference_batch = 256
    config.optimizer.warmup_epochs = 10.0
    config.optimizer.warmup_inclusive = False  # peak one step early, as DINO's
    config.optimizer.start_lr = 0.0  # absolute, as end_lr
    config.optimizer.end_lr = 0.0
    config.optimizer.weight_decay = 0.1
    config.optimizer.end_weight_decay = placeholder(float)  # None: constant
    config.optimizer.decay_mask = "all"
    config.optimizer.momentum = placeholder(float)  # None: the optimizer's usual
    config.optimizer.lars_form = placeholder(str)
    config.optimizer.clip_norm = 0.0  # of each parameter; 0: no clipping
    config.optimizer.bias_lr_factor = 1.0
    config.optimizer.freeze_last_layer_epochs = 0.0  # DINO's prototypes
    # Parts of a device's rows that are encoded one after the other, to save memory;
    # what is trained does not change. 1: all at once. Not with a ResNet.
    config.optimizer.accumulate_steps = 1

    config.log_every_steps = 50
    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 1000
    config.checkpoint.every_minutes = 0.0  # so many after the last, too; 0: by steps
    config.checkpoint.keep_latest = 2
    config.checkpoint.keep_every_steps = 0  # also keep every n-th for good; 0: none

    config.divergence = ConfigDict()  # of loss, gradient or weights that are not finite
    config.divergence.policy = "stop"  # or "skip" (the update), "rollback"
    config.divergence.max_skipped = 100  # in a row
    config.divergence.max_rollbacks = 3

    config.knn = ConfigDict()
    config.knn.every_epochs = 10.0  # 0: no probe
    config.knn.num_neighbors = 20
    config.knn.temperature = 0.07
    config.knn.max_train_examples = 10000
    config.knn.max_eval_examples = 2000
    return config.lock()


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What follows from a config and the size of its data set.

    Attributes:
        steps_per_epoch: Optimizer steps that count as an epoch: whole batches that the
            data set holds, >= 1.
        total_steps: Steps of the schedules.
        stop_step: Where this run stops: `total_steps`, or `max_steps` if that is lower.
        warmup_steps: Steps of the learning rate's warm-up.
        freeze_last_layer_steps: Steps before DINO's prototypes learn.
        peak_lr: base_lr * batch_size / lr_reference_batch.
        knn_every_steps: Steps between probes; 0 for none.
    """

    steps_per_epoch: int
    total_steps: int
    stop_step: int
    warmup_steps: int
    freeze_last_layer_steps: int
    peak_lr: float
    knn_every_steps: int


def finalize(config: ConfigDict, num_train_examples: int) -> Resolved:
    """Resolves epochs to steps and the learning rate to its peak.

    Args:
        config: The experiment.
        num_train_examples: Size of the training split.

    Returns:
        The resolved numbers.

    Raises:
        ValueError: If a setting is out of range.
    """
    check_ranges(config)
    steps_per_epoch = max(1, num_train_examples // config.batch_size)
    total_steps = math.ceil(config.total_epochs * steps_per_epoch)
    warmup_steps = round(config.optimizer.warmup_epochs * steps_per_epoch)
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"optimizer.warmup_epochs {config.optimizer.warmup_epochs} must be shorter "
            f"than total_epochs {config.total_epochs}."
        )
    scale = config.batch_size / config.optimizer.lr_reference_batch
    knn_every_steps = round(config.knn.every_epochs * steps_per_epoch)
    if config.knn.every_epochs > 0:
        knn_every_steps = max(1, knn_every_steps)
    return Resolved(
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        stop_step=min(config.max_steps or total_steps, total_steps),
        warmup_steps=warmup_steps,
        freeze_last_layer_steps=round(
            config.optimizer.freeze_last_layer_epochs * steps_per_epoch
        ),
        peak_lr=config.optimizer.base_lr * scale,
        knn_every_steps=knn_every_steps,
    )


def check_ranges(config: ConfigDict) -> None:
    """Refuses settings that are out of range.

    Args:
        config: The experiment.

    Raises:
        ValueError: If one is; it says which, and what it may be.
    """
    values = flatten(config.to_dict())
    usual = flatten(
        base_config(config.objective.name, config.regularizer.name).to_dict()
    )
    for name, value in values.items():
        if value is None and usual.get(name) is not None:
            raise ValueError(
                f"{name} must have a value, got None; it is {usual[name]} unless set."
            )
        numbers = value if isinstance(value, list) else [value]
        if not all(math.isfinite(x) for x in numbers if isinstance(x, float)):
            raise ValueError(f"{name} must be finite, got {value}.")
    steps = config.optimizer.accumulate_steps
    if not isinstance(steps, int) or isinstance(steps, bool):
        raise ValueError(
            f"optimizer.accumulate_steps must be a whole number, got {steps!r}; 1 is "
            "the whole batch at once."
        )
    for name, least in _MINIMA.items():
        if values[name] is not None and values[name] < least:
            raise ValueError(f"{name} must be at least {least}, got {values[name]}.")
    if config.total_epochs <= 0:
        raise ValueError(f"total_epochs must be positive, got {config.total_epochs}.")
    if config.loader.timeout_s <= 0:
        raise ValueError(
            f"loader.timeout_s must be positive, got {config.loader.timeout_s}."
        )
    if not 0 <= config.model.drop_path_rate < 1:
        raise ValueError(
            "model.drop_path_rate must be at least 0 and below 1, got "
            f"{config.model.drop_path_rate}."
        )
    if not 0 <= config.loader.max_bad_frac <= 1:
        raise ValueError(
            "loader.max_bad_frac must be between 0 and 1, got "
            f"{config.loader.max_bad_frac}."
        )
    if config.model.dtype not in ("float32", "bfloat16"):
        raise ValueError(
            f"model.dtype must be 'float32' or 'bfloat16', got {config.model.dtype!r}."
        )
