#!/usr/bin/env bash
# Installs with apt what the project needs on Debian 12 or 13, or what the files named as arguments list.
# Changes nothing, and needs no root, when all is there.
set -euo pipefail

packages=(
	clang libbpf-dev gcc libc6-dev # the BPF program, and its arithmetic compiled for the host
	iperf3 iproute2 iputils-ping procps # demo, benchmarks, tests
	lua5.4 # health check of Argo CD in the documentation
	python3-bpfcc python3-venv
	fish zsh # completion of the plugin; bash is there
)
# Any kernel's headers will do: the program uses none of the kernel's own types.
if [ ! -d "/lib/modules/$(uname -r)/build/include/generated" ]; then
	packages+=("linux-headers-$(dpkg --print-architecture)")
fi

if [ $# -gt 0 ]; then
	mapfile -t packages < <(sed 's/#.*//' "$@" | xargs -n1)
fi

missing=()
for package in "${packages[@]}"; do
	status=$(dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null || true)
	[ "$status" = "ii " ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi

echo "installing ${#missing[@]} packages, up to 12 minutes: ${missing[*]}"
if [ "$(id -u)" -ne 0 ]; then
	echo "run 'make setup' as root, or install them yourself" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
	apt-get update --quiet=2 &&
		apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}"
}
if ! install >"$log" 2>&1; then
	cat "$log" >&2
	exit 1
fi
