#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Ways out of a container that have worked somewhere once.

load helper
setup_file() { container_setup_file; }
setup() {
	container_setup
	HOST=$BATS_TEST_TMPDIR/host
	mkdir -p "$HOST"
	echo secret >"$HOST/secret"
	chmod 755 "$BATS_TEST_TMPDIR" "$HOST"
}
teardown() { container_teardown; }

# A root directory of its own for a test that spoils it.
spoiled() {
	BAD=$BATS_TEST_TMPDIR/bad
	make_root "$BAD"
}
untouched() {
	[ "$(ls -A "$HOST")" = secret ]
	[ "$(cat "$HOST/secret")" = secret ]
}

@test "an image whose /dev is a link to the host's makes nothing there and is refused" {
	for target in "$HOST" ../../../../../../../../../..$HOST; do
		for name in dev proc sys; do
			spoiled
			rm -rf "$BAD/${name:?}"
			ln -s "$target" "$BAD/$name"
			run c --dir "$BAD" /bin/true
			[ "$status" -eq 125 ]
			[[ "$output" == *"/$name in the image is a symbolic link"* ]]
			untouched
			rm -rf "$BAD"
		done
	done
}

@test "an image whose /dev is a file, or is not there, does no harm" {
	spoiled
	rm -rf "$BAD/dev" "$BAD/proc" "$BAD/sys"
	[ "$(c --dir "$BAD" /bin/sh -c 'echo x >/dev/null; ls /proc/self/exe >/dev/null; ls -d /sys/kernel; echo here')" = $'/sys/kernel\nhere' ]
	echo file >"$BAD/dev"
	run c --dir "$BAD" /bin/true
	[ "$status" -eq 125 ]
	[[ "$output" == *"/dev in the image"* ]]
}

@test "links in an image's /dev are the image's own business" {
	spoiled
	ln -s "$HOST" "$BAD/dev/pts"
	ln -s "$HOST" "$BAD/dev/shm"
	ln -s "$HOST/null" "$BAD/dev/null"
	c --dir "$BAD" /bin/sh -c 'echo x >/dev/null; touch /dev/shm/y'
	untouched
}

@test "a mount's place is found in the container, whatever links lead away" {
	spoiled
	ln -s "$HOST" "$BAD/abs"
	ln -s ../../../../../../../../../../..$HOST "$BAD/rel"
	ln -s /proc/self/root "$BAD/magic"
	mkdir "$BATS_TEST_TMPDIR/data"
	echo data >"$BATS_TEST_TMPDIR/data/file"
	mkdir -p "$BAD$HOST"
	[ "$(c --dir "$BAD" --bind "$BATS_TEST_TMPDIR/data:/abs" /bin/cat "$HOST/file")" = data ]
	[ "$(c --dir "$BAD" --bind "$BATS_TEST_TMPDIR/data:/rel/new/deep" /bin/cat "$HOST/new/deep/file")" = data ]
	run c --dir "$BAD" --bind "$BATS_TEST_TMPDIR/data:/magic/x" /bin/ls /
	untouched
	[ ! -e "$HOST/new" ]
}

@test "a link in the image cannot bring a mount into /proc or /sys" {
	spoiled
	ln -s /proc "$BAD/p"
	ln -s /sys/kernel "$BAD/s"
	ln -s /proc/sys/kernel/core_pattern "$BAD/f"
	for place in /p /p/sys /s /proc/self/attr /sys/fs/cgroup; do
		run c --dir "$BAD" --tmpfs "$place" /bin/true
		[ "$status" -eq 125 ]
		[[ "$output" == *"lies in the container's /proc or /sys"* ]]
	done
	run c --dir "$BAD" --bind "$HOST/secret:/f" /bin/true
	[ "$status" -eq 125 ]
	for place in / /dev /dev/../../; do
		run c --dir "$BAD" --tmpfs "$place" /bin/true
		[ "$status" -eq 125 ]
	done
}

@test "/etc/hosts and /etc/resolv.conf are never written through a link, a FIFO or a device" {
	spoiled
	rm -rf "$BAD/etc"
	ln -s "$HOST" "$BAD/etc"
	mkdir -p "$BAD$HOST"
	[ "$(c --dir "$BAD" --hosts "127.0.0.1 me" /bin/cat /etc/hosts)" = "127.0.0.1 me" ]
	untouched
	rm "$BAD/etc"
	mkdir "$BAD/etc"
	ln -s "$HOST/secret" "$BAD/etc/hosts"
	mkfifo "$BAD/etc/resolv.conf"
	[ "$(c --dir "$BAD" --hosts "a" --resolv "b" /bin/cat /etc/hosts /etc/resolv.conf)" = ab ]
	untouched
	rm "$BAD/etc/hosts"
	mkdir "$BAD/etc/hosts"
	run c --dir "$BAD" --hosts a /bin/true
	[ "$status" -eq 125 ]
	[[ "$output" == *"/etc/hosts"* ]]
}

@test "a directory that is exchanged for a link while a container starts leads nowhere" {
	mkdir "$BATS_TEST_TMPDIR/vol" "$BATS_TEST_TMPDIR/data"
	chmod 755 "$BATS_TEST_TMPDIR/vol"
	echo data >"$BATS_TEST_TMPDIR/data/file"
	"$PROBE" flip "$BATS_TEST_TMPDIR/vol/x" "$HOST" 4 &
	flipper=$!
	for i in $(seq 25); do
		# The mount at /vol/x lands in /vol/x or in the container's own $HOST, or fails.
		image --bind "$BATS_TEST_TMPDIR/vol:/vol" --bind "$BATS_TEST_TMPDIR/data:/vol/x" /bin/sh -c "cat $HOST/secret" 2>/dev/null | grep secret && exit 1
		untouched
	done
	kill $flipper 2>/dev/null || true
	wait $flipper || true
}

@test "the working directory cannot be a descriptor of the host's" {
	for fd in 3 4 5 6 7 8 9 10 11 12 13 20; do
		run image --leak "$HOST" --cwd "/proc/self/fd/$fd" /bin/sh -c 'cat secret ../secret ../../../../../../../etc/origin 2>/dev/null; pwd'
		[[ "$output" != *secret* ]]
	done
}

@test "no descriptor of the host's gets in" {
	exec 7<"$HOST" 8<"$HOST/secret"
	[ "$(image --leak "$HOST" /bin/probe fds)" = looked ]
	exec 7<&- 8<&-
	image --info /bin/sleep 3 2>"$BATS_TEST_TMPDIR/info" 3>&- &
	for i in $(seq 100); do pid=$(sed -n 's/^info: pid=\([0-9]*\).*/\1/p' "$BATS_TEST_TMPDIR/info" 2>/dev/null); [ -n "$pid" ] && break; sleep 0.02; done
	for fd in /proc/"$pid"/fd/*; do
		link=$(readlink "$fd" || echo gone)
		case $link in
		/dev/null | socket:* | anon_inode:* | pipe:* | gone) ;;
		*) echo "$fd is $link"; exit 1 ;;
		esac
	done
	[ "$(readlink /proc/"$pid"/cwd)" = / ]
	wait
}

@test "a directory of the host's that is handed in is of no use where Landlock holds" {
	mkdir "$BATS_TEST_TMPDIR/vol"
	chmod 777 "$BATS_TEST_TMPDIR/vol"
	chmod 777 "$HOST"
	image --info /bin/true 2>&1 | grep -q landlock=1 || skip "the host's kernel has no Landlock"
	"$PROBE" give "$BATS_TEST_TMPDIR/vol/sock" "$HOST" 3>&- &
	run image --bind "$BATS_TEST_TMPDIR/vol:/vol" /bin/probe take /vol/sock secret
	wait
	for attempt in openat-inside openat-up open-relative create chroot-out; do grep -Eq "^$attempt: E(ACCES|NOENT)" <<<"$output"; done
	grep -q '^openat-inside: EACCES' <<<"$output"
	untouched
}

@test "the agent's file cannot be written, neither while it runs nor later" {
	cp "$PROBE" "$BATS_TEST_TMPDIR/agent"
	chmod 777 "$BATS_TEST_TMPDIR/agent"
	mkdir "$BATS_TEST_TMPDIR/out"
	before=$(sha256sum <"$BATS_TEST_TMPDIR/agent")
	image --agent "$BATS_TEST_TMPDIR/agent" --bind "$BATS_TEST_TMPDIR/out:/out" /bin/true || true
	cat "$BATS_TEST_TMPDIR/out/result"
	for attempt in write-while-running write-later truncate chmod chown; do
		grep -Eq "^$attempt: (EROFS|ETXTBSY|EACCES|EPERM)$" "$BATS_TEST_TMPDIR/out/result"
	done
	[ "$(sha256sum <"$BATS_TEST_TMPDIR/agent")" = "$before" ]
}

@test "what runs the agent's file by \"#!/proc/self/exe\" gives nobody a way to write it" {
	spoiled
	printf '#!/proc/self/exe\n' >"$BAD/bin/evil"
	chmod 755 "$BAD/bin/evil"
	before=$(sha256sum <"$CAISSON_INIT")
	run c --dir "$BAD" --meanwhile /bin/evil /bin/probe write-exe 2
	[ "$status" -eq 0 ]
	! grep 'writing.*: ok' <<<"$output"
	[ "$(sha256sum <"$CAISSON_INIT")" = "$before" ]
}

@test "device nodes open nothing: in an image, made in the container, in a volume" {
	spoiled
	mknod "$BAD/disk" b 7 0
	mknod "$BAD/mem" c 1 1
	chmod 666 "$BAD/disk" "$BAD/mem"
	mkdir "$BATS_TEST_TMPDIR/vol"
	mknod "$BATS_TEST_TMPDIR/vol/zero" c 1 5
	chmod 666 "$BATS_TEST_TMPDIR/vol/zero"
	run c --dir "$BAD" --bind "$BATS_TEST_TMPDIR/vol:/vol" --tmpfs /scratch /bin/sh -c '
		for f in /disk /mem /vol/zero; do head -c 1 $f && echo opened $f; done
		for d in / /tmp /dev /dev/shm /scratch /vol; do /bin/probe node $d 1 5; done'
	[[ "$output" != *opened* ]]
	! grep '^open-.*: ok' <<<"$output"
}

@test "the six device nodes work, and are not the host's" {
	before=$(stat -c '%a %u %g' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty)
	[ "$(sh_in 'for n in zero random urandom full; do head -c 4 /dev/$n | wc -c; done; echo x >/dev/null && chmod 000 /dev/null; chown 1000 /dev/zero; true' | sort -u)" = 4 ]
	[ "$(stat -c '%a %u %g' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty)" = "$before" ]
}

@test "forbidden system calls fail, the usual ones work" {
	run image /bin/probe syscalls
	[ "$status" -eq 0 ]
	allowed=$(grep -E ': (ok|E2BIG|EFAULT|EINVAL)$' <<<"$output" | cut -d: -f1 | tr '\n' ' ')
	[ "$allowed" = "getpid socket-unix socket-inet socket-raw memfd_create getxattrat clone-plain chroot " ]
	grep -q '^clone3: ENOSYS$' <<<"$output"
	grep -q '^unknown: ENOSYS$' <<<"$output"
	run image /bin/probe int80
	[ "$status" -eq 159 ]
}

@test "capabilities are docker's, and no program gives more" {
	[ "$(sh_in "grep CapEff /proc/self/status | cut -f2")" = 00000000a80425fb ]
	[ "$(sh_in "grep CapBnd /proc/self/status | cut -f2")" = 00000000a80425fb ]
	[ "$(sh_in "grep CapInh /proc/self/status | cut -f2")" = 0000000000000000 ]
	[ "$(sh_in "grep NoNewPrivs /proc/self/status | cut -f2")" = 1 ]
	[ "$(image --user user /bin/sh -c 'grep CapEff /proc/self/status | cut -f2')" = 0000000000000000 ]
	[ "$(image --cap-drop ALL /bin/sh -c 'grep CapBnd /proc/self/status | cut -f2')" = 0000000000000000 ]
	[ "$(image --cap-drop ALL --cap-add chown /bin/sh -c 'grep CapEff /proc/self/status | cut -f2')" = 0000000000000001 ]
	[ "$(image --cap-add NET_ADMIN /bin/sh -c 'grep CapEff /proc/self/status | cut -f2')" = 00000000a80435fb ]
	run image --cap-add NONSENSE /bin/true
	[ "$status" -eq 125 ]
	spoiled
	chmod 4755 "$BAD/bin/busybox"
	[ "$(c --dir "$BAD" --user user /bin/id -u)" = 1000 ]
}

@test "the kernel's settings and its secrets are out of reach" {
	run sh_in '
		for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/drop_caches /proc/sysrq-trigger /proc/irq/default_smp_affinity \
			/sys/kernel/uevent_helper /sys/kernel/mm/ksm/run /sys/fs/cgroup/release_agent; do
			[ -e $f ] && (echo 1 >$f) 2>/dev/null && echo wrote $f; done
		for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/latency_stats; do
			[ -s $f ] && echo sees $f; [ -n "$(head -c 1 $f 2>/dev/null)" ] && echo reads $f; done
		for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do
			[ -d $d ] && [ -n "$(ls $d)" ] && echo lists $d; done
		umount /proc/kcore 2>/dev/null && echo unmasked; mount -o remount,rw /sys 2>/dev/null && echo remounted
		mount -t proc none /tmp 2>/dev/null && echo mounted; true'
	[ "$status" -eq 0 ]
	[ -z "$output" ]
}

@test "the host's processes, users, network and names are not seen" {
	[ "$(sh_in 'ls -d /proc/[0-9]* | wc -l')" -le 4 ]
	[ "$(sh_in 'ls /sys/class/net; ip -o addr 2>/dev/null | grep -vc " lo "')" = $'lo\n0' ]
	before=$(hostname)
	[ "$(image --hostname inside /bin/hostname)" = inside ]
	[ "$(hostname)" = "$before" ]
	sh_in 'kill -9 -1' || true # ends the container's own, at most
	image --info /bin/sleep 2 2>"$BATS_TEST_TMPDIR/info" 3>&- &
	for i in $(seq 100); do pid=$(sed -n 's/^info: pid=\([0-9]*\).*/\1/p' "$BATS_TEST_TMPDIR/info" 2>/dev/null); [ -n "$pid" ] && break; sleep 0.02; done
	for ns in mnt pid net ipc uts cgroup; do [ "$(readlink /proc/self/ns/$ns)" != "$(readlink "/proc/$pid/ns/$ns")" ]; done
	uid=$(sed -n 's/^Uid:\t\([0-9]*\).*/\1/p' "/proc/$pid/status")
	if [ "$USERNS" = auto ]; then [ "$uid" -ge $((0x71000000)) ]; else [ "$uid" -eq 0 ]; fi
	wait
}

@test "joining the host's own network changes none of its settings" {
	command -v unshare >/dev/null || skip "util-linux is not installed"
	# In a copy of "the host's", so that a failure does no harm.
	export -f image c
	unshare -n bash -ec '
		cd /proc/sys/net/ipv4
		before=$(cat ip_unprivileged_port_start ping_group_range)
		image --netns /proc/self/ns/net /bin/true
		[ "$(cat ip_unprivileged_port_start ping_group_range)" = "$before" ]'
}

@test "a network namespace that is joined has the container in it and nothing else changes" {
	command -v ip >/dev/null || skip "iproute2 is not installed"
	ip netns add t-$$
	ip -n t-$$ link add d0 type dummy 2>/dev/null || { ip netns del t-$$; skip "the host's kernel has no dummy interface"; }
	out=$(image --netns /run/netns/t-$$ /bin/ls /sys/class/net)
	ip netns del t-$$
	[[ "$out" == *d0* ]]
}
