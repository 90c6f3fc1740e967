#!/usr/bin/env bash
# How many GPUs of a node serve, and how many train: half of them each, or as the environment says.
#
#   shares.sh GPUS    GPUS: of the node; empty if that is not known. In the environment: SERVERS, RANKS; PORT. It prints
#                     both numbers. What cannot be is one line and exit code 2
set -euo pipefail

check() { # NAME VALUE LEAST MOST REMEDY
	if ! [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] || (($2 < $3 || $2 > $4)); then
		echo "error: $1 = '$2': not a whole number from $3 to $4. $5" >&2
		exit 2
	fi
}

gpus=${1:-}
if [ "$gpus" ]; then check "GPUs of a node" "$gpus" 2 999 "Some serve and others train: ask for more, or train without a server."; fi
most=${gpus:-999}
servers=${SERVERS:-$((${gpus:-2} / 2))}
check SERVERS "$servers" 1 $((most - 1)) "So many GPUs of a node serve; one at least must train."
ranks=${RANKS:-$((${gpus:-$((servers + 1))} - servers))}
check RANKS "$ranks" 1 $((most - servers)) "So many GPUs of a node train, beside those that serve."
check PORT "${PORT:-}" 1 $((65535 - servers)) "It is the trainer's; those behind it are the servers'."
echo "$servers $ranks"
