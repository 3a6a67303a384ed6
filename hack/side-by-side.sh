#!/usr/bin/env bash
# Runs make targets at the same time: side-by-side.sh TARGET...
# Each has a lower priority than the one before. The output of all but the first follows at the end. Fails if one fails.
set -uo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
jobs=()
trap 'kill "${jobs[@]}" 2>/dev/null; rm -rf "$folder"' EXIT
for ((number = 2; number <= $#; number++)); do
	nice -n $((5 * (number - 1))) "${MAKE:-make}" --no-print-directory "${!number}" >"$folder/${!number}" 2>&1 &
	jobs+=($!)
done

status=0
"${MAKE:-make}" --no-print-directory "$1" || status=$?
for ((number = 2; number <= $#; number++)); do
	wait "${jobs[number - 2]}" || status=$?
	echo "--- make ${!number}"
	cat "$folder/${!number}"
done
exit "$status"
