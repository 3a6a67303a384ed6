#!/usr/bin/env bash
# Runs tests/e2e on a kind cluster, which it makes and deletes: e2e-kind.sh [ARGUMENT OF PYTEST...]
# Needs .venv ('make setup'), and either docker, helm, kind and kubectl with a registry that has kind's nodes, or builds
# a dockerd and nodes of its own. OWN_NODES=1 or 0 chooses.
# KIND_CLUSTER names the cluster; KEEP=1 leaves one of the machine's own docker up, for a look or another run.
set -euo pipefail
cd "$(dirname "$0")/.."

cluster=${KIND_CLUSTER:-tokenbucket-e2e}
files=tests/e2e/kind
# As tests/e2e calls them, which pulls neither.
image=localhost/tokenbucket:test
client=localhost/client:1
unset TOKENBUCKET_E2E_IMAGE TOKENBUCKET_E2E_CLIENT_IMAGE

has_registry() {
	docker manifest inspect debian:trixie-slim >/dev/null 2>&1
}

if [ -z "${OWN_NODES:-}" ]; then
	OWN_NODES=1
	if has_registry; then OWN_NODES=0; fi
fi

if [ "$OWN_NODES" = 1 ] && [ -z "${NODE_IMAGE:-}" ]; then
	hack/install-packages.sh tests/e2e/cluster/packages.txt
	# ENGINE, NODE_IMAGE, NODE_ARCHIVE, ARCHIVES and PATH.
	variables=$(PYTHONPATH=.:operator:tests/e2e .venv/bin/python -m tests.e2e.kind)
	eval "$variables"
	export OWN_NODES
	state=$(mktemp -d -p /var/tmp)
	end() {
		# What the ended namespaces leave.
		find /sys/fs/cgroup -depth -type d -path '*/tokenbucket-kind*' -exec rmdir {} + || true
		rm -rf "$state"
	}
	trap end EXIT
	"$files/engine/run.sh" "$ENGINE" "$state" "$0" "$@"
	exit
fi

for tool in docker helm kind kubectl; do
	if ! command -v "$tool" >/dev/null; then
		echo "e2e-kind: $tool: not installed" >&2
		exit 1
	fi
done

state=$(mktemp -d)
export KUBECONFIG=$state/kubeconfig
end() {
	if [ "${KEEP:-}" = 1 ]; then
		echo "kept: kind cluster $cluster, KUBECONFIG=$KUBECONFIG"
		return
	fi
	kind delete cluster --name "$cluster"
	rm -rf "$state"
}

create() {
	if [ "$OWN_NODES" = 1 ]; then
		docker load --quiet <"$NODE_ARCHIVE"
		kind create cluster --name "$cluster" --config "$files/own.yaml" --image "$NODE_IMAGE"
		"$files/network.sh" "$cluster"
		for archive in $ARCHIVES; do
			kind load image-archive "$archive" --name "$cluster"
		done
	else
		BUILDER=docker hack/image.sh "$image"
		docker build --tag "$client" tests/e2e/cluster/dockerfiles/client
		kind create cluster --name "$cluster" --config "$files/published.yaml" --wait 300s
		kind load docker-image "$image" "$client" --name "$cluster"
	fi
}

if ! kind get clusters | grep -qx "$cluster"; then
	trap end EXIT
	create
else
	KEEP=1
	trap end EXIT
	kind export kubeconfig --name "$cluster"
fi

# These are about the other cluster, or need none; some tests run once a night.
elsewhere=()
for name in annotated_pods cluster deaf_agents documentation exactness image installation plugin store teardown vm_node; do
	elsewhere+=("--ignore=tests/e2e/test_$name.py")
done

echo "release: $(kind version --quiet)"
# REQUIRE: a skipped test would pass for a success.
TOKENBUCKET_E2E_KUBECONFIG=$KUBECONFIG REQUIRE=${REQUIRE:-e2e} \
	.venv/bin/python -m pytest tests/e2e --timeout=1800 "${elsewhere[@]}" "$@"
