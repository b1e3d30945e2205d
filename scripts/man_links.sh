#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# man_links.sh [MANDIR]: a link in MANDIR for each further name that a page has in its NAME section (caisson-create.1 is caisson-run.1).
# MANDIR is where the pages have been installed; when meson runs this, it is what meson says. A link that is there already is left alone.
set -eu -o pipefail
export LC_ALL=C
man=${1:-${MESON_INSTALL_DESTDIR_PREFIX:?}/share/man}
cd "$(dirname "$0")/../docs/man"

for page in *.[1-8]; do
	section=${page##*.}
	for name in $(sed -n '/^\.Sh NAME/,/^\.Nd/s/^\.Nm \(.*\)/\1/p' "$page" | tr -d ,); do
		link=$man/man$section/$name.$section
		[ "$name.$section" != "$page" ] || continue
		[ "$(readlink "$link" || true)" = "$page" ] || ln -sfn "$page" "$link"
	done
done
