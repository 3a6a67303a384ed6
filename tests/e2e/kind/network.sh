#!/bin/sh
# usage: network.sh CLUSTER, with KUBECONFIG
# Gives the nodes of a kind cluster the bridge plugin, and routes to the pods of the other nodes.
set -eu

ranges() { kubectl get node "$1" --output jsonpath='{.spec.podCIDRs[*]}'; }
addresses() { kubectl get node "$1" --output jsonpath='{.status.addresses[?(@.type=="InternalIP")].address}'; }

nodes=$(kind get nodes --name "$1")
for node in $nodes; do
	pools=
	for range in $(ranges "$node"); do
		pools="$pools${pools:+, }[{\"subnet\": \"$range\"}]"
	done
	docker exec --interactive "$node" cp /dev/stdin /etc/cni/net.d/10-pods.conflist <<END
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [$pools], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"}
]}
END
	for other in $nodes; do
		[ "$other" = "$node" ] && continue
		for range in $(ranges "$other"); do
			for address in $(addresses "$other"); do
				case $range,$address in
				*:*,*:* | *.*,*.*) docker exec "$node" ip route replace "$range" via "$address" ;;
				esac
			done
		done
	done
done
kubectl wait --for=condition=Ready nodes --all --timeout=600s
