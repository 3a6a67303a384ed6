#!/bin/sh
# usage: engine.sh ROOT STATE COMMAND...
# Runs a command beside a dockerd of its own, in namespaces of processes, mounts and networks that end with it.
# ROOT is the file system of a Debian with docker.io; STATE is a new folder for what dockerd writes.
set -eu

if [ "${IN_NAMESPACES:-}" != 1 ]; then
	exec env IN_NAMESPACES=1 unshare --mount --net --pid --fork --kill-child=KILL "$0" "$@"
fi
root=$1 state=$2
shift 2

mount --make-rprivate /
mount -t proc proc /proc
ip link set lo up
mkdir -p "$state/run" "$state/lib" "$state/bin" "$root/var/lib/docker"

# 'docker exec' starts in the root of dockerd's processes. A chroot would not change it, so this is a new root.
unshare --mount sh -eu -s "$root" "$state" >"$state/dockerd.log" 2>&1 <<'END' &
root=$1 state=$2
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" # shows the devices of this network
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --bind "$state/run" "$root/run"
mount --bind "$state/lib" "$root/var/lib/docker"
cd "$root"
pivot_root . mnt
umount --lazy /mnt
exec dockerd --host unix:///run/docker.sock --cgroup-parent tokenbucket-kind
END

# The client is that of the same Debian, too.
printf '#!/bin/sh\nexec chroot %s docker --host unix:///run/docker.sock "$@"\n' "$root" >"$state/bin/docker"
chmod +x "$state/bin/docker"
mount --bind "$state/run" "$root/run"
export PATH="$state/bin:$PATH"
until docker version >"$state/version.log" 2>&1; do
	if ! kill -0 $!; then
		cat "$state/dockerd.log" >&2
		exit 1
	fi
	sleep 0.2
done
"$@"
