#!/usr/bin/env bash
# Copies the CustomResourceDefinitions into the chart, which can only read files of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

cp crds/tokenbucket.yaml charts/tokenbucket/files/crds.yaml
