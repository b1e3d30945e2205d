#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Terminals, through a pseudo-terminal driven by terminal.py.

load helper
setup_file() { e2e_setup_file; }
setup() {
	e2e_setup
	command -v python3 >/dev/null || skip "python3 is not installed"
}
teardown() { nothing_left; }

case_() { timeout -k 5 120 python3 "$BATS_TEST_DIRNAME/terminal.py" "$1" "$CAISSON" run $E2E_FLAGS; }

@test "-it gives the program a terminal and the caller's size" { case_ size; }
@test "a change of size reaches the program" { case_ resize; }
@test "Ctrl-C at the terminal interrupts the program inside, not caisson" { case_ ctrl_c; }
@test "Ctrl-D ends a shell" { case_ ctrl_d; }
@test "the terminal is as before after an exit" { case_ restored; }
@test "the terminal is as before after SIGTERM" { case_ restored_term; }
@test "the terminal is as before when the monitor is killed" { case_ restored_kill; }
@test "TERM of the host reaches the program" { case_ term; }
@test "without -t Ctrl-C at the terminal is SIGINT for the program" { case_ sigint; }
@test "the notice about KVM is said once, on a terminal only" { case_ notice; }
