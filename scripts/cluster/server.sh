#!/usr/bin/env bash
# One vLLM server of a node; the first GPUs of the node serve, one each.
#
#   server.sh NUMBER FLAGS    NUMBER: among the servers of this node, from 0. FLAGS: of the run. It listens at a port
#                             behind PORT
set -euo pipefail

number=${1:-}
if ! [[ $number =~ ^[0-9]+$ && ${PORT:-} =~ ^[0-9]+$ ]]; then
	echo "error: NUMBER = '$number', PORT = '${PORT:-}': both are whole numbers. server.sh NUMBER FLAGS" >&2
	exit 2
fi
shift
flags=() options= # what only `train` can do is left out
for word in "$@"; do
	case $word in
	--compare* | --seeds* | --tune* | --equal* | --accept?changes | --overwrite) options=yes ;;
	--*) options= ;;
	esac
	if [ -z "$options" ]; then flags+=("$word"); fi
done
if [ "${CUDA_VISIBLE_DEVICES:-}" ]; then
	IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
	if ((number >= ${#gpus[@]})); then
		echo "error: NUMBER = '$number': this node has ${#gpus[@]} GPUs. Set SERVERS to less" >&2
		exit 2
	fi
	export CUDA_VISIBLE_DEVICES=${gpus[number]}
fi
exec backtrack-mrt serve --port $((PORT + 1 + number)) "${flags[@]}"
