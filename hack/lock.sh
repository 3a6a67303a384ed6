#!/usr/bin/env bash
# Writes the exact versions of everything a checkout needs, resolved anew in an empty environment, to a file.
set -euo pipefail

lock=$1
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT

/usr/bin/python3 -m venv "$environment"
"$environment/bin/pip" install --quiet --disable-pip-version-check --editable '.[dev,kubernetes]'
{
	echo "# Exact versions of everything in .venv. Written by 'make lock'; read by 'make setup'."
	"$environment/bin/pip" freeze --exclude-editable
} >"$lock"
echo "$lock: $(grep -vc '^#' "$lock") packages"
