#!/bin/bash
# The first program of the emulated machine: runs the tests, and turns the machine off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONPATH=/packages PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
ip link set lo up
cd /src || exit

echo "release: $(uname -r)"
# The tests that depend on the architecture: numbers and layouts, the verifier and the JIT, and each kind of queue,
# filter and message.
export REQUIRE=bpf,netns,sch_fq
failed=0
for rung in bpf unit netns; do
	options=(-p no:randomly --hypothesis-profile=few --timeout=1800 -p no:cacheprovider --color=no --tb=short)
	echo "arm64: $rung after $SECONDS s"
	case $rung in
	unit) tests=(tests/unit/bpf tests/unit/netlink) ;;
	*) tests=("tests/$rung" -p tests.vm.inside --short) ;;
	esac
	python3 -m pytest "${tests[@]}" "${options[@]}" || failed=1
done
echo "arm64: failed=$failed after $SECONDS s"
echo o >/proc/sysrq-trigger
sleep 60
