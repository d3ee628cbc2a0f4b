#!/bin/bash
# Runs the tests of pkg/spawn on linux/arm64, in a virtual machine: assembly that
# was only compiled has not been tested. The machine has Debian's kernel and
# nothing else; its first process is the test binary (TestMain knows), which says
# on the console how the tests ended.
#
# usage: qemu-arm64.sh [-run REGEXP]
#
# Needs Go, apt-get, dpkg, cpio, gzip and qemu-system-aarch64 (contrib/ci/deps
# arm64); not root. The exit status is 0 only if all tests have passed within
# $QEMU_TIME seconds (300). The kernel is kept in $QEMU_CACHE, if that names a
# directory; everything else is in a temporary one that is removed.
set -euo pipefail
cd "$(dirname "$0")/../.."

scratch=$(mktemp -d "${TMPDIR:-/tmp}/qemu-arm64.XXXXXX")
qemu=
trap 'test -z "$qemu" || kill "$qemu" 2>/dev/null || :; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP

# The kernel for clouds: small, and with what this machine has built in. apt is
# told about another architecture in directories of its own; the packages of this
# system are not touched.
fetch_kernel() {
	local apt=$scratch/apt options package
	mkdir -p "$apt"/{lists/partial,cache/archives/partial,sources}
	options=(
		-qq
		-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
		-o Dir::State::Lists="$apt/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$apt/cache"
		-o Acquire::Languages=none -o Acquire::Retries=3
	)
	if [ -e /etc/apt/sources.list.d/debian.sources ]; then
		# Not the lists of others.
		options+=(-o Dir::Etc::sourcelist=/etc/apt/sources.list.d/debian.sources -o Dir::Etc::sourceparts="$apt/sources")
	fi
	apt-get "${options[@]}" update
	package=$(apt-cache "${options[@]}" depends linux-image-cloud-arm64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p' | head -n 1)
	(cd "$apt" && apt-get "${options[@]}" download "$package" && dpkg -x "$package"_*.deb image)
	mv "$apt"/image/boot/vmlinuz-* "$1"
	rm -rf "$apt"
}

cache=${QEMU_CACHE:-$scratch}
kernel=$cache/vmlinuz-arm64
if [ ! -s "$kernel" ]; then
	mkdir -p "$cache"
	fetch_kernel "$scratch/vmlinuz.new"
	mv "$scratch/vmlinuz.new" "$kernel"
fi

# No race detector, which emulation would make too slow: the tests have that on
# the host's own processor.
mkdir "$scratch/root"
GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go test -c -o "$scratch/root/init" ./pkg/spawn
(cd "$scratch/root" && find . | cpio --quiet -o -H newc | gzip -1) >"$scratch/initrd"

# What follows "--" on its command line the kernel gives to the first process.
qemu-system-aarch64 -M virt -cpu cortex-a72 -smp 2 -m 1024 -display none -monitor none -nic none -no-reboot \
	-serial "file:$scratch/console" -kernel "$kernel" -initrd "$scratch/initrd" \
	-append "console=ttyAMA0 rdinit=/init panic=-1 quiet -- ${*/#-run/-test.run}" </dev/null &
qemu=$!
for ((i = 0; i < ${QEMU_TIME:-300}; i++)); do
	kill -0 "$qemu" 2>/dev/null || break
	sleep 1
done
kill "$qemu" 2>/dev/null || : # it has not ended in time
wait "$qemu" || :
qemu=

tr -d '\r' <"$scratch/console" >"$scratch/log"
passed=$(grep -c '^--- PASS' "$scratch/log" || :)
if [ "$passed" = 0 ] || ! grep -qx 'verdict of the tests: pass' "$scratch/log"; then
	cat "$scratch/log"
	echo "pkg/spawn on linux/arm64: the tests have not passed within ${QEMU_TIME:-300} s" >&2
	exit 1
fi
grep -x 'linux.*' "$scratch/log" || :
echo "pkg/spawn on linux/arm64: $passed tests have passed in $i s"
