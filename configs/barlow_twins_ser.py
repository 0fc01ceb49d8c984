"""SER on Barlow Twins on ImageNet: `barlow_twins.py` with preset `ser`.

    python -m ser_jax.main --config=configs/barlow_twins_ser.py --workdir=RUN

Time: not run. Expected: 0.68 points of linear top-1 above Barlow Twins (paper).

Reference run: not run.
"""

from ser_jax.config.presets import sibling

get_config = sibling(__file__, "barlow_twins", "ser")
