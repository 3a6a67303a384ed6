#!/bin/sh
# usage: node_setup.sh NODE_FOLDER HOSTNAME namespace|vm
# Gives a node, in its own mount and network namespace, what is a node's own: the folders that its programs
# write to, /etc, /run, /sys of its network, and a bpffs. Nothing of it can be seen from outside.
set -eu
node=$1

hostname "$2"
mount --make-rprivate /

own() {
	mkdir -p "$node$1"
	mount --bind "$node$1" "$1"
}
own /var/lib
own /var/log
mkdir -p "$node/etc" "$node/etc.work"
mount -t overlay -o "lowerdir=/etc,upperdir=$node/etc,workdir=$node/etc.work" overlay /etc
rm -f /etc/resolv.conf
: >/etc/resolv.conf
rm -rf /etc/cni
mkdir -p /etc/cni/net.d

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns

# /sys shows the network devices of the namespace it was mounted in.
if [ "$3" = namespace ]; then
	mkdir /run/cgroup
	mount --rbind /sys/fs/cgroup /run/cgroup
	mount -t sysfs sysfs /sys
	mount --rbind /run/cgroup /sys/fs/cgroup
	umount -l /run/cgroup
	rmdir /run/cgroup
fi
mount -t bpf -o mode=700 bpf /sys/fs/bpf

# The kubelet sets these, which are the whole machine's: it gets copies.
mkdir -p "$node/sysctl"
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
	kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
	copy=$node/sysctl/$(basename $setting)
	cat /proc/sys/$setting >"$copy"
	mount --bind "$copy" /proc/sys/$setting
done

mount --bind /run/netns /run/netns
mount --make-rshared /

for setting in ipv4/ip_forward ipv6/conf/all/forwarding ipv6/conf/default/forwarding; do
	echo 1 >/proc/sys/net/$setting
done
