# SPDX-License-Identifier: Apache-2.0
# Images in sandboxes, for each engine (E2E_LIFE_FLAGS): pulled when missing, the tree that umoci unpacks, and what the image says about
# running it, with docker's rules for what the command line changes of that.

load helper

setup_file() {
	e2e_setup_file
	export W=$BATS_FILE_TMPDIR/w HERE=$BATS_TEST_DIRNAME
	mkdir -p "$W"
	command -v umoci >/dev/null || return 0
	cd "$W"
	python3 "$HERE/make_layers.py" layers
	mkdir -p box/bin
	cp "$(command -v busybox)" box/bin/busybox
	for k in sh cat find stat sha256sum sort xargs id pwd env echo readlink kill sleep; do ln -s busybox box/bin/$k; done
	tar -C box --owner=0 --group=0 -cf layers/5.tar bin
	umoci init --layout oci
	umoci new --image oci:v1
	for k in 1 2 3 4 5; do umoci raw add-layer --image oci:v1 layers/$k.tar; done
	umoci config --image oci:v1 --tag said --config.entrypoint /bin/echo --config.entrypoint from-entrypoint --config.cmd one --config.cmd 'two words' \
		--config.env FROM_IMAGE=1 --config.env BOTH=image --config.workingdir /usr/lib --config.user 1234:2345 --config.stopsignal SIGUSR1
	python3 "$HERE/registry_standin.py" port t/v="$W/oci" >/dev/null 2>&1 3>&- &
	echo $! >"$W/server"
	wait_for test -e "$W/port"
}

teardown_file() { [ ! -e "$W/server" ] || kill "$(cat "$W/server")"; }

setup() {
	e2e_setup
	command -v umoci >/dev/null || skip "needs umoci"
	command -v busybox >/dev/null || skip "needs busybox"
	local why
	if [ "$E2E_KIND" = container ] && why=$("$CAISSON" doctor --cached | sed -n 's/^\(missing\|degraded\) *containers *//p') && [ -n "$why" ]; then
		skip "$why"
	fi
	REF="127.0.0.1:$(cat "$W/port")/t/v"
}

# in_it FLAGS... REF WORDS...
in_it() { timeout -k 5 120 "$CAISSON" run --rm --network none $E2E_LIFE_FLAGS "$@"; }

# What LIST prints of each entry: the same program in the sandbox and on the umoci's tree. What every sandbox gets of its own is left out.
LIST='cd "$1" && find . -path ./dev -prune -o -path ./proc -prune -o -path ./sys -prune -o -path ./etc/hosts -prune -o -path ./etc/hostname -prune \
	-o -path ./etc/resolv.conf -prune -o -path ./run -prune -o -path ./tmp -prune -o -path ./.caisson -prune \
	-o -type d -exec stat -c "%n %f %u %g" "{}" + -o -type l -exec stat -c "%n %N %u %g %Y" "{}" + -o -exec stat -c "%n %f %u %g %h %s %Y" "{}" + | sort
	find . -path ./dev -prune -o -path ./proc -prune -o -path ./sys -prune -o -path ./etc -prune -o -type f -size -9999 -exec sha256sum "{}" + | sort'

@test "run pulls what is missing, and the tree in the sandbox is the one that umoci unpacks" {
	run "$CAISSON" image inspect "$REF:v1"
	[ "$status" = 125 ]
	in_it "$REF:v1" /bin/sh -c "$LIST" sh / >"$W/got"
	"$CAISSON" image inspect "$REF:v1" >/dev/null
	[ "$(id -u)" = 0 ] || skip "umoci keeps owners only for root"
	[ -d "$W/unpacked" ] || umoci unpack --image "$W/oci:v1" "$W/unpacked" >/dev/null 2>&1
	busybox sh -c "${LIST//find ./busybox find .}" sh "$W/unpacked/rootfs" >"$W/want"
	[ "$(wc -l <"$W/want")" -gt 800 ]
	# A container's user namespace holds 65536 ids; others look like nobody's there.
	[ "$E2E_KIND" != container ] || sed -i -E 's,^(./etc/owned [0-9a-f]+) 70000 2000000000 ,\1 65534 65534 ,' "$W/want"
	diff "$W/want" "$W/got"
}

@test "the image's entry point and command run with its environment, directory and user" {
	run in_it "$REF:said"
	echo "got $status: $output"
	[ "$status" = 0 ]
	[ "$output" = "from-entrypoint one two words" ]
	run in_it --entrypoint /bin/sh "$REF:said" -c 'pwd; id -u; id -g; echo "$FROM_IMAGE $BOTH"'
	[ "$output" = $'/usr/lib\n1234\n2345\n1 image' ]
}

@test "the command line overrides as docker's does" {
	run in_it "$REF:said" other
	[ "$output" = "from-entrypoint other" ]
	run in_it --entrypoint "" "$REF:said" /bin/echo plain
	[ "$output" = plain ]
	run in_it --entrypoint /bin/pwd "$REF:said"
	[ "$output" = /usr/lib ]
	run in_it --entrypoint "" "$REF:said"
	[ "$status" = 125 ]
	[[ $output == *"no command to run"* ]]
	run in_it -e BOTH=mine -e NEW=1 -u 0:0 -w /etc/sub --entrypoint /bin/sh "$REF:said" -c 'pwd; id -u; echo "$FROM_IMAGE $BOTH $NEW"'
	[ "$output" = $'/etc/sub\n0\n1 mine 1' ]
	run in_it -u 7 --entrypoint /bin/id "$REF:said" -u
	[ "$output" = 7 ]
}

@test "stop sends the image's signal" {
	local id
	id=$("$CAISSON" run -d --network none $E2E_LIFE_FLAGS -u 0 --entrypoint /bin/sh "$REF:said" -c 'trap "echo got usr1; exit 7" USR1; echo ready; while :; do sleep 0.1; done')
	wait_for bash -c "'$CAISSON' logs $id | grep -q ready"
	"$CAISSON" stop "$id"
	"$CAISSON" logs "$id" | grep -q "got usr1"
	[ "$("$CAISSON" wait "$id")" = 7 ]
	run "$CAISSON" image rm "$REF:said"
	[ "$status" = 125 ]
	[[ $output == *"used by 1 sandbox"* ]]
	"$CAISSON" rm "$id"
	"$CAISSON" image rm "$REF:said"
}
