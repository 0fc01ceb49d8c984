#!/usr/bin/env bash
# Several processes on one machine, as on several hosts; for trying that out on CPUs.
#   bash launch/local_processes.sh NUM CONFIG WORKDIR [FLAGS...]
set -euo pipefail
usage="usage: local_processes.sh NUM CONFIG WORKDIR [FLAGS...]"
num=${1:?$usage}
config=${2:?$usage}
workdir=${3:?$usage}
port=${SER_JAX_PORT:-12355}
cd "$(dirname "$0")/.."
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' EXIT
for ((id = 0; id < num; id++)); do
  python -m ser_jax.main --coordinator="localhost:$port" --num_processes="$num" \
    --process_id="$id" --config="$config" --workdir="$workdir" "${@:4}" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
trap - EXIT
