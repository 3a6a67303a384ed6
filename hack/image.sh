#!/usr/bin/env bash
# Builds the image with docker, podman or buildah, whichever is there, and names it as asked: image.sh TAG [OPTION...]
# The rest is handed to the builder. One commit gives one set of labels, whenever it is built.
set -euo pipefail
cd "$(dirname "$0")/.."

tag=$1
shift

builder=${BUILDER:-}
for candidate in docker podman buildah; do
	if [ -z "$builder" ] && command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
		builder=$candidate
	fi
done
if [ -z "$builder" ]; then
	echo "image: no docker, podman or buildah that works here; install one, or name it with BUILDER=" >&2
	exit 1
fi

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' operator/tokenbucket/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
if [ -n "$(git status --porcelain 2>/dev/null)" ]; then
	revision=$revision-dirty
fi

"$builder" build --tag "$tag" \
	--build-arg "VERSION=$version" \
	--build-arg "REVISION=$revision" \
	--build-arg "CREATED=$(date --utc --date="@$epoch" +%Y-%m-%dT%H:%M:%SZ)" \
	--build-arg "SOURCE_DATE_EPOCH=$epoch" \
	"$@" .
