#!/usr/bin/env bash
# Pushes and signs the chart of 'make chart-archive': push-chart.sh REGISTRY VERSION
set -euo pipefail
cd "$(dirname "$0")/../.."

registry=$1 version=$2

digest=$(helm push "dist/tokenbucket-$version.tgz" "oci://$registry" 2>&1 | tee /dev/stderr | sed -n 's/^Digest: //p')
test -n "$digest"
cosign sign --yes "$registry/tokenbucket@$digest"
