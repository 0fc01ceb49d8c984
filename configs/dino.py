"""DINO on ImageNet, ViT-S/16, alone or with an add-on.

224 px, 100 epochs, batch 2048, two views, as SER's authors train it. Any preset of
`config/presets.py` may follow the name, and `multicrop`: DINO's own short recipe with
eight local views.

    python -m ser_jax.main --config=configs/dino.py --workdir=RUN
    python -m ser_jax.main --config=configs/dino.py:ser --workdir=RUN
    python -m ser_jax.main --config=configs/dino.py:multicrop --workdir=RUN

Hardware: meant for 8 accelerators. Time: not run. Expected: `ser` 0.26 points of linear
top-1 above the base (paper); `multicrop` k-NN 69.3 %, linear 74.0 (DINO's repository).

Reference run: not run.
"""

import dataclasses

from ml_collections import ConfigDict

from ser_jax.config.defaults import base_config
from ser_jax.config.presets import PRESETS, VIT_PORTS, Preset, with_preset

OWN = VIT_PORTS | {"ser": {"weight": 0.3, "temperature": 0.4, "share": 0.01}}

MORE = {
    "ser_paper": dataclasses.replace(
        PRESETS["ser_paper"],
        settings={**PRESETS["ser_paper"].settings, "regularizer.temperature": 0.5},
    ),
    "multicrop": Preset(
        "DINO with eight local views, 100 epochs, as its repository runs it",
        settings={
            "batch_size": 512,
            "augment.crop_scale": (0.4, 1.0),
            "augment.local_crop_scale": (0.05, 0.4),
            "augment.local_size": 96,
            "objective.num_local": 8,
            "objective.momentum": 0.996,
            "objective.teacher_temp": 0.04,
            "objective.teacher_temp_warmup_epochs": 0,
            "objective.norm_last_layer": True,
            "optimizer.base_lr": 5e-4,
            "optimizer.end_lr": 1e-6,
            "optimizer.clip_norm": 3.0,
        },
    ),
}


def get_config(preset: str = "") -> ConfigDict:
    """DINO, ImageNet, ViT-S/16."""
    config = base_config(objective="dino")
    config.batch_size = 2048
    config.total_epochs = 100.0

    config.dataset.name = "imagenet2012"
    config.dataset.eval_split = "validation"

    config.augment.recipe = "dino"
    config.augment.image_size = 224
    config.augment.crop_scale = (0.25, 1.0)  # there are no local views

    config.model.variant = "S/16"
    config.model.pos_embed = "learned"
    config.model.init_scheme = "dino"
    config.model.freeze_patch_embed = False
    config.model.drop_path_rate = 0.1  # the student's alone
    config.model.dtype = "bfloat16"

    config.objective.momentum = 0.982
    config.objective.teacher_temp = 0.07
    config.objective.warmup_teacher_temp = 0.04
    config.objective.teacher_temp_warmup_epochs = 10
    config.objective.norm_last_layer = False

    config.optimizer.base_lr = 1e-4
    config.optimizer.end_lr = 1e-5
    config.optimizer.warmup_epochs = 10.0
    config.optimizer.warmup_inclusive = True
    config.optimizer.weight_decay = 0.04
    config.optimizer.end_weight_decay = 0.4
    config.optimizer.decay_mask = "no_1d"
    config.optimizer.clip_norm = 0.3
    config.optimizer.freeze_last_layer_epochs = 1.0

    config.knn.every_epochs = 10.0
    return with_preset(config, preset, early=3, last=12, own=OWN, more=MORE)
