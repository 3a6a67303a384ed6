#!/usr/bin/env bash
# Runs tests/e2e on a kind cluster, which it makes and deletes: e2e-kind.sh [ARGUMENT OF PYTEST...]
# Needs docker, helm, kind and kubectl, a registry that has kind's nodes, and .venv ('make setup').
# KIND_CLUSTER names the cluster; KEEP=1 leaves it up, for a look or another run.
set -euo pipefail
cd "$(dirname "$0")/.."

cluster=${KIND_CLUSTER:-tokenbucket-e2e}
# As tests/e2e calls them, which pulls neither.
image=localhost/tokenbucket:test
client=localhost/client:1
unset TOKENBUCKET_E2E_IMAGE TOKENBUCKET_E2E_CLIENT_IMAGE

for tool in docker helm kind kubectl; do
	if ! command -v "$tool" >/dev/null; then
		echo "e2e-kind: $tool: not installed" >&2
		exit 1
	fi
done

state=$(mktemp -d)
end() {
	if [ "${KEEP:-}" = 1 ]; then
		echo "kept: kind cluster $cluster, KUBECONFIG=$state/kubeconfig"
		return
	fi
	kind delete cluster --name "$cluster" --kubeconfig "$state/kubeconfig"
	rm -rf "$state"
}

BUILDER=docker hack/image.sh "$image"
docker build --tag "$client" tests/e2e/cluster/dockerfiles/client

if ! kind get clusters | grep -qx "$cluster"; then
	trap end EXIT
	kind create cluster --name "$cluster" --config tests/e2e/kind.yaml --wait 300s --kubeconfig "$state/kubeconfig"
else
	KEEP=1
	trap end EXIT
	kind export kubeconfig --name "$cluster" --kubeconfig "$state/kubeconfig"
fi
kind load docker-image "$image" "$client" --name "$cluster"

# These are about the other cluster, or need none; some tests run once a night.
elsewhere=()
for name in annotated_pods cluster documentation image plugin store teardown vm_node; do
	elsewhere+=("--ignore=tests/e2e/test_$name.py")
done

# REQUIRE: a skipped test would pass for a success.
TOKENBUCKET_E2E_KUBECONFIG=$state/kubeconfig REQUIRE=${REQUIRE:-e2e} \
	.venv/bin/python -m pytest tests/e2e --timeout=1800 "${elsewhere[@]}" "$@"
