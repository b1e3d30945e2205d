# SPDX-License-Identifier: Apache-2.0
# Images: import of every kind of source, the store's commands, and what is refused.

load helper

setup_file() {
	e2e_setup_file
	cp "$E2E_IMAGE" "$CAISSON_LIBEXEC/caisson-image"
	export W=$BATS_FILE_TMPDIR/w
	mkdir -p "$W/tree/a/b" "$W/tree/many"
	echo hello >"$W/tree/a/f"
	ln "$W/tree/a/f" "$W/tree/a/b/hard"
	ln -s ../../etc "$W/tree/link"
	truncate -s 1G "$W/tree/sparse"
	echo end >>"$W/tree/sparse"
	head -c 70000 /dev/urandom >"$W/tree/big"
	chmod 4755 "$W/tree/a/b"
	for i in $(seq 300); do echo "$i" >"$W/tree/many/a-rather-long-file-name-$i"; done
	[ "$(id -u)" != 0 ] || mknod "$W/tree/null" c 1 3
}

image() { run "$CAISSON" image "$@"; }

# listing DIR: everything about a tree that an image must keep
listing() {
	(cd "$1" && find . -printf '%p %y %m %U %G %n %T@ %l\n' | sort && find . -type f -size -1M -print0 | sort -z | xargs -0 sha256sum)
}

# mounted REF COMMAND...: runs a command with the image mounted on $W/mnt
mounted() {
	local file
	file=$("$CAISSON" image inspect "$1" | jq -r '.[0].rootfs')
	shift
	mkdir -p "$W/mnt"
	mount -t erofs -o loop,ro "$file" "$W/mnt" || return 1
	"$@"
	local status=$?
	umount "$W/mnt"
	return $status
}

can_mount() {
	[ "$(id -u)" = 0 ] || skip "mounting needs root"
	grep -qw erofs /proc/filesystems || skip "this kernel has no EROFS"
	command -v jq >/dev/null || skip "needs jq"
}

@test "a directory becomes an image that holds the same tree" {
	can_mount
	image import "$W/tree" tree:1
	[ "$status" = 0 ]
	listing "$W/tree" >"$W/want"
	mounted tree:1 listing "$W/mnt" >"$W/got" || skip "cannot mount EROFS here"
	diff "$W/want" "$W/got"
}

@test "a directory that holds the store itself is imported without the file being made" {
	mkdir -p "$W/self"
	cp "$W/tree/big" "$W/self/"
	CAISSON_ROOT=$W/self/root image import --json "$W/self" self
	[ "$status" = 0 ]
	[ "$(jq .size <<<"$output")" -lt 200000 ]
	rm -r "$W/self"
}

@test "a root tar, plain or compressed, becomes the same image" {
	tar -C "$W/tree" --sparse -cf "$W/root.tar" .
	gzip -k "$W/root.tar"
	image import -q "$W/root.tar" tar:plain
	[ "$status" = 0 ]
	local id=$output
	image import -q "$W/root.tar.gz" tar:gz
	[ "$status" = 0 ]
	[ "$output" = "$id" ]
}

@test "an image of several layers equals umoci's unpack" {
	can_mount
	command -v umoci >/dev/null || skip "needs umoci"
	cd "$W"
	umoci init --layout oci && umoci new --image oci:v1 && umoci unpack --image oci:v1 b1
	mkdir -p b1/rootfs/gone/x b1/rootfs/kept/deep && touch b1/rootfs/gone/x/y b1/rootfs/kept/1 b1/rootfs/kept/deep/2 b1/rootfs/file
	cp -a tree/a tree/many tree/link b1/rootfs/
	umoci repack --image oci:v1 b1
	rm -rf b1/rootfs && umoci unpack --image oci:v1 b2
	rm -rf b2/rootfs/gone b2/rootfs/kept/deep b2/rootfs/file
	ln b2/rootfs/a/f b2/rootfs/kept/hard
	umoci repack --image oci:v1 b2
	umoci config --image oci:v1 --config.entrypoint /bin/sh --config.env A=b
	umoci unpack --image oci:v1 b3
	image import oci layers:1
	[ "$status" = 0 ]
	listing b3/rootfs >want
	mounted layers:1 listing "$W/mnt" >got || skip "cannot mount EROFS here"
	diff want got
	[ "$("$CAISSON" image inspect layers:1 | jq -c '.[0].config | [.Entrypoint, .Env]')" = '[["/bin/sh"],["A=b"]]' ]
	if command -v skopeo >/dev/null; then
		skopeo copy -q oci:oci:v1 docker-archive:saved.tar:saved:1
		image import --json saved.tar
		[ "$(jq -r .id <<<"$output")" = "$("$CAISSON" image inspect layers:1 | jq -r '.[0].id')" ]
		[ "$(jq -r .tag <<<"$output")" = docker.io/library/saved:1 ]
		skopeo copy -q --dest-compress-format zstd oci:oci:v1 oci-archive:zstd.tar:v1
		image import zstd.tar zstd:1
		[ "$status" = 0 ]
	fi
}

@test "archives of several images, directories of skopeo's and standard input are imported" {
	command -v umoci >/dev/null && command -v skopeo >/dev/null && command -v jq >/dev/null || skip "needs umoci, skopeo and jq"
	mkdir -p "$W/sev" && cd "$W/sev"
	local k id1 id2
	umoci init --layout oci
	for k in 1 2; do
		umoci new --image oci:v$k
		tar -C "$W/tree/a" -cf $k.tar f --transform "s/f/f$k/"
		umoci raw add-layer --image oci:v$k $k.tar
		skopeo copy -q oci:oci:v$k docker-archive:$k.saved:several/x:$k
		mkdir -p all
		tar -C all -xf $k.saved
		cp all/manifest.json $k.json
	done
	jq -cs 'add | .[0].RepoTags += ["several/other:1"]' 1.json 2.json >all/manifest.json
	(cd all && tar -cf ../all.tar *)
	image import all.tar
	[ "$status" = 125 ]
	[[ $output == *"holds 2 images"* ]]
	image import -q all.tar several/x:2
	[ "$status" = 0 ]
	id2=$output
	image import -q 2.saved
	[ "$output" = "$id2" ]
	image import --json - <1.saved
	[ "$status" = 0 ]
	[ "$(jq -r .tag <<<"$output")" = docker.io/several/x:1 ]
	id1=$(jq -r .id <<<"$output")
	[ "$id1" != "$id2" ]
	skopeo copy -q oci:oci:v1 dir:flat
	image import -q flat flat:1
	[ "$output" = "$id1" ]
	image import -q oci
	[ "$status" = 125 ]
	[[ $output == *"several images"*v1*v2* ]]
	image import -q oci v1
	[ "$output" = "$id1" ]
	jq -c '[.[0]]' all/manifest.json >m && cp m all/manifest.json && (cd all && tar -cf ../all.tar *)
	image import -q all.tar
	[ "$output" = "$id1" ]
	image inspect several/other:1
	[ "$status" = 0 ]
}

@test "names are listed and removed, and the image goes with its last name" {
	image import -q "$W/tree/a" one
	local id=$output
	image import -q "$W/tree/a" two
	[ "$output" = "$id" ]
	image ls
	[[ $output == *one:latest* ]]
	[[ $output == *two:latest* ]]
	image rm one
	[ "$status" = 0 ]
	[[ $output != *deleted* ]]
	image rm two
	[[ $output == *"deleted $id"* ]]
	image inspect two
	[ "$status" = 125 ]
}

@test "an image that a sandbox was made from stays" {
	image import -q "$W/tree/a" used:1
	local id=$output
	mkdir -p "$CAISSON_ROOT/sandboxes/0123456789ab"
	echo "{\"image_id\":\"$id\"}" >"$CAISSON_ROOT/sandboxes/0123456789ab/config.json"
	image rm used:1
	[ "$status" = 125 ]
	[[ $output == *"used by 1 sandbox;"* ]]
	"$CAISSON_LIBEXEC/caisson-image" import "$W/tree/a" used:2
	image rm used:1
	[ "$status" = 0 ]
	image rm "$id"
	[ "$status" = 125 ]
	image prune
	image inspect "$id"
	[ "$status" = 0 ]
	image rm -f "$id"
	[ "$status" = 0 ]
	rm -r "$CAISSON_ROOT/sandboxes/0123456789ab"
}

@test "prune removes images without a name and keeps the others" {
	image import "$W/tree/many"
	image import "$W/tree/a" kept
	image prune
	[ "$status" = 0 ]
	[[ $output == *deleted* ]]
	image inspect kept
	[ "$status" = 0 ]
}

@test "archives that lead out, lie or are cut short are refused with a sentence" {
	cd "$W"
	tar -P -cf up.tar --transform 's,^,../../,' -C tree a/f
	image import up.tar
	[ "$status" = 125 ]
	[[ $output == *"leads out of the image"* ]]
	[ -e root.tar ] || tar -C tree -cf root.tar a
	head -c 20000 root.tar >cut.tar
	image import cut.tar
	[ "$status" = 125 ]
	[[ $output == caisson:* ]]
	echo nonsense >bad.tar
	image import bad.tar
	[ "$status" = 125 ]
	image import nowhere
	[ "$status" = 125 ]
	[[ $output == *nowhere* ]]
}

@test "an import killed at any moment leaves nothing visible and nothing behind" {
	head -c 60000000 /dev/urandom >"$W/tree/a/large"
	local t
	for t in 0.002 0.01 0.03 0.06; do
		timeout -s KILL $t "$CAISSON_LIBEXEC/caisson-image" import "$W/tree/a" killed >/dev/null 2>&1 || true
		image inspect killed
		[ "$status" = 125 ] || break
	done
	rm "$W/tree/a/large"
	sleep 0.2
	image prune
	[ "$status" = 0 ]
	[ -z "$(ls "$CAISSON_ROOT/images/tmp")" ]
	for f in "$CAISSON_ROOT"/images/*.erofs; do [ -e "${f%.erofs}.json" ]; done
}

@test "an export as EROFS is the image's file" {
	command -v jq >/dev/null || skip "needs jq"
	image import "$W/tree" exported
	image export exported "$W/out.erofs"
	[ "$status" = 0 ]
	cmp "$W/out.erofs" "$("$CAISSON" image inspect exported | jq -r '.[0].rootfs')"
	"$CAISSON" image export --format erofs exported - | cmp - "$W/out.erofs"
	image export exported "$W/no/such/out"
	[ "$status" = 125 ]
	image export --format zip exported "$W/out.zip"
	[ "$status" = 125 ]
	[[ $output == *"'zip' is no format"* ]]
	[ ! -e "$W/out.zip" ]
}

@test "an export as a tar or an OCI archive has the same tree, for Caisson, umoci and skopeo" {
	can_mount
	command -v umoci >/dev/null && command -v skopeo >/dev/null || skip "needs umoci and skopeo"
	mkdir -p "$W/exp" && cd "$W/exp"
	python3 "$BATS_TEST_DIRNAME/make_layers.py" layers
	umoci init --layout oci
	umoci new --image oci:v1
	for k in 1 2 3 4; do umoci raw add-layer --image oci:v1 layers/$k.tar; done
	umoci config --image oci:v1 --config.cmd /bin/su --config.env A=b
	image import oci exp:1
	[ "$status" = 0 ]
	mounted exp:1 python3 "$BATS_TEST_DIRNAME/list_tree.py" "$W/mnt" >want || skip "cannot mount EROFS here"
	[ "$(wc -l <want)" -gt 450 ]
	image export exp:1 exp.tar
	[ "$status" = 0 ]
	"$CAISSON" image export --format tar exp:1 root.tar
	"$CAISSON" image export exp:1 - | cmp - exp.tar
	[ "$(stat -c %s root.tar)" -lt 3000000 ]
	image import root.tar exp:tar
	mounted exp:tar python3 "$BATS_TEST_DIRNAME/list_tree.py" "$W/mnt" >got
	diff want got
	"$CAISSON" image rm exp:1
	image import -q exp.tar
	[ "$status" = 0 ]
	mounted exp:1 python3 "$BATS_TEST_DIRNAME/list_tree.py" "$W/mnt" >got
	diff want got
	[ "$("$CAISSON" image inspect exp:1 | jq -c '.[0].config | [.Cmd, .Env]')" = '[["/bin/su"],["A=b"]]' ]
	skopeo copy -q docker-archive:exp.tar oci:copied:v1
	skopeo copy -q oci-archive:exp.tar oci:copied:v2
	umoci unpack --image copied:v2 unpacked
	diff <(grep -v "^b'\.' " want) <(python3 "$BATS_TEST_DIRNAME/list_tree.py" unpacked/rootfs | grep -v "^b'\.' ")
}

@test "an unknown command names the one that was meant" {
	image inpect x
	[ "$status" = 125 ]
	[[ $output == *"'inspect'"* ]]
}
