#!/usr/bin/env bash
# What is tried before a release, beside the suite: every pair of methods and preset
# trained, and on one, two, four and eight devices.
set -euo pipefail
cd "$(dirname "$0")/.."
pytest --release tests/methods/test_matrix.py tests/config/test_configs.py
