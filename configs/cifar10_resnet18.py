"""Any base, with any add-on, on CIFAR-10 with a ResNet-18: EquiMod's rows.

CIFAR stem, 800 epochs, batch 512, LARS, as EquiMod's authors train SimCLR and BYOL
(arXiv 2211.01244). For the other bases the optimizer is BYOL's and not published.

    python -m ser_jax.main --workdir=RUN \
        --config=configs/cifar10_resnet18.py:simclr/equimod

before the slash: moco_v3, dino, barlow_twins, simclr or byol; after it: a preset of
`config/presets.py`, or nothing; layers are the four stages. CIFAR-100:
`--config.dataset.name=cifar100`. Time: not run. Linear top-1 of EquiMod's repository:
simclr 90.96 %, simclr/equimod 92.79, byol 90.44, byol/equimod 91.57; of solo-learn's
after 1000 epochs: moco_v3 93.10, byol 92.58, barlow_twins 92.10, simclr 90.74, dino
89.52.

Reference run: not run.
"""

from ml_collections import ConfigDict

from ser_jax.config.defaults import base_config
from ser_jax.config.presets import with_preset

HEADS = {
    "moco_v3": {
        "hidden_dim": 2048,
        "output_dim": 256,
        "num_projector_layers": 2,
        "predictor_last_norm": False,
    },
    "dino": {"output_dim": 4096},
    "barlow_twins": {"hidden_dim": 2048, "output_dim": 2048},
    "simclr": {
        "hidden_dim": 2048,
        "output_dim": 128,
        "temperature": 0.5,
        "reduction": "mean",
    },
    "byol": {
        "hidden_dim": 4096,
        "output_dim": 256,
        "momentum": 0.996,
        "joint_batch_norm": True,
    },
}


def get_config(base_and_preset: str = "simclr") -> ConfigDict:
    """A base, CIFAR-10, ResNet-18."""
    base, _, preset = base_and_preset.partition("/")
    config = base_config(objective=base)
    config.batch_size = 512
    config.total_epochs = 800.0

    config.dataset.name = "cifar10"
    config.loader.num_threads = 8
    config.loader.num_workers = 0  # small pictures: threads do

    config.augment.recipe = "simclr_cifar10" if base == "simclr" else "byol"
    config.augment.image_size = 32
    config.augment.local_size = 16
    config.augment.crop_scale = (0.2, 1.0)
    config.augment.local_crop_scale = (0.1, 0.5)

    config.model.variant = "resnet18"
    config.model.small_images = True
    config.model.freeze_patch_embed = False

    config.objective.update(HEADS[base])

    config.optimizer.name = "lars"
    config.optimizer.lars_form = "inner"
    config.optimizer.base_lr = 4.0 if base == "simclr" else 2.0
    config.optimizer.lr_reference_batch = 512
    config.optimizer.end_lr = 1e-8
    config.optimizer.warmup_epochs = 10.0
    config.optimizer.weight_decay = 1e-6
    config.optimizer.decay_mask = "no_1d"

    simclr = base == "simclr"
    own = {
        "ser": {"share": 0.05, "projector_dim": 256},
        "equimod": {
            "standardize": "official_cifar10" if simclr else "official_cifar10_byol",
        },
        "essl": {
            "crop_scale": (0.2, 1.0),
            "hidden_dim": 2048,
            "bottleneck_dim": 2048,
            "weight": 8.0 if base == "barlow_twins" else 0.4,
            "num_hidden_layers": 1,  # 512-2048-2048-4, as on CIFAR
            "last_relu": simclr,
        },
    }
    return with_preset(
        config, preset, early=2, last=4, early_pool="mean_patch", own=own
    )
