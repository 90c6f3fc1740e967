#!/usr/bin/env bash
# Wait until all servers answer.
#
#   wait_for.sh PROCESS ADDRESS...    PROCESS: when it has ended, they will not answer any more
set -euo pipefail

if (($# < 2)); then
	echo "error: no server to wait for. wait_for.sh PROCESS ADDRESS..." >&2
	exit 2
fi
process=$1
shift
for address in "$@"; do
	until curl --silent --fail --max-time 5 --noproxy '*' "$address/health" >/dev/null; do
		if ! kill -0 "$process" 2>/dev/null; then
			echo "the servers ended before they answered" >&2
			exit 1
		fi
		sleep 2
	done
done
