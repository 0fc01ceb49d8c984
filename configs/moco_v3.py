"""MoCo v3 on ImageNet, ViT-S/16: the SER paper's main base, alone or with an add-on.

224 px, 100 epochs, batch 2048 (SER, arXiv 2603.06693, MoCo v3 rows). Any preset of
`config/presets.py` may follow the name:

    python -m ser_jax.main --config=configs/moco_v3.py --workdir=RUN
    python -m ser_jax.main --config=configs/moco_v3.py:ser --workdir=RUN
    python -m ser_jax.main --config=configs/moco_v3.py:equimod_decoupled --workdir=RUN

Hardware: meant for 8 accelerators with 256 images each; any number that divides the
batch will do. Time: not run. Linear top-1 of the paper: alone 68.44 %, ser 69.28,
ser_2plus4 71.56, equimod 68.95, equimod_decoupled 69.51, augself 67.55,
augself_decoupled 68.23, essl 70.60, stl 65.49, ser_lambda0 68.82, ser_layer9 68.72,
ser_last_layer 68.18.

Reference run: not run.
"""

from ml_collections import ConfigDict

from ser_jax.config.defaults import base_config
from ser_jax.config.presets import VIT_PORTS, with_preset

OWN = VIT_PORTS | {
    "ser": {"weight": 1.0, "temperature": 0.5, "share": 0.01},  # 24 images of 2048
}


def get_config(preset: str = "") -> ConfigDict:
    """MoCo v3, ImageNet, ViT-S/16."""
    config = base_config(objective="moco_v3")
    config.batch_size = 2048
    config.total_epochs = 100.0

    config.dataset.name = "imagenet2012"
    config.dataset.eval_split = "validation"

    # Crops of 8 to 100 % of the area. Theirs are bilinear: augment.resample.
    config.augment.recipe = "moco_v3"
    config.augment.image_size = 224

    config.model.variant = "S/16"  # 6 heads, as the SER paper; MoCo v3's own has 12
    config.model.pos_embed = "learned"  # as the SER paper; MoCo v3's own: "sincos"
    config.model.init_scheme = "ser"
    config.model.dtype = "bfloat16"

    config.objective.temperature = 0.2
    config.objective.momentum = 0.99
    config.objective.hidden_dim = 4096
    config.objective.output_dim = 256

    config.optimizer.base_lr = 3e-4  # 2.4e-3 at batch 2048
    config.optimizer.warmup_epochs = 10.0
    config.optimizer.weight_decay = 0.1

    config.knn.every_epochs = 10.0
    return with_preset(config, preset, early=3, last=12, own=OWN)
