#!/bin/sh
# usage: guest.sh ROOT PYTHON FOLDER
# In the virtual machine: runs pytest in ROOT once for each file of arguments FOLDER/RUNG.args, and leaves beside
# it what it wrote, RUNG.log, and its exit status, RUNG.status; and what the kernel says, FOLDER/dmesg.
set -eu
checkout=$1 python=$2 folder=$3
uname -r >"$folder/release"
dmesg --follow >"$folder/dmesg" &

# The files of the machine outside once more, cached, which makes Python start several times faster, and writable, in
# memory.
mkdir -p /run/files /run/upper /run/work /run/root
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose files /run/files
mount -t overlay -o lowerdir=/run/files,upperdir=/run/upper,workdir=/run/work overlay /run/root
for shared in /proc /sys /dev "$(realpath /lib/modules)" "$folder"; do
	mkdir -p "/run/root$shared"
	mount --rbind "$shared" "/run/root$shared"
done
mount -t tmpfs tmpfs /run/root/run

for given in "$folder"/*.args; do
	rung=${given%.args}
	status=0
	chroot /run/root sh -c 'cd "$1" && exec xargs --arg-file="$2" --delimiter="\n" "$3" -m pytest' \
		sh "$checkout" "$given" "$python" >"$rung.log" 2>&1 || status=$?
	echo "$status" >"$rung.status"
done
