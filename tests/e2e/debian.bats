#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Real programs of Debian 12 give the same results in a sandbox as on this host: each workload runs once natively (in a chroot of
# the same root directory) and in sandboxes with 1 and with 4 CPUs, and their outputs are compared byte by byte.
#   DEBIAN_ROOT   where the root directory is, or is made (make-debian-root.sh)

bats_require_minimum_version 1.5.0
load helper

setup_file() {
	e2e_setup_file
	export W=$BATS_FILE_TMPDIR/w
	"$BATS_TEST_DIRNAME/make-debian-root.sh" "${DEBIAN_ROOT:?}" 2>"$BATS_FILE_TMPDIR/why" || return 0
	mkdir -p "$W"
	cp "$BATS_TEST_DIRNAME"/workloads/* "$W"
	python3 - "$W" <<'PY'
import random, sys
rng = random.Random(7)
open(sys.argv[1] + "/data.small", "wb").write(rng.randbytes(1000003))
with open(sys.argv[1] + "/data.large", "w") as f:
    n = 0
    while n < 50000000:
        n += f.write(f"{rng.getrandbits(40):x} {rng.getrandbits(24)} the quick brown fox {rng.getrandbits(8)}\n")
PY
	native 'openssl genrsa 2048 2>/dev/null' >"$BATS_FILE_TMPDIR/rsa.pem"
	native 'openssl genpkey -algorithm ed25519' >"$BATS_FILE_TMPDIR/ed25519.pem"
	cp "$BATS_FILE_TMPDIR"/*.pem "$W"
}

setup() {
	[ -d "$DEBIAN_ROOT" ] || skip "$(tail -n 1 "$BATS_FILE_TMPDIR/why")"
	[ "$(id -u)" -eq 0 ] || skip "a chroot needs root"
	e2e_setup
}
teardown() { nothing_left; }

# glibc's sin, exp, pow... round differently in the last bit where the CPU fuses multiply and add; guests of CPU model v2 have no FMA,
# so the native side is told to do without.
NO_FMA=GLIBC_TUNABLES=glibc.cpu.hwcaps=-FMA,-FMA4,-AVX,-AVX2,-AVX512F

# native SCRIPT: runs it in the root directory with the workloads in /tmp/w, leaving the directory as it was
native() {
	unshare -m sh -c '
		mount --make-rprivate / &&
		mount -t tmpfs none "$1/tmp" && mkdir "$1/tmp/w" && cp "$2"/* "$1/tmp/w" &&
		mount -t proc none "$1/proc" && mount --bind /dev "$1/dev" &&
		exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$4" sh -c "$3"' sh "$DEBIAN_ROOT" "$W" "$1" "$NO_FMA"
}

# same FILES COMMAND: COMMAND's output is the same natively and with 1 and 4 CPUs; FILES are passed in
same() {
	local files=$1 command=$2 n
	native "cd /tmp/w && $command" >"$BATS_TEST_TMPDIR/native" 2>&1
	[ -s "$BATS_TEST_TMPDIR/native" ]
	for n in 1 4; do
		tar c -C "$W" $files | timeout 1500 "$CAISSON" run $E2E_FLAGS --cpus $n -m 2G -i --rootfs "$DEBIAN_ROOT" -- \
			env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -c "mkdir /tmp/w && cd /tmp/w && tar x && $command" \
			>"$BATS_TEST_TMPDIR/sandbox" 2>&1 || echo "status $?" >>"$BATS_TEST_TMPDIR/sandbox"
		diff "$BATS_TEST_TMPDIR/native" "$BATS_TEST_TMPDIR/sandbox" | head -n 40
		cmp "$BATS_TEST_TMPDIR/native" "$BATS_TEST_TMPDIR/sandbox"
	done
}

@test "Python: floats, big integers, decimal, threads, processes, json, sqlite3, hashlib, zlib" {
	same python.py "python3 python.py"
}
@test "gcc compiles C that uses long double, vectors, threads and signals, and it runs" { same c.sh "sh c.sh"; }
@test "OpenSSL's digests, ciphertexts and signatures" { same "openssl.sh data.small rsa.pem ed25519.pem" "sh openssl.sh"; }
@test "SQLite" { same sqlite.sh "sh sqlite.sh"; }
@test "redis-server with redis-cli" { same redis.sh "sh redis.sh"; }
@test "git init, commit, merge, log, gc, clone" { same git.sh "sh git.sh"; }
@test "sort, gzip, xz and sha256sum over 50 MB" { same "text.sh data.large" "sh text.sh"; }
