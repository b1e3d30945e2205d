#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Which packages of scripts/packages.txt are missing, and their installation.
#
#   packages.sh missing GROUP...   prints the missing ones, one a line
#   packages.sh count GROUP...     prints how many the groups list
#   packages.sh install GROUP...   installs the missing ones with apt (sudo when not root); silent when there are none
#   packages.sh update             finishes an interrupted installation and fetches apt's lists
#   packages.sh install-now GROUP...  as install, with the lists as they are
set -eu -o pipefail
export LC_ALL=C

list=$(dirname "$0")/packages.txt
command=${1:?usage: packages.sh missing|count|update|install|install-now GROUP...}
shift

wanted() {
	local groups=" $* "
	while read -r group package _; do
		case $group in ''|'#'*) continue ;; esac
		case $groups in *" $group "*) echo "$package" ;; esac
	done <"$list"
}

missing() {
	# shellcheck disable=SC2046  # package names have no blanks
	dpkg-query -W -f '${Package} ${db:Status-Status}\n' $(wanted "$@") 2>/dev/null |
		awk '$2 == "installed" { print $1 }' | sort -u >"${TMPDIR:-/tmp}/.caisson-have.$$" || true
	wanted "$@" | sort -u | comm -23 - "${TMPDIR:-/tmp}/.caisson-have.$$"
	rm -f "${TMPDIR:-/tmp}/.caisson-have.$$"
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "packages.sh: run as root, or install sudo; missing: $(missing build check | tr '\n' ' ')" >&2
		return 1
	fi
}

case $command in
missing) missing "$@" ;;
count) wanted "$@" | wc -l ;;
update)
	as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a >/dev/null
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null
	;;
install | install-now)
	packages=$(missing "$@")
	[ -n "$packages" ] || exit 0
	command -v apt-get >/dev/null || { echo "packages.sh: no apt-get here; install: $packages" >&2; exit 1; }
	[ "$command" = install-now ] || "$0" update
	# shellcheck disable=SC2086
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends $packages >/dev/null
	;;
*) echo "packages.sh: no such command: $command" >&2; exit 2 ;;
esac
