#!/usr/bin/env bash
# Runs tests of HEAD on a Debian kernel for arm64, in an emulated machine without network or disk.
# Its files are an initial RAM disk of Debian packages, unpacked and not installed, and of the checkout. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=trixie
python=3.13 # of that Debian
place=$PWD/build/arm64
packages=python3,python3-bpfcc,clang,gcc,libc6-dev,libbpf-dev,iproute2,iputils-ping,iperf3,procps,kmod
packages+=,linux-image-arm64,linux-headers-arm64
timeout_s=7200

archive() { (cd "$1" && find . -print0 | cpio --quiet --null --create --format=newc); }

build_files() {
	local root=$place/root mirror release
	rm -rf "$place"
	mkdir -p "$place"
	# shellcheck disable=SC2016 # a format of apt
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Component: main' | head -n 1)
	mmdebstrap --quiet --variant=extract --architectures=arm64 --skip=check/qemu \
		--include='?essential' --include="$packages" "$suite" "$root" "${mirror%/}"
	rm -rf "$root"/var/cache/apt "$root"/var/lib/apt "$root"/usr/share/{doc,man,locale,info}
	# Without linters.
	grep -vE '^(ast_serialize|clang-format|codespell|grimp|mypy|ruff|zizmor)' requirements/dev.txt >"$place/packages.txt"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$root/packages" \
		--platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --python-version "$python" \
		--only-binary=:all: --requirement "$place/packages.txt"
	# The scripts of its packages, which would do this, did not run.
	echo root:x:0:0:root:/root:/bin/bash >"$root/etc/passwd"
	mkdir -p "$root"/{proc,sys,dev,run,tmp,root}
	release=$(ls "$root/usr/lib/modules")
	depmod --basedir "$root" "$release"
	cp "$root/boot/vmlinuz-$release" "$place/vmlinuz"
	rm -rf "$root"/boot
	archive "$root" >"$place/root.cpio.partial"
	rm -rf "$root"
	mv "$place/root.cpio.partial" "$place/root.cpio"
}

[ -e "$place/root.cpio" ] || build_files

checkout=$(mktemp -d)
trap 'rm -rf "$checkout"' EXIT
mkdir "$checkout/src"
git archive HEAD | tar --extract --directory "$checkout/src"
install --mode=755 tests/vm/arm64/init.sh "$checkout/init"
archive "$checkout" | cat "$place/root.cpio" - >"$checkout.cpio"
trap 'rm -rf "$checkout" "$checkout.cpio"' EXIT

timeout "$timeout_s" qemu-system-aarch64 -machine virt -cpu cortex-a72 -smp 1 -accel tcg,tb-size=512 -m 6G -nographic -nic none \
	-no-reboot -kernel "$place/vmlinuz" -initrd "$checkout.cpio" -append 'quiet panic=-1 console=ttyAMA0' \
	</dev/null | stdbuf --output=L tr -d '\r' | tee "$place/console.log"
grep -q '^arm64: failed=0 ' "$place/console.log"
