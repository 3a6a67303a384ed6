#!/usr/bin/env bash
# Runs make targets at the same time: side-by-side.sh TARGET BACKGROUND-TARGET...
# The background targets run one after the other at the lowest priority, until one fails. Their output follows at the
# end. Fails if one of them fails.
set -uo pipefail
cd "$(dirname "$0")/.."

output=$(mktemp)
nice -n 19 "${MAKE:-make}" --no-print-directory "${@:2}" >"$output" 2>&1 &
background=$!
trap 'kill "$background" 2>/dev/null; rm -f "$output"' EXIT

status=0
"${MAKE:-make}" --no-print-directory "$1" || status=$?
wait "$background" || status=$?
echo "--- make ${*:2}"
cat "$output"
exit "$status"
