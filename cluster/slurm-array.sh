#!/bin/bash
# One task a partition of a planned run. `diffractory status RUN --json` tells how many there are:
#   sbatch --array=0-80 cluster/slurm-array.sh /scratch/me/run
#SBATCH --job-name=diffractory
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=01:00:00
set -euo pipefail
exec diffractory simulate "$1" --partition "$SLURM_ARRAY_TASK_ID"
