"""EquiMod on BYOL, CIFAR-10, ResNet-18: `cifar10_resnet18.py:byol/equimod`.

    python -m ser_jax.main --config=configs/byol_equimod_cifar10.py --workdir=RUN

Time: not run. Expected: 91.57 % linear top-1 (EquiMod's repository; 90.44 without).

Reference run: not run.
"""

from ser_jax.config.presets import sibling

get_config = sibling(__file__, "cifar10_resnet18", "byol/equimod")
