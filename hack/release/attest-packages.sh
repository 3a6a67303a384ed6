#!/usr/bin/env bash
# Attests the package list of each architecture of an image, with the list in the image:
# attest-packages.sh REPOSITORY@DIGEST
set -euo pipefail

image=$1
folder=$(mktemp --directory)
trap 'rm -rf "$folder"' EXIT

docker buildx imagetools inspect --raw "$image" |
	jq --raw-output '.manifests[] | select(.platform.os == "linux") | "\(.platform.architecture) \(.digest)"' \
		>"$folder/architectures"
test -s "$folder/architectures"
while read -r architecture digest; do
	container=$(docker create --platform "linux/$architecture" "$image")
	docker cp "$container:/usr/share/sbom/tokenbucket.spdx.json" "$folder/$architecture.spdx.json"
	docker rm "$container"
	cosign attest --yes --type spdxjson --predicate "$folder/$architecture.spdx.json" "${image%@*}@$digest"
done <"$folder/architectures"
