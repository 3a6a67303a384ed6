#!/bin/sh
# usage: cilium_setup.sh SOURCES CGROUP
# Gives a node, in its own mount namespace, what Cilium's agent uses: its sources, clang under the name that the
# agent calls, a bpffs, and the part of the cgroup hierarchy to which its programs may be attached.
set -eu

# A cluster that is up is prepared already.
if mountpoint --quiet /run/cilium/bpf; then
	exit 0
fi
mkdir -p /var/lib/cilium/bin /run/cilium/bpf /run/cilium/cgroupv2
cp -r "$1" /var/lib/cilium/bpf
ln -s /usr/bin/clang-19 /var/lib/cilium/bin/clang
# The agent refuses /sys/fs/bpf, below which the machine's own is hidden.
mount -t bpf bpf /run/cilium/bpf
mount --bind "$2" /run/cilium/cgroupv2

# The agent sets these, which are the whole machine's: it gets copies.
for setting in kernel/unprivileged_bpf_disabled kernel/timer_migration; do
	copy=/var/lib/cilium/$(basename $setting)
	cat /proc/sys/$setting >"$copy"
	mount --bind "$copy" /proc/sys/$setting
done
