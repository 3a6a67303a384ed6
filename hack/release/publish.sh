#!/usr/bin/env bash
# Publishes the release of a tag with the files of 'make plugin-archive': publish.sh TAG
set -euo pipefail
cd "$(dirname "$0")/../.."

tag=$1

gh release view "$tag" >/dev/null 2>&1 || gh release create "$tag" --verify-tag --notes "See CHANGELOG.md."
gh release upload "$tag" dist/kubectl-tokenbucket.tar.gz dist/tokenbucket.yaml --clobber
