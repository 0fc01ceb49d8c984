"""Any base, with any add-on, on CIFAR-10 with a ViT: a comparison for one GPU.

ViT-Ti with 4 px patches at 32 px (64 tokens), AdamW, 200 epochs.

    python -m ser_jax.main --config=configs/cifar10.py:moco_v3/ser --workdir=RUN

before the slash: moco_v3, dino, barlow_twins, simclr or byol; after it: a preset of
`config/presets.py`, or nothing. Needs TFDS `cifar10`, or a folder of images prepared
under another name:

    python -m ser_jax.data.prepare --cifar_archive=cifar-10-python.tar.gz
    python -m ser_jax.data.prepare --folder=IMAGES --name=my_cifar
    ... --config.dataset.name=my_cifar

Settings are ours, not tuned. Expected k-NN accuracy: not run to the end yet. Short CPU
runs: benchmarks/cpu.md. ResNet-18: cifar10_resnet18.py.

Reference run: not run.
"""

from ml_collections import ConfigDict

from ser_jax.config.defaults import base_config
from ser_jax.config.presets import with_preset

HEADS = {
    "moco_v3": {"hidden_dim": 2048, "output_dim": 256},
    "dino": {"output_dim": 4096, "momentum": 0.99, "norm_last_layer": False},
    "barlow_twins": {"hidden_dim": 2048, "output_dim": 2048},
    "simclr": {"hidden_dim": 2048, "output_dim": 128, "temperature": 0.2},
    "byol": {"hidden_dim": 4096, "output_dim": 256, "momentum": 0.99},
}

OWN = {
    "ser": {"share": 0.05},  # 32 images of 512: 1 % would leave 8
    "equimod": {"hidden_dim": 512, "negatives": "cross", "joint_batch_norm": False},
    "essl": {"crop_scale": (0.2, 1.0)},
}


def get_config(base_and_preset: str = "moco_v3") -> ConfigDict:
    """A base, CIFAR-10, ViT-Ti/4."""
    base, _, preset = base_and_preset.partition("/")
    config = base_config(objective=base)
    config.batch_size = 512
    config.total_epochs = 200.0

    config.dataset.name = "cifar10"
    config.loader.num_threads = 8
    config.loader.num_workers = 0  # small pictures: threads do

    config.augment.recipe = "moco_v3"
    config.augment.image_size = 32
    config.augment.local_size = 16
    config.augment.local_crop_scale = (0.1, 0.5)

    config.model.variant = "Ti/4"

    config.objective.update(HEADS[base])

    config.optimizer.base_lr = 3e-4
    config.optimizer.warmup_epochs = 20.0
    return with_preset(config, preset, early=3, last=12, own=OWN)
