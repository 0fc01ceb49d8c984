"""MoCo v3 on CIFAR-10: the baseline of `cifar10_moco_v3_ser.py`.

ViT-Ti with 4 px patches at 32 px (64 tokens), sized for one GPU.

    python -m ser_jax.main --config=configs/cifar10_moco_v3.py --workdir=DIR

Needs TFDS `cifar10`, or a folder of images prepared under another name:

    python -m ser_jax.data.prepare --cifar_archive=cifar-10-python.tar.gz
    python -m ser_jax.data.prepare --folder=IMAGES --name=my_cifar
    ... --config.dataset.name=my_cifar

Expected k-NN accuracy: not run to the end yet. For scale: ResNet-18, 1000 epochs,
linear 93.1 % (solo-learn's README). Short CPU runs: benchmarks/cpu.md.
"""

from ml_collections import ConfigDict

from ser_jax.config import base_config


def get_config() -> ConfigDict:
    """MoCo v3, CIFAR-10."""
    config = base_config(objective="moco_v3", regularizer="none")
    config.batch_size = 512
    config.total_epochs = 200.0

    config.dataset.name = "cifar10"
    config.loader.num_threads = 8

    config.augment.recipe = "moco_v3"
    config.augment.image_size = 32

    config.model.variant = "Ti/4"

    config.objective.hidden_dim = 2048
    config.objective.output_dim = 256

    config.optimizer.base_lr = 3e-4
    config.optimizer.warmup_epochs = 20.0
    return config
