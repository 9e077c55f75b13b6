#!/bin/bash
# The driver as a job of its own: it holds the scheduler and submits, watches and replaces worker jobs.
#   sbatch cluster/driver.sh /scratch/me/run my-site.toml [further options of diffractory simulate]
# It needs a long walltime and little else; worker jobs may be much shorter. Killed or timed out: submit it
# again, finished partitions are kept. Ten minutes before its end SLURM tells it to stop, so that it cancels
# its workers' jobs itself.
#SBATCH --job-name=diffractory-driver
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=2-00:00:00
#SBATCH --signal=B:TERM@600
#SBATCH --output=diffractory-driver-%j.log
set -euo pipefail
run=${1:?run folder}
site=${2:?site file}
shift 2
# Each worker is a connection, or two.
ulimit -n "$(ulimit -Hn)"
# exec: signals of SLURM reach diffractory and not a shell in between.
exec diffractory simulate "$run" --cluster slurm --site "$site" "$@"
