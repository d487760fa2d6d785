#!/usr/bin/env bash
# Train under slurm, with a process for each of GPUS (8) GPUs, GPUS_PER_NODE (8) on a machine, CPUS_PER_TASK (5) each:
#
#   GPUS=16 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
#
# SRUN_ARGS: further arguments of srun, parted by spaces. MASTER_PORT (29500) is set where jobs share a machine.
set -euo pipefail
usage='usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]'
PARTITION=${1:?$usage}
JOB_NAME=${2:?$usage}
CONFIG=${3:?$usage}
HERE=$(dirname "$0")

# shellcheck disable=SC2086
PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}" exec srun \
    --partition="$PARTITION" \
    --job-name="$JOB_NAME" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --gres="gpu:${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$HERE/train.py" "$CONFIG" --launcher slurm "${@:4}"
