#!/usr/bin/env bash
# Runs each job of the nightly workflow, one after another, and then lists those that failed. Needs root.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()
while read -r verb && read -r rung; do
	echo "--- make $verb"
	# shellcheck disable=SC2086 # a target and a variable
	REQUIRE=$rung "${MAKE:-make}" --no-print-directory $verb </dev/null || failed+=("$verb")
done < <(sed -nE 's/^ *(- verb|rung): //p' .github/workflows/nightly.yaml)
[ ${#failed[@]} = 0 ] || { printf 'failed: make %s\n' "${failed[@]}" >&2; exit 1; }
