#!/usr/bin/env bash
# Runs make targets in a clone of HEAD with empty caches, as on a new machine: fresh-run.sh TARGET...
# Packages of Debian that are installed stay installed. The clone and the caches are in a new folder below TMPDIR.
set -euo pipefail
cd "$(dirname "$0")/.."

place=$(mktemp -d -t tokenbucket-fresh-XXXXXX)
end() {
	chmod -R u+w "$place" # Go makes its modules read-only
	rm -rf "$place"
}
trap end EXIT

mkdir "$place/home" "$place/cache"
git clone --quiet . "$place/clone"

# Go's proxy and pip's index may be set in files of the home that is left.
export GOPROXY=${GOPROXY:-$(go env GOPROXY 2>/dev/null || true)}
unset GOCACHE GOMODCACHE GOPATH PIP_CACHE_DIR TOKENBUCKET_E2E_CACHE
export HOME=$place/home XDG_CACHE_HOME=$place/cache XDG_CONFIG_HOME=$place/home/.config GOENV=off
[ -n "$GOPROXY" ] || unset GOPROXY

make -C "$place/clone" "$@"
