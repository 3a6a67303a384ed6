#!/bin/sh
# usage: guest.sh ROOT PYTHON FOLDER
# In the virtual machine: runs Python in ROOT once for each file of arguments FOLDER/NAME.args, and leaves beside
# it what it wrote, NAME.log, and its exit status, NAME.status; and what the kernel says, FOLDER/dmesg.
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
	name=${given%.args}
	status=0
	chroot /run/root sh -c 'cd "$1" && exec xargs --arg-file="$2" --delimiter="\n" "$3"' \
		sh "$checkout" "$given" "$python" >"$name.log" 2>&1 || status=$?
	echo "$status" >"$name.status"
done
