#!/usr/bin/env bash
# Train with a process for each GPU of this machine, or, where it has none, with so many processes on its CPU:
#
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
#
# On several machines run it on each, with NNODES, NODE_RANK (0, 1, …), MASTER_ADDR (of machine 0) and PORT set.
set -euo pipefail
usage='usage: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]'
CONFIG=${1:?$usage}
GPUS=${2:?$usage}
HERE=$(dirname "$0")

PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}" exec torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$HERE/train.py" "$CONFIG" --launcher pytorch "${@:3}"
