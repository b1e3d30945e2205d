#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Networks through the program; one table for both engines. E2E_KIND: microvm or container. The host's network is a namespace made for each
# test, with a second one behind it as the outside (198.51.100.1); what cannot be reached is tests/net's business, in more detail.

bats_require_minimum_version 1.5.0
load helper
setup_file() { e2e_setup_file; }
setup() {
	e2e_setup
	[ "$(id -u)" = 0 ] || skip "makes network namespaces"
	local tool
	for tool in ip nft curl nsenter; do command -v $tool >/dev/null || skip "needs $tool"; done
	export CAISSON_NET_LINGER_MS=0
	unshare -n sleep 600 3>&- & HOST=$!
	unshare -n sleep 600 3>&- & OUT=$!
	wait_for apart "$HOST"
	wait_for apart "$OUT"
	ip link add wan netns "$HOST" type veth peer name out netns "$OUT"
	on_host sh -c "ip link set lo up; ip addr add 198.51.100.2/24 dev wan; ip link set wan up; ip route add default via 198.51.100.1"
	outside sh -c "ip link set lo up; ip addr add 198.51.100.1/24 dev out; ip link set out up"
	outside python3 -m http.server -d "$BATS_FILE_TMPDIR" -b 198.51.100.1 80 >/dev/null 2>&1 3>&- & SERVER=$!
	wait_for outside curl -s -o /dev/null http://198.51.100.1/
}
teardown() {
	[ -n "${HOST:-}" ] || return 0
	cai ps -aq | xargs -r nsenter -t "$HOST" -n "$CAISSON" rm -f >/dev/null
	cai network ls -q | xargs -r nsenter -t "$HOST" -n "$CAISSON" network rm >/dev/null
	wait_for nothing_of_the_network
	kill "$SERVER" "$HOST" "$OUT"
	nothing_left
}

on_host() { nsenter -t "$HOST" -n "$@"; }
outside() { nsenter -t "$OUT" -n "$@"; }
apart() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
cai() { on_host timeout -k 5 90 "$CAISSON" "$@"; }
new() { cai run $E2E_LIFE_FLAGS "$@"; }
nothing_of_the_network() {
	! on_host ip -o link | grep -q caisson0 && ! on_host nft list tables | grep -q caisson && [ "$(on_host cat /proc/sys/net/ipv4/conf/wan/forwarding)" = 0 ]
}
# a web server NAME with a page that is its name
web() {
	local name=$1
	shift
	new -d --name "$name" "$@" -- sh -c "mkdir /tmp/w; echo page of $name >/tmp/w/index.html; exec httpd -f -h /tmp/w" >/dev/null
}
fetch='printf "GET / HTTP/1.0\r\n\r\n" | nc -w 5'

@test "a sandbox reaches the outside and not its host" {
	on_host python3 -m http.server -d "$BATS_FILE_TMPDIR" 8000 >/dev/null 2>&1 3>&- & local server=$!
	wait_for on_host curl -s -o /dev/null http://198.51.100.2:8000/
	run new --rm -- sh -c "$fetch 198.51.100.1 80 | head -n 1; for a in 198.51.100.2 127.0.0.1 10.213.255.253; do $fetch \$a 8000; done; true"
	kill $server
	[ "$status" -eq 0 ]
	[[ "${lines[0]}" = *"200 OK"* ]]
	[[ "$output" != *"Directory listing"* ]]
}

@test "a published port is reached where it was asked for, and listed" {
	web one -p 8080:80 -p 198.51.100.2:8081:80 -p 80
	run cai port one
	[ "${lines[0]}" = "127.0.0.1:8080 -> 80/tcp" ]
	[ "${#lines[@]}" = 3 ]
	local any=${lines[2]%% *}
	wait_for on_host curl -sf -o /dev/null http://127.0.0.1:8080/
	[ "$(on_host curl -s http://127.0.0.1:8080/)" = "page of one" ]
	[ "$(on_host curl -s "http://$any/")" = "page of one" ]
	[ "$(outside curl -s -m 5 http://198.51.100.2:8081/)" = "page of one" ]
	run ! outside curl -s -m 1 http://198.51.100.2:8080/
	run new --rm -p 8080:80 -- true
	[ "$status" -eq 125 ]
	[[ "$output" = *"port 8080/tcp on 127.0.0.1 is in use"* ]]
	cai rm -f one
	run ! on_host curl -s -m 1 http://127.0.0.1:8080/
}

@test "three members of a named network reach each other by name, and a stranger does not" {
	cai network create shop
	web one --network shop
	web two --network shop
	for name in one two; do
		run new --rm --network shop -- sh -c "for k in 1 2 3 4 5; do $fetch $name 80 | tail -n 1 | grep . && break; sleep 0.3; done"
		[ "$output" = "page of $name" ]
	done
	local addr
	addr=$(cai network inspect shop | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["members"][0]["address4"])')
	run new --rm -- sh -c "$fetch $addr 80; $fetch one 80; true"
	[[ "$output" != *"page of"* ]]
	run cai network rm shop
	[ "$status" -eq 125 ]
	[[ "$output" = *"has 2 members"* ]]
	run new --rm --network nosuch -- true
	[ "$status" -eq 125 ]
	[[ "$output" = *"there is no network 'nosuch'"* ]]
}

@test "files, names and addresses are those that were asked for" {
	run new --rm --hostname box --dns 192.0.2.53 --add-host db:192.0.2.7 --mac 02:00:00:00:00:77 -- \
		sh -c 'cat /etc/resolv.conf /etc/hosts /sys/class/net/eth0/address; hostname'
	[[ "$output" = *"nameserver 192.0.2.53"* ]]
	[[ "$output" = *"192.0.2.7"*"db"* ]]
	[[ "$output" = *"box"* ]]
	[[ "$output" = *"02:00:00:00:00:77"* ]]
	run new --rm --network none -- sh -c 'ls /sys/class/net; cat /etc/resolv.conf'
	[ "${lines[0]}" = lo ]
	[[ "$output" != *eth* && "$output" != *nameserver* ]]
}

@test "a killed runner leaves nothing of its network" {
	web one -p 8080:80
	wait_for on_host curl -sf -o /dev/null http://127.0.0.1:8080/
	local runner
	runner=$(sed -n 's/^user \([0-9]*\) .*/\1/p' /run/caisson/net-*/state | while read -r p; do
		[ "$(readlink "/proc/$p/ns/net")" != "$(readlink "/proc/$HOST/ns/net")" ] || echo "$p"
	done)
	kill -9 $runner
	wait_for sh -c "! nsenter -t $HOST -n ip -o link | grep -q caisson0"
	cai ps -a >/dev/null
	nothing_of_the_network
	run ! on_host curl -s -m 1 http://127.0.0.1:8080/
}
