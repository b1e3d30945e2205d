#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# caisson doctor, version and help; the probe's cache; the notice about KVM.

load helper
setup_file() { e2e_setup_file; }
teardown() { nothing_left; }

json() { python3 -c 'import json, sys; d = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

@test "version prints the version, and JSON when asked" {
	run "$CAISSON" version
	[ "$status" -eq 0 ]
	[[ $output =~ ^caisson\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
	[ "caisson $("$CAISSON" version --json | json 'd["version"]')" = "$output" ]
}

@test "every command has help" {
	for c in run doctor version help; do
		run "$CAISSON" help "$c"
		[ "$status" -eq 0 ]
		[[ $output == usage:* ]]
	done
	for c in run doctor version; do
		run "$CAISSON" "$c" --help
		[ "$status" -eq 0 ]
		[[ $output == usage:* ]]
	done
	run "$CAISSON" --help
	[ "$status" -eq 0 ]
}

@test "doctor says everything it looked at, as text and as JSON" {
	run "$CAISSON" doctor
	[ "$status" -le 1 ]
	for id in host cpu runtime kvm boundary namespaces cgroups memory disk mke2fs helpers monitor kernel initramfs image; do
		[[ $output =~ (ok|degraded|missing)\ +$id ]]
	done
	"$CAISSON" doctor --json >"$BATS_TEST_TMPDIR/j" || true
	[ "$(json 'd["can_run"]' <"$BATS_TEST_TMPDIR/j")" = True -o "$(json 'd["can_run"]' <"$BATS_TEST_TMPDIR/j")" = False ]
	[[ $(json 'd["kvm"]["state"]' <"$BATS_TEST_TMPDIR/j") =~ ^(absent|no-permission|unusable|usable)$ ]]
	[[ $(json 'd["boundary"]' <"$BATS_TEST_TMPDIR/j") =~ ^(software|hypervisor|hardware)$ ]]
	[ "$(json 'all(f["state"] in ("ok", "degraded", "missing") and f["text"] for f in d["findings"])' <"$BATS_TEST_TMPDIR/j")" = True ]
}

@test "what is missing is named with the way to mend it, and doctor's status is 1" {
	CAISSON_SHARE=/no/such/dir run "$CAISSON" doctor
	[ "$status" -eq 1 ]
	[[ $output =~ missing\ +kernel ]]
	[[ $output == *"No sandbox can run here"* ]]
}

@test "doctor and version refuse what they do not know" {
	run "$CAISSON" doctor --jsn
	[ "$status" -eq 125 ]
	[[ $output == *"did you mean --json"* ]]
	run "$CAISSON" version extra
	[ "$status" -eq 125 ]
}

@test "the probe's verdict is cached until the monitor changes" {
	"$CAISSON" doctor >/dev/null || true
	[ "$("$CAISSON" doctor --cached --json | json 'd["kvm"]["cached"]')" = True ]
	touch "$CAISSON_LIBEXEC/caisson-vmm"
	[ "$("$CAISSON" doctor --cached --json | json 'd["kvm"]["cached"]')" = False ]
	[ "$("$CAISSON" doctor --json | json 'd["kvm"]["cached"]')" = False ]
}

@test "auto takes KVM only when it is usable" {
	needs_fake
	verdict() {
		echo "{\"kvm\":\"$1\",\"boundary\":\"$2\",\"reason\":\"as told\",\"mips\":1,\"ns\":5}" >"$CAISSON_LIBEXEC/probe.json"
		touch "$CAISSON_LIBEXEC/caisson-vmm"
	}
	accel() { sandbox "$@" -e CAISSON_ROOT --name probe-test -- "$CAISSON" inspect probe-test | json 'd[0]["accelerator"] + " " + d[0]["boundary"]'; }
	verdict unusable hypervisor
	[ "$(accel)" = "soft software" ]
	run sandbox --boundary hypervisor -- true
	[ "$status" -eq 125 ]
	[[ $output == *"--accel kvm"* ]]
	verdict absent none
	[ "$(accel)" = "soft software" ]
	run sandbox --accel kvm -- true
	[ "$status" -eq 125 ]
	[[ $output == *"KVM is absent"* ]]
	verdict no-permission none
	run sandbox --accel kvm -- true
	[ "$status" -eq 125 ]
	[[ $output == *usermod* ]]
	run sandbox --boundary hardware -- true
	[ "$status" -eq 125 ]
	[[ $output == *usermod* ]]
	[ -c /dev/kvm ] || skip "no /dev/kvm here to pass on"
	verdict usable hardware
	[ "$(accel)" = "kvm hardware" ]
	[ "$(accel --boundary hardware)" = "kvm hardware" ]
	[ "$(accel --accel soft)" = "soft software" ]
	verdict usable hypervisor
	[ "$(accel)" = "kvm hypervisor" ]
	run sandbox --boundary hardware -- true
	[ "$status" -eq 125 ]
	verdict unusable hypervisor
	[ "$(accel --accel kvm 2>/dev/null)" = "kvm hypervisor" ]
	run sandbox --accel kvm -- true
	[ "$status" -eq 0 ]
	[[ $output == *"warning: this host's KVM is unfit"* ]]
	rm "$CAISSON_LIBEXEC/probe.json"
	touch "$CAISSON_LIBEXEC/caisson-vmm"
}

@test "a probe that gives no answer is a verdict against KVM" {
	needs_fake
	echo "nonsense" >"$CAISSON_LIBEXEC/probe.json"
	touch "$CAISSON_LIBEXEC/caisson-vmm"
	[ "$("$CAISSON" doctor --json | json 'd["kvm"]["state"]')" = unusable ]
	run sandbox -- echo fine
	[ "$output" = fine ]
	rm "$CAISSON_LIBEXEC/probe.json"
	touch "$CAISSON_LIBEXEC/caisson-vmm"
}
