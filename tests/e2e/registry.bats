# SPDX-License-Identifier: Apache-2.0
# Pulling: from Debian's docker-registry where it is installed (the suite `long` installs it), and from a stand-in that can be told to misbehave.

load helper

setup_file() {
	e2e_setup_file
	cp "$E2E_IMAGE" "$CAISSON_LIBEXEC/caisson-image"
	export W=$BATS_FILE_TMPDIR/w HERE=$BATS_TEST_DIRNAME HOME=$BATS_FILE_TMPDIR/home DOCKER_CONFIG=
	mkdir -p "$W" "$HOME"
	command -v umoci >/dev/null || return 0
	cd "$W"
	python3 "$HERE/make_layers.py" layers
	umoci init --layout oci
	umoci new --image oci:v1
	for k in 1 2 3 4; do umoci raw add-layer --image oci:v1 layers/$k.tar; done
	umoci config --image oci:v1 --config.cmd /bin/su --config.env A=b
	# An index of platforms, with an attestation; and its own name for it.
	python3 - <<-'PY'
		import hashlib, json
		index = json.load(open("oci/index.json"))
		one = dict(index["manifests"][0]); one.pop("annotations"); one["platform"] = {"os": "linux", "architecture": "amd64"}
		other = dict(one, digest="sha256:" + "0" * 64, platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
		proof = dict(one, digest="sha256:" + "1" * 64, platform={"os": "unknown", "architecture": "unknown"})
		for name, list in (("multi", [other, one, proof]), ("foreign", [other])):
		    doc = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": list}).encode()
		    d = hashlib.sha256(doc).hexdigest()
		    open("oci/blobs/sha256/" + d, "wb").write(doc)
		    index["manifests"].append({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": "sha256:" + d, "size": len(doc),
		                               "annotations": {"org.opencontainers.image.ref.name": name}})
		json.dump(index, open("oci/index.json", "w"))
	PY
}

setup() {
	command -v umoci >/dev/null || skip "needs umoci"
	command -v jq >/dev/null || skip "needs jq"
	rm -rf "$CAISSON_ROOT/images" "$HOME/.docker"
	SERVERS=()
}

teardown() {
	for p in "${SERVERS[@]}"; do kill "$p" 2>/dev/null || true; done
	wait 2>/dev/null || true
}

# serve FLAGS...: starts the stand-in; $PORT is where
serve() {
	rm -f "$W/port"
	python3 "$HERE/registry_standin.py" "$@" --log "$W/log" "$W/port" t/v="$W/oci" 3>&- &
	SERVERS+=($!)
	: >"$W/log"
	wait_for test -e "$W/port"
	PORT=$(cat "$W/port")
}

# login USER:PASSWORD [HOST]
login() {
	mkdir -p "$HOME/.docker"
	echo "{\"auths\":{\"${2:-127.0.0.1:$PORT}\":{\"auth\":\"$(printf %s "$1" | base64)\"}}}" >"$HOME/.docker/config.json"
}

pull() { run timeout 60 "$CAISSON" pull "$@"; }

nothing_visible() {
	[ "$("$CAISSON" image ls -q | wc -l)" = 0 ]
	"$CAISSON" image prune >/dev/null
	[ -z "$(find "$CAISSON_ROOT/images" -type f ! -name lock ! -name tags.json)" ]
}

can_mount() {
	[ "$(id -u)" = 0 ] || skip "mounting needs root"
	grep -qw erofs /proc/filesystems || skip "this kernel has no EROFS"
}

# umoci gives the root, and directories that no layer has an entry for, the time of unpacking.
timeless() { sed -E "/^b'(\.|implied(\/parent)?)' /s/mtime=[0-9]+//"; }

# same_tree REF: the image's tree is what umoci unpacks
same_tree() {
	mkdir -p "$W/mnt"
	[ -d "$W/umoci" ] || umoci unpack --image "$W/oci:v1" "$W/umoci" >/dev/null 2>&1
	python3 "$HERE/list_tree.py" "$W/umoci/rootfs" | timeless >"$W/want"
	mount -t erofs -o loop,ro "$("$CAISSON" image inspect "$1" | jq -r '.[0].rootfs')" "$W/mnt" || skip "cannot mount EROFS here"
	python3 "$HERE/list_tree.py" "$W/mnt" | timeless >"$W/got"
	umount "$W/mnt"
	[ "$(wc -l <"$W/want")" -gt 450 ]
	diff "$W/want" "$W/got"
}

@test "an image from Debian's docker-registry has the tree that umoci unpacks, entry by entry" {
	can_mount
	command -v docker-registry >/dev/null || skip "needs docker-registry"
	command -v skopeo >/dev/null || skip "needs skopeo"
	PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	cat >"$W/registry.yml" <<-END
		version: 0.1
		log: {level: error}
		storage: {filesystem: {rootdirectory: $W/registry}}
		http: {addr: "127.0.0.1:$PORT"}
	END
	docker-registry serve "$W/registry.yml" >"$W/registry.log" 2>&1 3>&- &
	SERVERS+=($!)
	wait_for bash -c "exec 2>/dev/null; >/dev/tcp/127.0.0.1/$PORT"
	skopeo copy -q --dest-tls-verify=false "oci:$W/oci:v1" "docker://127.0.0.1:$PORT/t/v:1"
	skopeo copy -q --dest-tls-verify=false --dest-compress-format zstd "oci:$W/oci:v1" "docker://127.0.0.1:$PORT/t/v:zstd"
	skopeo copy -q --dest-tls-verify=false --format v2s2 "oci:$W/oci:v1" "docker://127.0.0.1:$PORT/t/v:docker"
	pull -q "127.0.0.1:$PORT/t/v:1"
	[ "$status" = 0 ]
	local id=$output
	same_tree "127.0.0.1:$PORT/t/v:1"
	"$CAISSON" image rm "$id"
	pull -q "127.0.0.1:$PORT/t/v:zstd"
	[ "$status" = 0 ]
	[ "$output" = "$id" ]
	same_tree "$id"
	pull "127.0.0.1:$PORT/t/v:docker"
	[ "$status" = 0 ]
	pull "127.0.0.1:$PORT/t/v:none"
	[ "$status" = 125 ]
	[[ $output == *"has no image"* ]]
}

@test "an image of a multi-arch index has the tree that umoci unpacks" {
	can_mount
	serve
	pull "localhost:$PORT/t/v:multi"
	[ "$status" = 0 ]
	same_tree "localhost:$PORT/t/v:multi"
	[ "$("$CAISSON" image inspect "localhost:$PORT/t/v:multi" | jq -c '.[0].config | [.Cmd, .Env]')" = '[["/bin/su"],["A=b"]]' ]
	pull "localhost:$PORT/t/v:foreign"
	[ "$status" = 125 ]
	[[ $output == *"linux/amd64"* ]]
}

@test "basic authentication takes its credentials from docker's config.json" {
	serve --auth basic --user me:se:cret
	pull "127.0.0.1:$PORT/t/v:v1"
	[ "$status" = 125 ]
	[[ $output == *"wants credentials"* ]]
	login me:wrong
	pull "127.0.0.1:$PORT/t/v:v1"
	[ "$status" = 125 ]
	[[ $output == *"refuses the credentials"* ]]
	nothing_visible
	login me:se:cret
	pull "127.0.0.1:$PORT/t/v:v1"
	[ "$status" = 0 ]
}

@test "credential helpers are asked for their credentials" {
	serve --auth basic --user me:secret
	mkdir -p "$W/bin" "$HOME/.docker"
	printf '#!/bin/sh\nread host; [ "$1 $host" = "get 127.0.0.1:%s" ] && echo "{\\"Username\\":\\"me\\",\\"Secret\\":\\"secret\\"}"\n' "$PORT" >"$W/bin/docker-credential-test"
	chmod +x "$W/bin/docker-credential-test"
	local config
	for config in "{\"credHelpers\":{\"127.0.0.1:$PORT\":\"test\"}}" '{"credsStore":"test"}'; do
		rm -rf "$CAISSON_ROOT/images"
		echo "$config" >"$HOME/.docker/config.json"
		PATH=$W/bin:$PATH pull "127.0.0.1:$PORT/t/v:v1"
		[ "$status" = 0 ]
	done
	for config in '{"credsStore":"no-such"}' '{"credsStore":"../test"}' nonsense; do
		echo "$config" >"$HOME/.docker/config.json"
		PATH=$W/bin:$PATH pull "127.0.0.1:$PORT/t/v:multi"
		[ "$status" = 125 ]
		[[ $output == *"wants credentials"* ]]
	done
}

@test "bearer tokens are fetched, and fetched again when they run out" {
	serve --auth bearer --expire 2
	login u:wrong
	pull "127.0.0.1:$PORT/t/v:v1"
	[ "$status" = 125 ]
	[[ $output == *"are the credentials right"* ]]
	login u:p
	pull "127.0.0.1:$PORT/t/v:multi"
	[ "$status" = 0 ]
	[ "$(grep -c '^200 /token' "$W/log")" -ge 2 ]
	serve --auth bearer --user anonymous
	rm -rf "$HOME/.docker" "$CAISSON_ROOT/images"
	pull "127.0.0.1:$PORT/t/v:v1"
	[ "$status" = 0 ]
}

@test "blobs that are elsewhere are fetched there, without the credentials" {
	for kind in basic bearer; do
		rm -rf "$CAISSON_ROOT/images"
		serve --auth $kind --redirect 127.0.0.2
		login u:p
		pull "127.0.0.1:$PORT/t/v:v1"
		[ "$status" = 0 ]
		grep -q '^200 /elsewhere/.* - ' "$W/log"
		[ -z "$(grep '/elsewhere/.* auth ' "$W/log")" ]
	done
}

@test "a transfer that breaks off goes on where it stopped, or from the start where the registry knows no ranges" {
	serve --cut 5000
	pull "127.0.0.1:$PORT/t/v:v1"
	[ "$status" = 0 ]
	grep -q '^206 .* bytes=5000-' "$W/log"
	rm -rf "$CAISSON_ROOT/images"
	serve --cut 5000 --no-range
	pull "127.0.0.1:$PORT/t/v:v1"
	[ "$status" = 0 ]
}

@test "what is not what its digest says is refused, and nothing of it stays" {
	local digest
	digest=$(jq -r '.manifests[0].digest' "$W/oci/index.json")
	local lie
	for lie in config layer more huge; do
		serve --lie $lie
		pull "127.0.0.1:$PORT/t/v:v1"
		[ "$status" = 125 ]
		[[ $output == caisson:*"127.0.0.1:$PORT/t/v:v1"* ]]
		nothing_visible
	done
	serve --lie manifest
	pull "127.0.0.1:$PORT/t/v@$digest"
	[ "$status" = 125 ]
	[[ $output == *"instead of $digest"* ]]
	serve
	pull "127.0.0.1:$PORT/t/v@$digest"
	[ "$status" = 0 ]
	"$CAISSON" image inspect "127.0.0.1:$PORT/t/v@$digest" >/dev/null
}

@test "what is not there, and nobody there, is said" {
	serve
	pull "127.0.0.1:$PORT/no/such:v1"
	[ "$status" = 125 ]
	[[ $output == *"has no image no/such:v1"* ]]
	kill "${SERVERS[0]}"
	wait_for bash -c "! kill -0 ${SERVERS[0]} 2>/dev/null"
	pull "127.0.0.1:$PORT/t/v:v1"
	[ "$status" = 125 ]
	[[ $output == *"cannot reach"* ]]
	nothing_visible
}

@test "several pulls of one image at once all succeed" {
	serve --slow 2000000
	local pids=() p
	for p in 1 2 3 4; do
		"$CAISSON" pull -q "127.0.0.1:$PORT/t/v:v1" >"$W/out.$p" 2>&1 &
		pids+=($!)
	done
	for p in "${pids[@]}"; do wait "$p"; done
	[ "$(sort -u "$W"/out.? | wc -l)" = 1 ]
	[ "$("$CAISSON" image ls -q | wc -l)" = 1 ]
	[ -z "$(ls "$CAISSON_ROOT/images/blobs" "$CAISSON_ROOT/images/tmp" | grep -v :)" ]
}

@test "a pull killed at a hundred moments leaves nothing half visible and nothing behind" {
	serve --slow 600000
	local k seen=0 id
	for k in $(seq 100); do
		timeout -s KILL "0.$(printf %03d $((RANDOM % 400)))" "$CAISSON_LIBEXEC/caisson-image" pull "127.0.0.1:$PORT/t/v:v1" >/dev/null 2>&1 || true
		id=$("$CAISSON" image ls -q)
		if [ -n "$id" ]; then
			seen=$((seen + 1))
			[ "$(stat -c %s "$CAISSON_ROOT/images/${id#*:}.erofs")" = "$("$CAISSON" image inspect "$id" | jq '.[0].size')" ]
			! command -v fsck.erofs >/dev/null || fsck.erofs "$CAISSON_ROOT/images/${id#*:}.erofs" >/dev/null
			"$CAISSON" image rm "$id" >/dev/null
		fi
	done
	echo "# $seen of 100 came to their end" >&3
	"$CAISSON" image prune >/dev/null
	nothing_visible
	[ -z "$(pgrep -f "$CAISSON_LIBEXEC/caisson-image" || true)" ]
	pull "127.0.0.1:$PORT/t/v:v1"
	[ "$status" = 0 ]
}

@test "a short name means docker.io/library, over HTTPS with a token" {
	[ "$(id -u)" = 0 ] || skip "a network of its own needs root"
	command -v openssl >/dev/null || skip "needs openssl"
	cd "$W"
	openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=docker.io \
		-addext 'subjectAltName=DNS:registry-1.docker.io,DNS:auth.docker.io' 2>/dev/null
	printf '127.0.0.1 localhost\n127.0.0.1 registry-1.docker.io auth.docker.io\n' >hosts
	mkdir -p "$HOME/.docker"
	echo "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"$(printf u:p | base64)\"}}}" >"$HOME/.docker/config.json"
	# A certificate that nobody vouches for is refused; then it is made to be vouched for.
	unshare -mn --fork bash -ec '
		python3 -c "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack(\"16sH14x\", b\"lo\", 0x49))"
		mount --bind hosts /etc/hosts
		python3 "$HERE/registry_standin.py" --port 443 --auth bearer --realm https://auth.docker.io/token --tls cert.pem,key.pem --log "$W/log" port.tls library/v="$W/oci" 3>&- &
		trap "kill $!" EXIT
		for i in $(seq 100); do [ -e port.tls ] && break; sleep 0.05; done
		"$CAISSON" pull v:v1 >refused 2>&1 && exit 7
		mount --bind cert.pem /etc/ssl/certs/ca-certificates.crt
		"$CAISSON" pull v:v1 >taken 2>&1
	' || { cat refused taken; false; }
	grep -q 'certificate' refused
	"$CAISSON" image ls | grep -q '^v:v1 '
	"$CAISSON" image inspect docker.io/library/v:v1 >/dev/null
}
