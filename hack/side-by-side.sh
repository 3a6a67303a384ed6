#!/usr/bin/env bash
# Runs make targets at the same time: side-by-side.sh "TARGET..." BACKGROUND-TARGET
# The targets of the first argument run one after the other, until one fails. The background target has the lowest
# priority, and its output follows at the end. Fails if one of them fails.
set -uo pipefail
cd "$(dirname "$0")/.."

output=$(mktemp)
nice -n 19 "${MAKE:-make}" --no-print-directory "$2" >"$output" 2>&1 &
background=$!
trap 'kill "$background" 2>/dev/null; rm -f "$output"' EXIT

status=0
for target in $1; do
	"${MAKE:-make}" --no-print-directory "$target" || { status=$? && break; }
done
wait "$background" || status=$?
echo "--- make $2"
cat "$output"
exit "$status"
