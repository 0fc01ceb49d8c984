"""SER on DINO on ImageNet: `dino.py` with preset `ser`.

    python -m ser_jax.main --config=configs/dino_ser.py --workdir=/runs/dino_ser

Any other data set goes in by a flag, `--config.dataset.name=NAME`. Time: not run.
Expected: 0.26 points of linear top-1 above DINO (paper).

Reference run: not run.
"""

from ser_jax.config.presets import sibling

get_config = sibling(__file__, "dino", "ser")
