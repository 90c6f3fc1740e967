#!/usr/bin/env bash
# One process of a training, started by srun: `accelerate launch` would end it before it has saved a checkpoint.
#
#   rank.sh FLAGS    FLAGS: of the run. MASTER_ADDR, MASTER_PORT; RANKS of this node; SERVERS: GPUs that others have
set -euo pipefail

export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=$RANKS
gpus=${CUDA_VISIBLE_DEVICES:-}
if [ "$gpus" ]; then # behind those that serve
	IFS=, read -ra gpus <<<"$gpus"
	if ((SERVERS + RANKS > ${#gpus[@]})); then
		echo "error: SERVERS = '$SERVERS', RANKS = '$RANKS': this node has ${#gpus[@]} GPUs. Set them to less" >&2
		exit 2
	fi
	CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${gpus[*]:SERVERS}")
	export CUDA_VISIBLE_DEVICES
fi
exec backtrack-mrt train "$@"
