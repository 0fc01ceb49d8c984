"""SimCLR on ImageNet, ResNet-50, alone or with an add-on.

224 px, 800 epochs, batch 4096, LARS, as EquiMod's authors train it (arXiv 2211.01244).
Any preset of `config/presets.py` may follow the name; layers are the four stages.

    python -m ser_jax.main --config=configs/simclr.py --workdir=RUN
    python -m ser_jax.main --config=configs/simclr.py:equimod --workdir=RUN

Hardware: meant for a TPU pod slice. Time: not run. Linear top-1 of EquiMod's
repository: alone 71.57 %, equimod 72.30.

Reference run: not run.
"""

from ml_collections import ConfigDict

from ser_jax.config.defaults import base_config
from ser_jax.config.presets import with_preset

# The published weights, 1 and 0.4, go with a mean over the anchors of both views.
OWN = {
    "equimod": {"standardize": "official_imagenet_simclr"},
    "essl": {"hidden_dim": 2048, "bottleneck_dim": 128},
}


def get_config(preset: str = "") -> ConfigDict:
    """SimCLR, ImageNet, ResNet-50."""
    config = base_config(objective="simclr")
    config.batch_size = 4096
    config.total_epochs = 800.0

    config.dataset.name = "imagenet2012"
    config.dataset.eval_split = "validation"

    config.augment.recipe = "simclr"
    config.augment.image_size = 224

    config.model.variant = "resnet50"
    config.model.freeze_patch_embed = False
    config.model.dtype = "bfloat16"

    config.objective.temperature = 0.2
    config.objective.hidden_dim = 2048
    config.objective.output_dim = 128
    config.objective.reduction = "mean"

    config.optimizer.name = "lars"
    config.optimizer.lars_form = "inner"
    config.optimizer.base_lr = 2.4
    config.optimizer.lr_reference_batch = 4096
    config.optimizer.end_lr = 1e-8
    config.optimizer.warmup_epochs = 10.0
    config.optimizer.weight_decay = 1e-6
    config.optimizer.decay_mask = "no_1d"

    config.knn.every_epochs = 10.0
    return with_preset(
        config, preset, early=3, last=4, early_pool="mean_patch", own=OWN
    )
