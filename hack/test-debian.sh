#!/usr/bin/env bash
# Runs the bpf tests of HEAD with the compiler, Python and bcc of another Debian: test-debian.sh trixie
# Its file system is in build/, made once with debootstrap. The kernel is that of this machine. Needs root.
set -euo pipefail
# The mounts below end with this namespace.
if [ "${IN_NAMESPACE:-}" != 1 ]; then
	IN_NAMESPACE=1 exec unshare --mount --propagation=private "$0" "$@"
fi
cd "$(dirname "$0")/.."

suite=$1
shift
root=$PWD/build/debian-$suite

if [ ! -e "$root/.complete" ]; then
	# shellcheck disable=SC2016 # a format of apt
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Component: main' | head -n 1)
	rm -rf "$root"
	debootstrap --variant=minbase --include=ca-certificates,git,make "$suite" "$root" "${mirror%/}"
	touch "$root/.complete"
fi
cp /etc/resolv.conf /etc/hosts "$root/etc/"
trust=
if [ -n "${PIP_CERT:-}" ]; then
	# Certificates that this machine trusts beside the usual ones.
	trust=/etc/ssl/build-machine.pem
	install -D --mode=644 "$PIP_CERT" "$root$trust"
fi

# The checkout keeps its .venv.
git -C "$root" init --quiet src
git -C "$root/src" fetch --quiet "$PWD" HEAD
git -C "$root/src" checkout --quiet --force FETCH_HEAD

# Tests make the root's mounts private, so it must be a mount.
mount --bind "$root" "$root"
for shared in proc sys dev; do
	mount --rbind "/$shared" "$root/$shared"
done
inside() {
	chroot "$root" env --ignore-environment HOME=/root LANG=C.UTF-8 PIP_CERT="$trust" REQUIRE=bpf \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
inside make --no-print-directory -C /src setup
# shellcheck disable=SC2016 # a format of dpkg
inside dpkg-query --show --showformat 'release: ${Version}\n' python3-bpfcc
inside sh -c 'cd /src && exec .venv/bin/python -m pytest tests/bpf "$@"' sh "$@"
