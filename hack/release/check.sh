#!/usr/bin/env bash
# Fails unless a tag, the program, the chart and the changelog name one version: check.sh v1.2.3
set -euo pipefail
cd "$(dirname "$0")/../.."

version=${1#v}

# has FILE START-OF-LINE
has() {
	if ! awk -v start="$2" 'index($0, start) == 1 { found = 1 } END { exit !found }' "$1"; then
		echo "$1: no line that starts with: $2" >&2
		exit 1
	fi
}

has operator/tokenbucket/__init__.py "__version__ = \"$version\""
has charts/tokenbucket/Chart.yaml "version: $version"
has charts/tokenbucket/Chart.yaml "appVersion: \"$version\""
has CHANGELOG.md "## [$version]"
