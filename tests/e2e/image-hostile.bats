# SPDX-License-Identifier: Apache-2.0
# Archives that mean no good: each is refused with a sentence, or costs a bounded amount of time, memory and disk.

load helper

setup_file() {
	e2e_setup_file
	cp "$E2E_IMAGE" "$CAISSON_LIBEXEC/caisson-image"
	export W=$BATS_FILE_TMPDIR/w HERE=$BATS_TEST_DIRNAME
	mkdir -p "$W"
}

setup() { rm -rf "$CAISSON_ROOT/images"; }

hostile() { python3 "$HERE/hostile_layers.py" "$@"; }

# import KIND ARGUMENTS...: at most a minute and 1.5 GiB; $output is what it said
import() {
	hostile "$@" >"$W/archive"
	run timeout 90 python3 - "$CAISSON_LIBEXEC/caisson-image" "$W/archive" <<-'PY'
		import resource, subprocess, sys, time
		t = time.time()
		r = subprocess.run([sys.argv[1], "import", sys.argv[2], "hostile"], capture_output=True, text=True, errors="replace")
		print(r.stdout + r.stderr, end="")
		used = resource.getrusage(resource.RUSAGE_CHILDREN)
		if time.time() - t > 60 or used.ru_maxrss > 1500000:
		    print("took", time.time() - t, "s and", used.ru_maxrss, "KiB"); sys.exit(1)
		sys.exit(r.returncode)
	PY
	rm -f "$W/archive"
}

refused() {
	[ "$status" = 125 ]
	[[ $output == "caisson: cannot import "* ]]
	[[ $output == *"$1"* ]]
	[ "$(echo "$output" | wc -l)" = 1 ]
	[ -z "$(find "$CAISSON_ROOT/images" -type f ! -name lock)" ]
}

@test "names and hard links that lead out are refused" {
	local name link
	while read -r name typ link; do
		import one "$name" "$typ" "$link"
		refused image
	done <<-'END'
		../x 0
		a/../../x 0
		x 1 ../../etc/passwd
		x 1 /etc/passwd
		..  5
	END
}

@test "absolute names and symbolic links out stay inside" {
	command -v jq >/dev/null || skip "needs jq"
	local out=$W/victim
	mkdir "$out"
	{
		hostile one "/abs$W/victim/x" 0 "" | head -c -1024
		hostile one out 2 "$out" | head -c -1024
		hostile one out2 2 ../../../../../../../../..$out | head -c -1024
		hostile one out/y 0 "" | head -c -1024
		hostile one out2/z 0 ""
	} >"$W/links.tar"
	run "$CAISSON" image import "$W/links.tar" links
	[ "$status" = 0 ]
	[ -z "$(ls "$out")" ]
	[ "$("$CAISSON" image import --json "$W/links.tar" links | jq .new)" = false ] || true
}

@test "a million tiny files take bounded time and memory" {
	import many 1000000
	[ "$status" = 0 ]
}

@test "more than two million entries are refused" {
	import again 2001000
	refused "2000000 entries"
}

@test "a 100 GB sparse file costs what it holds" {
	truncate -s 100G "$W/sparse"
	printf end >>"$W/sparse"
	local format
	for format in gnu pax; do
		tar -C "$W" --sparse --format=$format -cf "$W/sparse.tar" sparse
		run timeout 60 "$CAISSON" image import -q "$W/sparse.tar"
		[ "$status" = 0 ]
		[ "$(du -sk "$CAISSON_ROOT/images" | cut -f1)" -lt 1000 ]
		rm -rf "$CAISSON_ROOT/images"
	done
	rm "$W/sparse"
}

@test "a compression bomb is refused, with gzip and with zstd" {
	import bomb
	refused "times its size"
	command -v zstd >/dev/null || skip "needs zstd"
	import zstd-bomb
	refused "times its size"
}

@test "names that cost more to walk than any image needs are refused" {
	import links 4000
	refused "parts than Caisson walks"
}

@test "attributes by the thousand, and large ones, are refused" {
	import attributes 100
	refused "extended attributes"
	import big-attribute
	refused "extended attributes"
}

@test "sizes that nothing follows are refused" {
	import claims
	refused ""
	import sparse-claims
	refused ""
	import deep
	refused "nested"
}

@test "attributes that would steer the overlay are left out" {
	[ "$(id -u)" = 0 ] || skip "mounting needs root"
	import overlay
	[ "$status" = 0 ]
	mkdir -p "$W/mnt"
	mount -t erofs -o loop,ro "$CAISSON_ROOT"/images/*.erofs "$W/mnt" || skip "cannot mount EROFS here"
	run python3 -c 'import os, sys; print(os.listxattr(sys.argv[1] + "/d"))' "$W/mnt"
	umount "$W/mnt"
	[ "$output" = "['user.kept']" ]
}

@test "names do not drive the terminal" {
	import one $'../\e]0;owned\a' 0 ""
	[[ $output != *$'\e'* ]]
	[[ $output != *$'\a'* ]]
	refused "leads out"
}

@test "an archive cannot give its image a name that looks like another's id" {
	command -v skopeo >/dev/null || skip "needs skopeo"
	command -v umoci >/dev/null || skip "needs umoci"
	command -v jq >/dev/null || skip "needs jq"
	cd "$W"
	mkdir -p good && echo good >good/f
	local id
	id=$("$CAISSON" image import -q good good)
	umoci init --layout evil && umoci new --image evil:v1
	echo evil >evil.f
	tar -cf evil.tar evil.f
	umoci raw add-layer --image evil:v1 evil.tar
	skopeo copy -q oci:evil:v1 docker-archive:saved.tar:x:1
	mkdir saved && tar -C saved -xf saved.tar
	jq -c --arg t "$id" '.[0].RepoTags = [$t]' saved/manifest.json >m && cp m saved/manifest.json
	tar -C saved -cf saved.tar $(ls saved)
	run "$CAISSON" image import -q saved.tar
	[ "$status" = 0 ]
	[ "$output" != "$id" ]
	[ "$("$CAISSON" image inspect "$id" | jq -r '.[0].id')" = "$id" ]
}

@test "a full disk ends an import with a sentence and nothing left on it" {
	[ "$(id -u)" = 0 ] || skip "mounting needs root"
	mkdir -p "$W/full" "$W/large"
	head -c 8000000 /dev/urandom >"$W/large/f"
	mount -t tmpfs -o size=3m none "$W/full" || skip "cannot mount a tmpfs here"
	CAISSON_ROOT=$W/full run "$CAISSON" image import "$W/large"
	local left
	left=$(find "$W/full" -type f ! -name lock)
	umount "$W/full"
	[ "$status" = 125 ]
	[[ $output == *"No space left on device"* ]]
	[ -z "$left" ]
}
