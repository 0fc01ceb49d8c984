"""CIFAR-10 on two cores: what a comparison of SER with its controls takes in hours.

A ViT of width 64 and six blocks, 4 px patches at 32 px, batches of 128, two epochs: 20
minutes. Only what differs between presets says something here; no run of this length
says what a method reaches.

    python -m ser_jax.main --config=configs/cifar10_small.py:moco_v3/ser --workdir=RUN

before the slash: moco_v3, dino, barlow_twins, simclr or byol; after it: a preset of
`config/presets.py`, or nothing. Data: as `cifar10.py`. Settings are ours, not tuned.
Several presets and seeds in one command: docs/sweep.md.

Reference run: not run.
"""

from ml_collections import ConfigDict

from ser_jax.config.defaults import base_config
from ser_jax.config.presets import with_preset

HEADS = {
    "moco_v3": {"hidden_dim": 512, "output_dim": 128},
    "dino": {"hidden_dim": 512, "output_dim": 1024, "momentum": 0.99},
    "barlow_twins": {"hidden_dim": 512, "output_dim": 512},
    "simclr": {"hidden_dim": 512, "output_dim": 128, "temperature": 0.5},
    "byol": {"hidden_dim": 512, "output_dim": 128, "momentum": 0.99},
}

OWN = {
    "ser": {"share": 0.125, "projector_dim": 128},  # 16 images of 128
    "equimod": {
        "hidden_dim": 128,
        "output_dim": 128,
        "negatives": "cross",
        "joint_batch_norm": False,
    },
    "augself": {"hidden_dim": 128},
    "essl": {"crop_scale": (0.2, 1.0)},
    "stl": {"hidden_dim": 128, "output_dim": 128, "trans_dim": 64},
}


def get_config(base_and_preset: str = "moco_v3") -> ConfigDict:
    """A base, CIFAR-10, a small ViT."""
    base, _, preset = base_and_preset.partition("/")
    config = base_config(objective=base)
    config.batch_size = 128
    config.total_epochs = 2.0

    config.dataset.name = "cifar10"
    config.loader.num_threads = 2
    config.loader.num_workers = 0  # small pictures: threads do

    config.augment.recipe = "moco_v3"
    config.augment.image_size = 32
    config.augment.local_size = 16
    config.augment.local_crop_scale = (0.1, 0.5)

    config.model.variant = "Ti/4"
    config.model.width = 64
    config.model.depth = 6
    config.model.num_heads = 4
    config.model.dtype = "float32"  # CPUs are slower in bfloat16

    config.objective.update(HEADS[base])

    config.optimizer.base_lr = 2e-3
    config.optimizer.warmup_epochs = 0.2
    config.optimizer.weight_decay = 0.05

    config.log_every_steps = 10
    config.checkpoint.every_steps = 200
    config.knn.every_epochs = 0.5
    config.knn.max_train_examples = 5000
    config.knn.max_eval_examples = 2000
    return with_preset(config, preset, early=2, last=6, own=OWN)
