#!/usr/bin/env bash
# sbatch [--nodes=N] launch/slurm.sh CONFIG WORKDIR [FLAGS...]
# One process a GPU; JAX finds coordinator and ranks in SLURM's environment. Two minutes
# before the time limit, and at scancel --signal=TERM, the run saves, and SLURM queues the
# job again to go on; scancel alone ends it for good. docs/slurm.md.
# 24 CPUs a task feed a GPU such as the H100 (docs/scaling.md); where a node has fewer:
# sbatch --cpus-per-task=12. In a container (pyxis): CONTAINER=IMAGE sbatch ..., with
# CONTAINER_MOUNTS=DATA:DATA,RUNS:RUNS.
#SBATCH --job-name=ser_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=24
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail
usage="usage: sbatch [--nodes=N] launch/slurm.sh CONFIG WORKDIR [FLAGS...]"
config=${1:?$usage}
workdir=${2:?$usage}
again=$PWD/$SLURM_JOB_NAME-$SLURM_JOB_ID.again
rm -f "$again"
step=(--kill-on-bad-exit=1) # a dead rank leaves the others waiting
if [[ ${SLURM_CPUS_PER_TASK:-} ]]; then
  step+=(--cpus-per-task="$SLURM_CPUS_PER_TASK") # srun no longer takes it from the job
fi
if [[ ${CONTAINER:-} ]]; then
  step+=(--container-image="$CONTAINER" --container-workdir="$PWD"
    --container-mounts="$PWD:$PWD${CONTAINER_MOUNTS:+,$CONTAINER_MOUNTS}")
fi
# Of several statuses srun gives the highest, and at the first it kills the other ranks,
# though they may still be saving: 75, "run me again", goes round it. Signals are Python's
# to act on. (scancel's ends this script, too, so that nothing is queued.)
# shellcheck disable=SC2016
rank='trap : TERM HUP USR1; again=$1; shift
"$@" || { status=$?; [ $status = 75 ] || exit $status; touch "$again"; }'
srun "${step[@]}" bash -c "$rank" rank "$again" \
  python -m ser_jax.main --config="$config" --workdir="$workdir" "${@:3}"
if [[ -e $again ]]; then
  rm "$again"
  scontrol requeue "$SLURM_JOB_ID"
fi
