#!/usr/bin/env bash
# Runs on one worker of a Cloud TPU pod slice; start it on all of them, for example
#   gcloud compute tpus tpu-vm ssh NAME --worker=all --command="cd ser_jax && bash launch/tpu_pod.sh CONFIG WORKDIR"
# WORKDIR and the data directory are on a disk that every worker mounts.
set -euo pipefail
config=${1:?usage: tpu_pod.sh CONFIG WORKDIR [FLAGS...]}
workdir=${2:?usage: tpu_pod.sh CONFIG WORKDIR [FLAGS...]}
cd "$(dirname "$0")/.."
exec python -m ser_jax.main --distributed --config="$config" --workdir="$workdir" "${@:3}"
