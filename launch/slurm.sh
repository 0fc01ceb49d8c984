#!/usr/bin/env bash
# sbatch launch/slurm.sh CONFIG WORKDIR [FLAGS...]
# One process a GPU; JAX finds coordinator and ranks in SLURM's environment. SIGTERM two
# minutes before the time limit makes the run save and stop, with exit status 75; submit
# again to go on.
#SBATCH --job-name=ser_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
set -euo pipefail
config=${1:?usage: slurm.sh CONFIG WORKDIR [FLAGS...]}
workdir=${2:?usage: slurm.sh CONFIG WORKDIR [FLAGS...]}
srun python -m ser_jax.main --distributed --config="$config" --workdir="$workdir" "${@:3}"
