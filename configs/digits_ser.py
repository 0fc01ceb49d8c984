"""SER on SimCLR on handwritten digits: the quickstart, `digits.py:simclr/ser`.

    python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits_ser

Expected: k-NN accuracy on the held-out digits of .98, by five seeds; the untrained
encoder has .66, raw pixels .983. Figures: docs/digits.md.
"""

from ser_jax.config.presets import sibling

get_config = sibling(__file__, "digits", "simclr/ser")
