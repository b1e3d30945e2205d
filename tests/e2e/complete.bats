#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Completion: what `caisson __complete` offers, and that the functions of bash and zsh pass it on. Nothing is run; sandboxes are records.
bats_require_minimum_version 1.5.0

: "${CAISSON:?the program to test}"
source_dir=$BATS_TEST_DIRNAME/../../src/cli/completion

setup_file() {
	export CAISSON_ROOT=$BATS_FILE_TMPDIR/root
	local s=$CAISSON_ROOT/sandboxes i=$CAISSON_ROOT/images
	install -d -m 700 "$s"/{000000000001,000000000002,000000000003} "$CAISSON_ROOT"/{names,networks} "$i"
	record() { # ID NAME STATUS
		echo "{\"image\": \"debian:12\"${2:+, \"name\": \"$2\"}}" >"$s/$1/config.json"
		echo "{\"version\": 1, \"status\": \"$3\", \"boundary\": \"none\"}" >"$s/$1/state.json"
		touch "$s/$1/lock"
	}
	record 000000000001 web running
	record 000000000002 done exited
	record 000000000003 '' created
	"$CAISSON" network create shop >/dev/null
	local hex
	hex=$(printf %064d 7)
	echo "{\"version\": 1, \"id\": \"sha256:$hex\", \"manifest\": \"\", \"size\": 4096, \"imported\": 1, \"source\": \"\", \"image\": {}}" >"$i/$hex.json"
	touch "$i/$hex.erofs"
	echo "{\"docker.io/library/debian:12\": \"sha256:$hex\"}" >"$i/tags.json"
	exec 9>"$s/000000000001/lock" # the one that runs is held
	flock 9
}

has_actions() { "$CAISSON" help "$1" | head -n 1 | grep -q "^usage: caisson $1 COMMAND "; }
complete() { "$CAISSON" __complete "$@"; }
words() { complete "$@" | cut -f1 | grep -v '^:' | sort | tr '\n' ' '; }

@test "every command that help lists is completed" {
	local c
	for c in $("$CAISSON" help | awk '/^commands:/ { on = 1; next } /^$/ { on = 0 } on { print $1 }'); do
		[ "$(words "$c" | grep -cw -- "$c")" = 1 ] || { echo "not completed: $c"; return 1; }
		complete "${c%?}" | cut -f1 | grep -qx -- "$c" || { echo "not from ${c%?}: $c"; return 1; }
	done
}

@test "every flag in a command's help is completed, and every flag that is completed is taken" {
	local c f action offered
	for c in $(complete '' | cut -f1); do
		[ "$c" != help ] || continue
		action=
		! has_actions "$c" || action=$(complete "$c" '' | head -n 1)
		offered=$(complete "$c" $action --)
		for f in $("$CAISSON" help "$c" | sed -n 's/^ *\(-[a-zA-Z], \)\?\(--[a-z-]*\).*/\2/p'); do
			cut -f1 <<<"$offered" | grep -qx -- "$f" || { echo "caisson $c: $f is in the help only"; return 1; }
		done
		for f in $(cut -f1 <<<"$offered"); do
			# the first of the two may be its value
			run -125 "$CAISSON" "$c" $action "$f" --no-such-flag --no-such-flag
			[[ $output != *"unknown flag $f;"* && $output != *"unknown command"* ]] || { echo "caisson $c does not know $f"; return 1; }
		done
	done
}

@test "commands of commands are completed" {
	local c a n=0
	for c in $(complete '' | cut -f1); do
		has_actions "$c" || continue
		n=$((n + 1))
		for a in $("$CAISSON" help "$c" | sed -n 's/^  \([a-z][a-z]*\)[ ].*/\1/p'); do
			complete "$c" '' | cut -f1 | grep -qx "$a" || { echo "caisson $c $a is not completed"; return 1; }
		done
	done
	[ $n -ge 3 ]
}

@test "names of sandboxes are completed where they make sense" {
	[ "$(words stop '')" = "web " ]
	[ "$(words start '')" = "000000000003 done " ]
	[ "$(words rm '')" = "000000000003 done web " ]
	[ "$(words rm w)" = "web " ]
	[ "$(words rm -f done w)" = "web " ]
	[ "$(words logs --tail 5 w)" = "web " ]
	[ "$(words exec -it w)" = "web " ]
	[ "$(words exec web w)" = "" ]
	[ "$(words exec web -)" = "" ]
	[ "$(words cp '')" = "web: " ]
	[ "$(words port web '')" = "--help --json " ]
	[ "$(words unpause '')" = "" ]
}

@test "names of images and networks are completed" {
	[ "$(words run --rm d)" = "debian:12 " ]
	[ "$(words run --rm debian:)" = "debian:12 " ]
	[ "$(words run --rm debian:12 d)" = "" ]
	[ "$(words run -- d)" = "" ]
	[ "$(words image rm '')" = "debian:12 " ]
	[ "$(words run --network '')" = "none shop " ]
	[ "$(words run --network=s)" = "--network=shop " ]
	[ "$(words network rm '')" = "shop " ]
}

@test "values of flags are completed" {
	[ "$(words run --engine '')" = "container microvm " ]
	[ "$(words run --engine=m)" = "--engine=microvm " ]
	[ "$(words run --trust '')" = "hostile trusted untrusted " ]
	[ "$(words run --boundary '')" = "hardware hypervisor namespace software " ]
	[ "$(words run --accel '')" = "auto kvm soft " ]
	[ "$(words run --pull n)" = "never " ]
	[ "$(words kill -s KI)" = "KILL " ]
	[ "$(words run --stop-signal=US)" = "--stop-signal=USR1 --stop-signal=USR2 " ]
	[ "$(words ps --filter status=)" = "status=created status=exited status=paused status=running status=suspended " ]
	[ "$(words ps --filter n)" = "name= " ]
	[ "$(complete run --rootfs '')" = :files ]
	[ "$(complete run -v '')" = :dirs ]
	[ "$(words help ver)" = "version " ]
	[ "$(words --root /nowhere/at/all ve)" = "version " ]
}

@test "what is damaged or hostile in the store is left out" {
	local d=$CAISSON_ROOT/sandboxes
	install -d -m 700 "$d"/{00000000000a,00000000000b}
	echo '{"name": "$(reboot)"}' >"$d/00000000000a/config.json"
	cp "$d/000000000002/state.json" "$d/00000000000a/"
	echo 'nonsense' >"$d/00000000000b/config.json"
	[ "$(words rm '')" = "000000000003 done web " ]
	rm -r "$d"/00000000000[ab]
}

@test "bash passes words on, also those that it cuts at '=' and ':'" {
	run -0 bash -c '
		. "$1/caisson.bash"
		compopt() { echo "compopt $*"; }
		try() { # LINE WORD...
			COMP_LINE=$1 COMP_POINT=${#1}
			shift
			COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
			_caisson
			echo "${COMPREPLY[*]}"
		}
		try "$2 vers" "$2" vers
		try "$2 run --engine=c" "$2" run --engine = c
		try "$2 run --engine=" "$2" run --engine =
		try "$2 run  --engine c" "$2" run --engine c
		try "$2 run debian:1" "$2" run debian : 1
		try "$2 ps --filter=status=e" "$2" ps --filter = status = e
		try "$2 run --rootfs /t" "$2" run --rootfs /t
		try "$2 cp w" "$2" cp w' _ "$source_dir" "$CAISSON"
	[ "$output" = 'version
container
microvm container
container
12
exited
compopt -o default

compopt -o default
compopt -o nospace
web:' ]
}

@test "zsh passes words on" {
	command -v zsh >/dev/null || skip "zsh is not installed"
	run -0 zsh -f -c '
		dir=$1 program=$2
		_describe() { print -r -- ${(P)4} "${@[5,-1]}" }
		_files() { print -r -- files $@ "($PREFIX)" }
		compset() { PREFIX=${PREFIX#*=} }
		try() { # WORD...
			local -a words=($program "$@")
			local CURRENT=$#words PREFIX=$words[-1]
			. $dir/caisson.zsh
		}
		try vers
		try run --engine=c
		try run debian:1
		try run --rootfs=/t
		try run -v /t
		try cp w' _ "$source_dir" "$CAISSON"
	echo "$output"
	[ "$output" = 'version:print the version
--engine=container
debian\:12:000000000000
files (/t)
files -/ (/t)
web\::running, debian:12 -S 
files (w)' ]
}
