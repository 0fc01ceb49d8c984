"""SER on MoCo v3 on handwritten digits: the quickstart, `digits.py:moco_v3/ser`.

    python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits_ser

Expected: the loss falls, and k-NN accuracy on the held-out digits ends above that of
the untrained encoder. Figures of a run: benchmarks/cpu.md.
"""

from ser_jax.config.presets import sibling

get_config = sibling(__file__, "digits", "moco_v3/ser")
