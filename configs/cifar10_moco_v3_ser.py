"""SER on MoCo v3 on CIFAR-10: `cifar10_moco_v3.py` plus the equivariance term.

    python -m ser_jax.main --config=configs/cifar10_moco_v3_ser.py --workdir=DIR

Data as there: TFDS `cifar10`, or a prepared folder by `--config.dataset.name=NAME`.
Expected k-NN accuracy: not run to the end yet. Short CPU runs: benchmarks/cpu.md.
"""

from ml_collections import ConfigDict

from ser_jax.config import base_config


def get_config() -> ConfigDict:
    """SER on MoCo v3, CIFAR-10."""
    config = base_config(objective="moco_v3", regularizer="ser")
    config.batch_size = 512
    config.total_epochs = 200.0

    config.dataset.name = "cifar10"
    config.loader.num_threads = 8

    config.augment.recipe = "moco_v3"
    config.augment.image_size = 32

    config.model.variant = "Ti/4"

    config.objective.hidden_dim = 2048
    config.objective.output_dim = 256

    config.regularizer.layer = 3
    config.regularizer.share = 0.05  # 32 images of 512: 1 % would leave 8

    config.optimizer.base_lr = 3e-4
    config.optimizer.warmup_epochs = 20.0
    return config
