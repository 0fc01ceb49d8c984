"""SER on MoCo v3 on handwritten digits: the quickstart.

Real 8 x 8 pictures from scikit-learn, enlarged to 24 px; a ViT small enough for a
laptop. It shows every part of the program at work and is no benchmark.

    python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits_ser

Expected: the loss falls, and k-NN accuracy on the held-out digits ends above that of
the untrained encoder. Figures of a run: benchmarks/cpu.md.
"""

from ml_collections import ConfigDict

from ser_jax.config import base_config


def get_config() -> ConfigDict:
    """SER on MoCo v3, digits, a small ViT."""
    config = base_config(objective="moco_v3", regularizer="ser")
    config.batch_size = 128
    config.total_epochs = 22.0

    config.dataset.name = "digits"
    config.loader.num_threads = 2

    config.augment.recipe = "digits"
    config.augment.image_size = 24
    config.augment.flip_prob = 0.0  # a mirrored 2 is no digit

    config.model.variant = "Ti/4"
    config.model.width = 64
    config.model.depth = 4
    config.model.num_heads = 4
    config.model.dtype = "float32"  # CPUs are slower in bfloat16
    config.model.scan = False  # and in loops

    config.objective.hidden_dim = 256
    config.objective.output_dim = 64

    config.regularizer.layer = 2
    config.regularizer.share = 0.125
    config.regularizer.projector_dim = 64

    config.optimizer.base_lr = 1e-3
    config.optimizer.warmup_epochs = 2.0
    config.optimizer.weight_decay = 0.05

    config.log_every_steps = 10
    config.checkpoint.every_steps = 100
    config.knn.every_epochs = 5.0
    return config
