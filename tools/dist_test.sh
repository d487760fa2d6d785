#!/usr/bin/env bash
# Test with a process for each GPU of this machine, or, where it has none, with so many processes on its CPU:
#
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
#
# On several machines run it on each, with NNODES, NODE_RANK (0, 1, …), MASTER_ADDR (of machine 0) and PORT set.
set -euo pipefail
usage='usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]'
CONFIG=${1:?$usage}
CHECKPOINT=${2:?$usage}
GPUS=${3:?$usage}
HERE=$(dirname "$0")

PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}" exec torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$HERE/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
