# SPDX-License-Identifier: Apache-2.0
# What takes minutes: a Debian made with mmdebstrap from the network's mirrors.

load helper

setup_file() {
	e2e_setup_file
	export W=$BATS_FILE_TMPDIR/w
	mkdir -p "$W"
}

@test "image bootstrap makes a Debian that runs" {
	command -v mmdebstrap >/dev/null || skip "needs mmdebstrap"
	command -v jq >/dev/null || skip "needs jq"
	timeout 20 bash -c '</dev/tcp/deb.debian.org/80' 2>/dev/null || [ -n "$(apt-config dump 2>/dev/null | grep -i proxy)" ] || skip "no mirror of Debian's can be reached"
	run timeout 1200 "$CAISSON" image bootstrap debian:bookworm mine:1 --packages file
	echo "$output"
	[ "$status" = 0 ]
	[ "$("$CAISSON" image inspect mine:1 | jq -c '.[0].config.Cmd')" = '["bash"]' ]
	run timeout 300 "$CAISSON" run --rm --network none $E2E_FLAGS mine:1 sh -c '. /etc/os-release; echo $VERSION_CODENAME; file --version | head -n 1'
	[ "$status" = 0 ]
	[[ $output == bookworm*file-5* ]]
	run "$CAISSON" image bootstrap ubuntu
	[ "$status" = 125 ]
	run "$CAISSON" image bootstrap 'debian:;reboot'
	[ "$status" = 125 ]
	run "$CAISSON" image bootstrap debian --packages '$(reboot)'
	[ "$status" = 125 ]
}
