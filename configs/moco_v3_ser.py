"""SER on MoCo v3 on ImageNet: the paper's main result.

ViT-S/16, 224 px, 100 epochs, batch 2048, equivariance after block 3 on 1 % of the batch
(SER, arXiv 2603.06693). Differs from configs/moco_v3.py in the regularizer alone, which
also moves the class token's entry to its layer.

    python -m ser_jax.main --config=configs/moco_v3_ser.py --workdir=/runs/moco_v3_ser

Hardware: meant for 8 accelerators with 256 images each; any number that divides the
batch will do. Time: not run. Expected: 69.28 % linear top-1 (paper). FLOPs over the
baseline: docs/flops.md.
"""

from ml_collections import ConfigDict

from ser_jax.config import base_config


def get_config() -> ConfigDict:
    """SER on MoCo v3, ImageNet, ViT-S/16."""
    config = base_config(objective="moco_v3", regularizer="ser")
    config.batch_size = 2048
    config.total_epochs = 100.0

    config.dataset.name = "imagenet2012"
    config.dataset.eval_split = "validation"

    config.augment.recipe = "moco_v3"  # crops of 8 to 100 % of the area
    config.augment.image_size = 224

    config.model.variant = "S/16"  # 6 heads, as the SER paper; MoCo v3's own has 12
    config.model.pos_embed = "learned"
    config.model.dtype = "bfloat16"

    config.objective.temperature = 0.2
    config.objective.momentum = 0.99
    config.objective.hidden_dim = 4096
    config.objective.output_dim = 256

    config.regularizer.weight = 1.0
    config.regularizer.layer = 3
    config.regularizer.temperature = 0.5
    config.regularizer.share = 0.01  # 24 images of 2048

    config.optimizer.base_lr = 3e-4  # 2.4e-3 at batch 2048
    config.optimizer.warmup_epochs = 10.0
    config.optimizer.weight_decay = 0.1

    config.knn.every_epochs = 10.0
    return config
