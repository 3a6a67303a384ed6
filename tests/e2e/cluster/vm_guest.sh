#!/bin/sh
# usage: vm_guest.sh NODE_FOLDER LOGS
# In the virtual machine: makes it a node. NODE_FOLDER/guest.env holds what is particular to it.
set -eu
given=$1 logs=$2
set -x
. "$given/guest.env"
here=$(dirname "$0")

modprobe -a virtio_blk ext4 overlay bridge br_netfilter veth nf_tables nft_ct nft_fib_inet nft_masq nft_nat nft_numgen \
	nft_reject_inet sch_fq sch_ingress sch_netem sch_tbf cls_bpf || true

# An overlay, as containers have, cannot stand on the overlays that make this machine's files writable.
mkdir -p /tmp/node
mount -L node /tmp/node
"$here/node_setup.sh" /tmp/node "$name" vm
cp "$given/10-pods.conflist" /etc/cni/net.d/

device=$(basename "$(dirname "$(grep -l "$hardware_address" /sys/class/net/*/address)")")
ip link set "$device" name eth0
ip -batch "$given/addresses"

start() { "$here/component.sh" "$logs" "$@"; }
start containerd containerd --config "$given/containerd.toml"
set +x
until [ -S /run/containerd/containerd.sock ]; do
	sleep 0.1
done
set -x
start kube-proxy $kube_proxy
start kubelet $kubelet
exec sleep infinity
