#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the Debian 12 root directory that debian.bats runs its workloads in: make-debian-root.sh DIR. Does nothing when DIR is there
# and was made from the same list of packages. Needs root, mmdebstrap and a Debian mirror (MIRROR, else Debian's own).
set -eu
dir=$1
packages=python3,gcc,libc6-dev,sqlite3,openssl,redis-server,redis-tools,git,xz-utils
[ "$(cat "$dir.stamp" 2>/dev/null)" != "$packages" ] || [ ! -d "$dir" ] || exit 0
command -v mmdebstrap >/dev/null || { echo "skipped: mmdebstrap is not installed" >&2; exit 77; }
[ "$(id -u)" -eq 0 ] || { echo "skipped: making a Debian root needs root" >&2; exit 77; }
tmp=$dir.tmp
rm -rf "$tmp" "$dir" "$dir.stamp"
mkdir -p "$(dirname "$dir")"
mmdebstrap --quiet --variant=minbase --include=$packages --dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
	bookworm "$tmp" ${MIRROR:+"$MIRROR"} </dev/null >&2
mv "$tmp" "$dir"
echo "$packages" >"$dir.stamp"
