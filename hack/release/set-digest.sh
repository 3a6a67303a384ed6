#!/usr/bin/env bash
# Makes the chart use the image by its digest: set-digest.sh sha256:... [CHART]
set -euo pipefail
cd "$(dirname "$0")/../.."

digest=$1
chart=${2:-charts/tokenbucket}/Chart.yaml

if ! [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
	echo "set-digest: $digest: is no digest; use sha256: and 64 hexadecimal digits" >&2
	exit 1
fi
sed -i -e "s|^\(  tokenbucket.dev/image-digest: \).*|\1$digest|" \
	-e "s|^\(      image: [^:@]*\)[:@].*|\1@$digest|" "$chart"
if [ "$(grep -c "$digest" "$chart")" != 2 ]; then
	echo "set-digest: $chart: has no annotation tokenbucket.dev/image-digest, or no image" >&2
	exit 1
fi
