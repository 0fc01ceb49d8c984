"""SER on SimCLR on handwritten digits: the quickstart, `digits.py:simclr/ser`.

    python -m ser_jax.main --config=configs/digits_ser.py --workdir=/tmp/digits_ser

Expected: k-NN accuracy on the held-out digits of .97, as of SimCLR alone; the untrained
encoder has .70, raw pixels .983. Figures: docs/digits.md.

Reference run: benchmarks/reference/digits_simclr_ser.jsonl
"""

from ser_jax.config.presets import sibling

get_config = sibling(__file__, "digits", "simclr/ser")
