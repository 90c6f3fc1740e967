#!/usr/bin/env bash
# What `train` would refuse, told before anything is started: its plan is printed. A mistake is exit code 2; a plan that
# does not fit is none.
#
#   check.sh PROCESSES FLAGS    FLAGS: of `backtrack-mrt train`. PORT
set -euo pipefail

export WORLD_SIZE=$1 RANK=0 LOCAL_RANK=0 MASTER_ADDR=localhost MASTER_PORT=$PORT
shift
code=0
backtrack-mrt train "$@" --dry-run || code=$?
if [ "$code" = 2 ]; then exit 2; fi
