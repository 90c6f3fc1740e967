#!/usr/bin/env bash
# One vLLM server of a node; the first GPUs of the node serve, one each.
#
#   server.sh NUMBER FLAGS    NUMBER: among the servers of this node, from 0. FLAGS: of the run. It listens at a port
#                             behind PORT
set -euo pipefail

number=$1
shift
if [ "${CUDA_VISIBLE_DEVICES:-}" ]; then
	IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
	export CUDA_VISIBLE_DEVICES=${gpus[number]}
fi
exec backtrack-mrt serve --port $((PORT + 1 + number)) "$@"
