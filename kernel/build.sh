#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the guest kernel from Debian's linux-source package.
#
#   kernel/build.sh [BUILD_DIR]      (default: build)
#
# Leaves BUILD_DIR/kernel/<hash>/vmlinux and the symlink BUILD_DIR/kernel/vmlinux. The hash is over everything that decides the
# result: the configuration fragment, this script, the list of what is unpacked, the source package's version and the compiler. A
# finished kernel is also put in ${XDG_CACHE_HOME:-~/.cache}/caisson/kernel/<hash>, where other clones on this machine find it.
# An interrupted build goes on where it stopped. Nothing outside BUILD_DIR and that cache is written; /boot is never looked at.
#
# Environment: CAISSON_KERNEL_KEEP=1 keeps the source and object trees (900 MB) after success;
#              CAISSON_KERNEL_LABEL is printed before the progress bar; CAISSON_JOBS overrides the number of compilers.
set -eu -o pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
build=${1:-$root/build}
series=6.12
tarball=/usr/src/linux-source-$series.tar.xz
# Object files that one build makes; only the progress bar depends on it.
expected_steps=1500

fail() { echo "kernel/build.sh: $*" >&2; exit 1; }

[ -f "$tarball" ] || fail "$tarball is missing: install Debian's package linux-source-$series (scripts/packages.sh install)"
version=$(dpkg-query -W -f '${Version}' linux-source-$series 2>/dev/null) || version=$(stat -c '%s-%Y' "$tarball")
release=${version%%-*}

hash=$({
	cat "$here/caisson.config" "$here/build.sh" "$here/unpack.exclude"
	echo "$version $(gcc -dumpfullversion) $(ld --version | head -n1)"
} | sha256sum | cut -c1-16)

mkdir -p "$build/kernel"
build=$(cd "$build" && pwd)
work=$build/kernel
out=$work/$hash
cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/caisson/kernel/$hash

publish() {
	ln -sfn "$hash/vmlinux" "$work/vmlinux.new"
	mv -T "$work/vmlinux.new" "$work/vmlinux"
	echo "$release" >"$work/release"
}

# Copies the files of a finished kernel; vmlinux comes last, under its final name only when it is whole.
copy_kernel() {
	mkdir -p "$2" 2>/dev/null || return 1
	cp -f "$1/System.map" "$1/config" "$1/vmlinux.sha256" "$2/" 2>/dev/null || return 1
	cp -f "$1/vmlinux" "$2/.vmlinux.$$" 2>/dev/null || { rm -f "$2/.vmlinux.$$"; return 1; }
	mv -f "$2/.vmlinux.$$" "$2/vmlinux"
}

cached() {
	[ -f "$cache/vmlinux" ] && [ -f "$cache/vmlinux.sha256" ] || return 1
	[ "$(sha256sum <"$cache/vmlinux")" = "$(cat "$cache/vmlinux.sha256")" ]
}

if [ -f "$out/vmlinux" ]; then
	publish
	exit 0
fi

# One build at a time in this directory; a second one waits and then finds the result.
exec 9>"$work/lock"
flock 9
if [ -f "$out/vmlinux" ] || { cached && copy_kernel "$cache" "$out"; }; then
	publish
	exit 0
fi

log=$build/kernel.log
src=$work/linux-$version
obj=$work/obj-$hash
label=${CAISSON_KERNEL_LABEL:-guest kernel: linux $release}
started=$SECONDS

for tool in gcc ld make flex bison bc xz; do
	command -v $tool >/dev/null || fail "$tool is missing (scripts/packages.sh install)"
done
free_mb=$(df -Pm "$work" | awk 'NR == 2 { print $4 }')
[ -d "$obj" ] || [ "$free_mb" -ge 1200 ] || fail "the kernel build needs 1200 MB in $work, there are $free_mb"

if [ ! -d "$src" ]; then
	[ -t 1 ] && printf '\r\033[K%s  unpacking ...' "$label"
	rm -rf "$work"/linux-*.unpack
	mkdir "$src.unpack"
	tar -xJf "$tarball" -C "$src.unpack" --strip-components=1 -X <(grep -v '^#' "$here/unpack.exclude")
	mv "$src.unpack" "$src"
fi

export KBUILD_BUILD_USER=caisson KBUILD_BUILD_HOST=caisson KBUILD_BUILD_VERSION=1
KBUILD_BUILD_TIMESTAMP=$(stat -c %y "$src/Makefile" | cut -d. -f1)
export KBUILD_BUILD_TIMESTAMP

mkdir -p "$obj"
if [ ! -f "$obj/.configured" ]; then
	{
		make -C "$src" O="$obj" allnoconfig
		(cd "$src" && scripts/kconfig/merge_config.sh -m -O "$obj" "$obj/.config" "$here/caisson.config")
		make -C "$src" O="$obj" olddefconfig
	} >"$log" 2>&1 </dev/null || { tail -n 20 "$log" >&2; fail "configuring failed; see $log"; }
	# A dependency that went missing drops an option without a word: compare what was asked with what came out.
	lost=$(awk '
		NR == FNR { if (/^CONFIG_/) { k = $0; sub(/=.*/, "", k); have[k] = $0 } next }
		/^CONFIG_/ { k = $0; sub(/=.*/, "", k); if (have[k] != $0) print "  wanted: " $0 }
		/^# CONFIG_.* is not set$/ { if ($2 in have) print "  wanted off: " have[$2] }
	' "$obj/.config" "$here/caisson.config")
	[ -z "$lost" ] || fail "the configuration does not hold:
$lost"
	touch "$obj/.configured"
fi

progress() {
	local done_steps percent eta bar width=20
	done_steps=$(find "$obj" -name '*.o' -newer "$obj/.configured" 2>/dev/null | wc -l)
	percent=$((done_steps * 100 / expected_steps))
	[ $percent -le 99 ] || percent=99
	eta=
	if [ $percent -ge 3 ] && [ $((done_steps - first_steps)) -gt 20 ]; then
		eta=$(((SECONDS - make_started) * (expected_steps - done_steps) / (done_steps - first_steps)))
		[ $eta -ge 0 ] || eta=0
		eta=$(printf 'eta %dm%02ds' $((eta / 60)) $((eta % 60)))
	fi
	bar=$(printf '%*s' $((percent * width / 100)) '' | tr ' ' '#')
	bar=$bar$(printf '%*s' $((width - ${#bar})) '' | tr ' ' .)
	printf '\r\033[K%s  [%s] %d%%  %s   (once; cached; log: %s)' "$label" "$bar" $percent "$eta" "${log#"$PWD"/}"
}

make_started=$SECONDS
first_steps=$(find "$obj" -name '*.o' -newer "$obj/.configured" | wc -l)
# A process group of its own, so that stopping it stops the compilers that make's children started too.
set -m
make -C "$src" O="$obj" -j"${CAISSON_JOBS:-$(nproc)}" vmlinux >>"$log" 2>&1 </dev/null &
make_pid=$!
set +m
trap 'kill -- -$make_pid 2>/dev/null; wait $make_pid 2>/dev/null; echo; exit 130' INT TERM HUP
if [ -t 1 ]; then
	while kill -0 $make_pid 2>/dev/null; do
		progress
		sleep 1
	done
	printf '\r\033[K'
fi
wait $make_pid || { grep -E 'error|Error' "$log" | head -n 20 >&2 || true; fail "the build failed; see $log"; }
trap - INT TERM

mkdir -p "$out.new"
strip -s -o "$out.new/vmlinux" "$obj/vmlinux"
cp "$obj/System.map" "$out.new/System.map"
cp "$obj/.config" "$out.new/config"
sha256sum <"$out.new/vmlinux" >"$out.new/vmlinux.sha256"
rm -rf "$out"
mv "$out.new" "$out"
publish
copy_kernel "$out" "$cache" || true
[ -n "${CAISSON_KERNEL_KEEP:-}" ] || rm -rf "$src" "$obj"
echo "$label  built in $((SECONDS - started)) s, $(stat -c %s "$out/vmlinux" | awk '{ printf "%.1f MB", $1 / 1e6 }')" >>"$log"
