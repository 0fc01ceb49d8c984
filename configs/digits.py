"""Any base, with any add-on, on handwritten digits: a laptop's comparison.

Real 8 x 8 pictures from scikit-learn, enlarged to 16 px; a ViT with four blocks on a
grid of 4 x 4. It shows every part of the program at work and is no benchmark.

    python -m ser_jax.main --config=configs/digits.py:dino/ser --workdir=RUN

before the slash: moco_v3, dino, barlow_twins, simclr or byol; after it: a preset of
`config/presets.py`, or nothing. All bases: docs/digits.md.

Reference run: not run.
"""

from ml_collections import ConfigDict

from ser_jax.config.defaults import base_config
from ser_jax.config.presets import with_preset

HEADS = {
    "moco_v3": {"hidden_dim": 256, "output_dim": 64},
    "dino": {
        "hidden_dim": 256,
        "bottleneck_dim": 64,
        "output_dim": 256,
        "momentum": 0.99,
        "head_batch_norm": True,  # without it the teacher's output becomes uniform
    },
    "barlow_twins": {"hidden_dim": 256, "output_dim": 256},
    "simclr": {"hidden_dim": 256, "output_dim": 64, "temperature": 0.5},
    "byol": {"hidden_dim": 256, "output_dim": 64, "momentum": 0.97},
}

OWN = {
    "ser": {"share": 0.125, "projector_dim": 64},
    "equimod": {
        "hidden_dim": 64,
        "output_dim": 64,
        "negatives": "cross",
        "joint_batch_norm": False,
    },
    "augself": {"hidden_dim": 64},
    "essl": {"crop_scale": (0.3, 1.0)},  # of 8 px, E-SSL's own would leave 2
    "stl": {"hidden_dim": 64, "output_dim": 64, "trans_dim": 32},
}


def get_config(base_and_preset: str = "simclr") -> ConfigDict:
    """A base, digits, a small ViT."""
    base, _, preset = base_and_preset.partition("/")
    config = base_config(objective=base)
    config.batch_size = 128
    config.total_epochs = 100.0

    config.dataset.name = "digits"
    config.loader.num_threads = 2
    config.loader.num_workers = 0  # small pictures: threads do

    config.augment.recipe = "digits"
    config.augment.image_size = 16
    config.augment.local_size = 8
    config.augment.flip_prob = 0.0  # a mirrored 2 is no digit

    config.model.variant = "Ti/4"
    config.model.width = 64
    config.model.depth = 4
    config.model.num_heads = 4
    config.model.freeze_patch_embed = False
    config.model.dtype = "float32"  # CPUs are slower in bfloat16

    config.objective.update(HEADS[base])

    config.optimizer.base_lr = 4e-3  # chosen for SimCLR; other bases: not tried
    config.optimizer.warmup_epochs = 2.0
    config.optimizer.weight_decay = 0.05

    config.log_every_steps = 10
    config.checkpoint.every_steps = 500
    config.knn.every_epochs = 10.0
    # A quarter of the depth, as block 3 of 12.
    return with_preset(config, preset, early=1, last=4, own=OWN)
