#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make quickstart`: from a fresh Debian 12 with make and git to a first sandbox, in five steps. Each step looks at what is there
# before it does anything, so that a second run takes seconds and an interrupted one goes on. Runs as root or as a user who may
# use sudo; only apt, and the installation when PREFIX is not writable, run as root. Nothing needs systemd, nothing touches /boot.
#
# Environment: PREFIX (/usr/local), BUILD (build).
set -eu -o pipefail
export LC_ALL=C

cd "$(dirname "$0")/.."
PREFIX=${PREFIX:-/usr/local}
BUILD=${BUILD:-build}
groups=build

tty=
[ -t 1 ] && tty=1
bold= green= red= off=
if [ -n "$tty" ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\033[1m' green=$'\033[32m' red=$'\033[31m' off=$'\033[0m'
fi

fail() { # what failed, and the log's last lines when there is a log
	[ -z "$tty" ] || printf '\r\033[K'
	echo "${red}quickstart: $1${off}" >&2
	[ -z "${2:-}" ] || [ ! -f "$2" ] || tail -n 25 "$2" >&2
	exit 1
}
trap '[ -z "$tty" ] || printf "\033[0m"; echo; echo "quickstart: interrupted; run it again and it goes on from here" >&2; exit 130' INT TERM

duration() {
	local s=$1
	if [ "$s" -lt 1 ]; then echo ''; elif [ "$s" -lt 60 ]; then echo "${s}s"; else printf '%dm%02ds' $((s / 60)) $((s % 60)); fi
}
head_of() { printf '[%s/5] %-14s %-34s' "$1" "$2" "$3"; }
begin() { # NUMBER NAME DETAIL: on a terminal, the line that done_with completes
	step=$1 name=$2 start=$SECONDS
	[ -z "$tty" ] || printf '\r\033[K%s' "$(head_of "$1" "$2" "$3") ..."
}
done_with() { # DETAIL
	[ -z "$tty" ] || printf '\r\033[K'
	printf '%s %sok%s  %s\n' "$(head_of "$step" "$name" "$1")" "$green" "$off" "$(duration $((SECONDS - start)))"
}
free_mb() { df -Pm "$1" | awk 'NR == 2 { print $4 }'; }

[ "$(uname -sm)" = "Linux x86_64" ] || fail "Caisson needs Linux on x86-64; this is $(uname -sm)"
mkdir -p "$BUILD" 2>/dev/null || fail "cannot write to $PWD/$BUILD"

# --- Disk space, before anything is fetched or built ----------------------------------------------------------------------
missing=$(scripts/packages.sh missing $groups)
n_missing=$(wc -w <<<"$missing")
need=50
[ -e "$BUILD/build.ninja" ] || need=$((need + 150))
[ -e "$BUILD/kernel/vmlinux" ] || need=$((need + 1300))
have=$(free_mb "$BUILD")
[ "$have" -ge $need ] || fail "building here needs $need MB, $PWD has $have MB free"
if [ "$n_missing" -gt 0 ]; then
	have=$(free_mb /usr)
	[ "$have" -ge 1000 ] || fail "the packages need up to 1000 MB, /usr has $have MB free"
fi

# --- 1 Packages -----------------------------------------------------------------------------------------------------------
if [ "$n_missing" -gt 0 ]; then
	command -v apt-get >/dev/null || fail "no apt-get here; Caisson needs: $(tr '\n' ' ' <<<"$missing")"
	begin 1 packages "$n_missing needed, via apt"
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || fail "not root, and no sudo; as root: apt-get install $(tr '\n' ' ' <<<"$missing")"
		# Asks for the password, if at all, on a line of its own.
		[ -z "$tty" ] || printf '\r\033[K'
		sudo true || fail "sudo was refused; as root: apt-get install $(tr '\n' ' ' <<<"$missing")"
	fi
	scripts/packages.sh update >"$BUILD/packages.log" 2>&1 || fail "apt-get update failed" "$BUILD/packages.log"
	# shellcheck disable=SC2086
	size=$(apt-get install --no-install-recommends --assume-no $missing 2>/dev/null |
		sed -n 's/^Need to get \([0-9.,]* [kMG]B\).*/ (\1)/p') || true
	[ -z "$tty" ] || printf '\r\033[K%s' "$(head_of 1 packages "$n_missing needed$size, via apt") ..."
	scripts/packages.sh install-now $groups >"$BUILD/packages.log" 2>&1 || fail "installing packages failed" "$BUILD/packages.log"
	done_with "$n_missing needed$size, via apt"
else
	begin 1 packages ''
	done_with "$(scripts/packages.sh count $groups) present"
fi

# --- 2 Caisson ------------------------------------------------------------------------------------------------------------
files=$(git ls-files src 2>/dev/null | wc -l)
[ "$files" -gt 0 ] || files=$(find src -type f | wc -l)
begin 2 caisson "$files files"
make --no-print-directory BUILD="$BUILD" build >"$BUILD/build.log" 2>&1 || fail "building failed" "$BUILD/build.log"
done_with "$files files"

# --- 3 Guest kernel -------------------------------------------------------------------------------------------------------
release=$(dpkg-query -W -f '${Version}' linux-source-6.12 2>/dev/null) || release=6.12
release=${release%%-*}
begin 3 'guest kernel' "linux $release"
[ -z "$tty" ] || printf '\r\033[K'
CAISSON_KERNEL_LABEL="[3/5] $(printf '%-14s' 'guest kernel') linux $release" kernel/build.sh "$BUILD" ||
	fail "the guest kernel did not build" "$BUILD/kernel.log"
done_with "linux $release"

# --- 4 Install ------------------------------------------------------------------------------------------------------------
begin 4 install "$PREFIX/bin/caisson"
hint=
writable() { # can this user create files under DIR?
	local d=$1
	while [ ! -e "$d" ]; do d=$(dirname "$d"); done
	[ -w "$d" ]
}
if writable "$PREFIX/bin" && writable "$PREFIX/libexec" && writable "$PREFIX/share"; then
	scripts/install.sh "$BUILD" "$PREFIX" 2>"$BUILD/install.log" || fail "installing failed" "$BUILD/install.log"
elif scripts/install.sh "$BUILD" "$PREFIX" 2>/dev/null; then
	: # everything was in place already
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo true; }; }; then
	sudo scripts/install.sh "$BUILD" "$PREFIX" 2>"$BUILD/install.log" || fail "installing failed" "$BUILD/install.log"
else
	PREFIX=${HOME:?}/.local
	scripts/install.sh "$BUILD" "$PREFIX" 2>"$BUILD/install.log" || fail "installing failed" "$BUILD/install.log"
fi
caisson=$PREFIX/bin/caisson
case ":$PATH:" in
*":$PREFIX/bin:"*) ;;
*) hint="$PREFIX/bin is not on your PATH:  export PATH=\"$PREFIX/bin:\$PATH\"" ;;
esac
done_with "$caisson"

# --- 5 The first sandbox --------------------------------------------------------------------------------------------------
printf '[5/5] first sandbox\n'
guest=$("$caisson" run --rm -- uname -srm 2>"$BUILD/first.log" </dev/null) || fail "the first sandbox did not run" "$BUILD/first.log"
boundary=$("$caisson" doctor --cached 2>/dev/null | awk '$2 == "boundary" { sub(/^[^ ]+ +boundary +/, ""); print; exit }') || boundary=
printf '  %-9s %s\n' host "$(uname -srm)"
printf '  %-9s %s   <- its own kernel\n' guest "$guest"
printf '  %-9s %s\n' boundary "${boundary:-see caisson doctor}"
[ -z "$hint" ] || printf '%s%s%s\n' "$bold" "$hint" "$off"
cat <<'TRY'
Try:
  caisson run -it --rm -- sh
  caisson run --rm -- sh -c 'echo c >/proc/sysrq-trigger'     (panic a kernel; the host is untouched)
TRY
