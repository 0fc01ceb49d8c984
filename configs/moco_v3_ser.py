"""SER on MoCo v3 on ImageNet, the paper's main result: `moco_v3.py` with preset `ser`.

Differs from the base in the regularizer alone, which also moves the class token's entry
to its layer.

    python -m ser_jax.main --config=configs/moco_v3_ser.py --workdir=/runs/moco_v3_ser

Time: not run. Expected: 69.28 % linear top-1 (paper). FLOPs over the base:
docs/flops.md.

Reference run: not run.
"""

from ser_jax.config.presets import sibling

get_config = sibling(__file__, "moco_v3", "ser")
