#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# install.sh BUILD PREFIX [DESTDIR]: puts what was built where `caisson` looks for it, which is relative to its own place:
# ../libexec/caisson and ../share/caisson. A file that is already the same is left alone.
set -eu
build=${1:?}
dest=${3:-}${2:?}
root=$(cd "$(dirname "$0")/.." && pwd)

put() { # MODE SOURCE TARGET
	[ -e "$2" ] || { echo "install.sh: $2 has not been built" >&2; exit 1; }
	cmp -s "$2" "$3" && return 0
	mkdir -p "$(dirname "$3")"
	# A running program's file is replaced, never written into.
	install -m "$1" "$2" "$3.new.$$" && mv -f "$3.new.$$" "$3"
}

put 755 "$build/src/cli/caisson" "$dest/bin/caisson"
put 755 "$build/src/vmm/caisson-vmm" "$dest/libexec/caisson/caisson-vmm"
put 755 "$build/src/fs/caisson-fs" "$dest/libexec/caisson/caisson-fs"
put 755 "$build/src/image/caisson-image" "$dest/libexec/caisson/caisson-image"
put 755 "$build/src/net/caisson-net" "$dest/libexec/caisson/caisson-net"
put 755 "$build/src/guest/caisson-init" "$dest/libexec/caisson/caisson-init"
put 644 "$build/kernel/vmlinux" "$dest/share/caisson/vmlinux"
put 644 "$root/kernel/cmdline" "$dest/share/caisson/cmdline"
put 644 "$build/src/guest/initramfs.cpio" "$dest/share/caisson/initramfs.cpio"
put 644 "$build/src/guest/busybox.erofs" "$dest/share/caisson/busybox.erofs"
put 644 "$root/src/cli/completion/caisson.bash" "$dest/share/bash-completion/completions/caisson"
put 644 "$root/src/cli/completion/caisson.zsh" "$dest/share/zsh/site-functions/_caisson"
for page in "$root"/docs/man/*.[1-8]; do
	[ -e "$page" ] || continue
	put 644 "$page" "$dest/share/man/man${page##*.}/$(basename "$page")"
done
"$root/scripts/man_links.sh" "$dest/share/man"
