#!/bin/sh
# The first program of a node: gives the node its own files, and becomes systemd.
set -eu
# Pods and the agent share mounts with the node.
mount --make-rshared /

# The kubelet sets these, which are the whole machine's: it gets copies.
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
	kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
	copy=/run/$(basename $setting)
	cat /proc/sys/$setting >"$copy"
	mount --bind "$copy" /proc/sys/$setting
done

rm -f /etc/machine-id
systemd-machine-id-setup
legacy=
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
	# kind waits for this line.
	echo 'detected cgroup v1'
	legacy='SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.unified_cgroup_hierarchy=0'
fi
# shellcheck disable=SC2086 # words. In a container, systemd reads its own arguments as those of the kernel.
exec /sbin/init --log-target=console $legacy
