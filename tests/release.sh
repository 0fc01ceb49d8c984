#!/usr/bin/env bash
# What is tried before a release, beside the suite: every pair of methods and preset
# trained, and on 1, 2, 4, 8, 16 and 64 devices, and cut into parts; a job of SLURM's.
set -euo pipefail
cd "$(dirname "$0")/.."
pytest --release tests/methods/test_matrix.py tests/config/test_configs.py \
  tests/methods/test_accumulate.py tests/train/test_many_devices.py \
  tests/launch/test_slurm.py
