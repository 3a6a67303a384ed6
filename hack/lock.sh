#!/usr/bin/env bash
# Writes the exact versions of everything a checkout needs, resolved in an empty environment, to a file, and
# those of them that the image needs to image.txt beside it: what is tested is what is shipped.
set -euo pipefail

environments=$(mktemp -d)
trap 'rm -rf "$environments"' EXIT

# lock FILE EXTRAS COMMENT [OPTION...]
lock() {
	local file=$1 extras=$2 comment=$3 environment=$environments/$2
	shift 3
	/usr/bin/python3 -m venv "$environment"
	"$environment/bin/pip" install --quiet --disable-pip-version-check "$@" --editable ".[$extras]"
	{
		echo "# $comment"
		"$environment/bin/pip" freeze --exclude-editable
	} >"$environments/lock"
	cat "$environments/lock" >"$file"
	echo "$file: $(grep -vc '^#' "$file") packages"
}

lock "$1" dev,kubernetes,cli "Exact versions of everything in .venv. Written by 'make lock'; read by 'make setup'."
lock "$(dirname "$1")/plots.txt" plots \
	"Exact versions of everything that draws plots. Written by 'make lock'; read by 'make bench-plots'."
lock "$(dirname "$1")/docs.txt" docs \
	"Exact versions of everything that builds the documentation. Written by 'make lock'; read by 'make docs'."
lock "$(dirname "$1")/cli.txt" cli \
	"Exact versions of everything that the kubectl plugin needs. Written by 'make lock'; read by hack/release/krew/build.py." \
	--constraint "$1"
lock "$(dirname "$1")/image.txt" kubernetes \
	"Exact versions of everything in the image. Written by 'make lock'; read by the Dockerfile." --constraint "$1"
