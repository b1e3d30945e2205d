# SPDX-License-Identifier: Apache-2.0
# The host's half of `caisson cp`: caisson-image tar and untar.

setup_file() {
	export W=$BATS_FILE_TMPDIR/w
	mkdir -p "$W/src/d/e" "$W/src/$(printf 'd%.0s' $(seq 200))/$(printf 'e%.0s' $(seq 200))" "$W/outside"
	cd "$W/src"
	echo hello >f
	ln f d/hard
	ln -s ../f d/link
	ln -s /etc/passwd away
	mkfifo -m 640 pipe
	truncate -s 3M sparse
	touch -d '2001-02-03 04:05:06.789' d/e
	chmod 0555 d/e
	chmod 4755 f
	echo x >"$(printf 'l\344tin')"
	echo y >ümläut
	echo kept >"$W/outside/secret"
}

I() { "$E2E_IMAGE" "$@"; }

listing() { (cd "$1" && find . -printf '%p %y %m %n %s %T@ %l\n' | LC_ALL=C sort && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

# hostile NAME...: a tar from lines of python on standard input; f, d, l, h, c add one entry each
hostile() {
	python3 -c '
import io, sys, tarfile
t = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT)
def add(name, kind, data=b"", link="", mode=0o644, **kw):
    i = tarfile.TarInfo(name)
    i.type, i.linkname, i.mode, i.size = kind, link, mode, len(data)
    for k, v in kw.items(): setattr(i, k, v)
    t.addfile(i, io.BytesIO(data))
def f(name, data=b"bad", **kw): add(name, tarfile.REGTYPE, data, **kw)
def d(name, mode=0o755, **kw): add(name, tarfile.DIRTYPE, mode=mode, **kw)
def l(name, to): add(name, tarfile.SYMTYPE, link=to)
def h(name, to): add(name, tarfile.LNKTYPE, link=to)
def c(name): add(name, tarfile.CHRTYPE, devmajor=1, devminor=3)
exec(sys.argv[1])
t.close()' "$1"
}

fresh() {
	rm -rf "$W/dst"
	mkdir "$W/dst"
}

@test "a tree comes out as it went in: modes, times, links, FIFOs, odd names" {
	fresh
	I tar "$W/src" >"$W/a.tar"
	I untar --name copy "$W/dst" <"$W/a.tar"
	diff <(listing "$W/src" | sed 's/ f 4755 / f 755 /') <(listing "$W/dst/copy")
	[ "$(id -u)" = 0 ] || skip "keeping owners and set-user-id bits needs root"
	chown 1000:1001 "$W/src/d"
	I tar --owner "$W/src" | I untar --owner "$W/dst"
	diff <(listing "$W/src") <(listing "$W/dst/src")
	[ "$(stat -c %u:%g "$W/dst/src/d")" = 1000:1001 ]
}

@test "the top entry can be renamed, left out, or be a single file" {
	fresh
	I tar --name other "$W/src/d" | I untar "$W/dst"
	[ -L "$W/dst/other/link" ]
	I tar --contents "$W/src/d" | I untar --from . "$W/dst"
	[ -L "$W/dst/link" ]
	[ ! -e "$W/dst/d" ]
	I tar "$W/src/." | I untar --from . --name dot "$W/dst"
	[ -L "$W/dst/dot/d/link" ]
	I tar "$W/src/ümläut" | I untar --from ümläut --name plain "$W/dst"
	[ "$(cat "$W/dst/plain")" = y ]
	I tar "$W/src/away" | I untar "$W/dst"
	[ "$(readlink "$W/dst/away")" = /etc/passwd ]
	I tar --follow "$W/src/away" | I untar --name followed "$W/dst"
	cmp /etc/passwd "$W/dst/followed"
	I tar "$W/src" | I untar --contents "$W/dst"
	[ -p "$W/dst/pipe" ]
	run I tar "$W/no-such"
	[ "$status" = 125 ]
	[[ $output == *"no-such"* ]]
}

@test "nothing in an archive leads out of the directory" {
	local case
	while read -r case; do
		fresh
		mkdir "$W/dst/t"
		ln -s "$W/outside" "$W/dst/t/mine"
		hostile "$case" >"$W/h.tar"
		run I untar --from t "$W/dst" <"$W/h.tar"
		echo "$case: $status $output"
		[ "$status" = 125 ]
		[[ $output == caisson:* ]]
		[ "$(ls "$W/outside")" = secret ]
		[ "$(cat "$W/outside/secret")" = kept ]
		[ "$(stat -c %h "$W/outside/secret")" = 1 ]
		[ "$(ls "$W/dst")" = t ]
	done <<-'END'
		f("../x")
		f("t/../../x")
		f("t/a/../../../x")
		f("u/x")
		f("x")
		d("t"); f(".ssh/authorized_keys")
		l("t/out", "../../outside"); f("t/out/x")
		l("t/out", "/"); f("t/out/tmp/x")
		d("t/mine/x")
		f("t/mine/secret")
		h("t/x", "../outside/secret")
		h("t/x", "/etc/passwd")
		h("t/x", "t/mine/secret")
		h("t/x", "t/mine")
		l("t/out", "../../outside"); h("t/x", "t/out/secret")
		f("t", b"a file")
		d("t/d"); f("t/d", b"a file")
		f("t/f"); d("t/f")
		f("t/f"); f("t/f/x")
		f("t/" + "n" * 300)
		f("t/" + "/n" * 600)
	END
}

@test "absolute names and dots in names mean the same entry" {
	fresh
	hostile 'd("/t"); f("//t//./x"); f("./t/y")' | I untar --from t "$W/dst"
	[ -f "$W/dst/t/x" ]
	[ -f "$W/dst/t/y" ]
}

@test "devices are left out, set-user-id bits dropped, what is there is replaced and not written into" {
	fresh
	mkdir -m 700 "$W/dst/t"
	ln -s "$W/outside/secret" "$W/dst/t/f"
	ln "$W/outside/secret" "$W/dst/t/g"
	hostile 'd("t", 0o777); c("t/null"); f("t/f", mode=0o6777); f("t/g"); f("t/h"); h("t/i", "t/h")' >"$W/h.tar"
	run I untar "$W/dst" <"$W/h.tar"
	[ "$status" = 0 ]
	[[ $output == *"left out t/null: a device"* ]]
	[ "$(cat "$W/outside/secret")" = kept ]
	[ "$(stat -c '%a %h' "$W/dst/t/f")" = "777 1" ]
	[ ! -e "$W/dst/t/null" ]
	[ "$(stat -c %h "$W/dst/t/h")" = 2 ]
	[ "$(stat -c %a "$W/dst/t")" = 700 ]
}

@test "archives that are cut short, empty, nonsense or full of zeros end with a sentence" {
	fresh
	I tar "$W/src" >"$W/a.tar"
	head -c 20000 "$W/a.tar" >"$W/cut.tar"
	: >"$W/empty.tar"
	echo nonsense >"$W/bad.tar"
	for f in cut empty bad; do
		run I untar "$W/dst" <"$W/$f.tar"
		[ "$status" = 125 ]
		[[ $output == caisson:* ]]
	done
	hostile 'f("t/" + chr(27) + "]0;x")' | { run I untar --from u "$W/dst"; [[ $output != *$'\033'* ]]; }
}

@test "the process that extracts has the directory as its root and no capability to leave" {
	[ "$(id -u)" = 0 ] || skip "looking at it needs root"
	fresh
	touch "$W/dst/marker"
	mkfifo "$W/stdin"
	"$E2E_IMAGE" untar "$W/dst" <"$W/stdin" 3>&- &
	local pid=$! i
	exec 4>"$W/stdin"
	for i in $(seq 100); do
		grep -q 'Seccomp:.2' "/proc/$pid/status" && break
		sleep 0.05
	done
	grep -q 'NoNewPrivs:.1' "/proc/$pid/status"
	[ "$(ls "/proc/$pid/root")" = marker ] || echo "no mount namespace here"
	[ $((0x$(sed -n 's/CapEff:.//p' "/proc/$pid/status") & ~0xe)) = 0 ]
	exec 4>&-
	wait "$pid" || true
}

@test "links that come and go while it extracts do not lead it out" {
	fresh
	hostile 'exec("for k in range(300): f(\"t/d/e/%d\" % k)")' >"$W/many.tar"
	mkdir -p "$W/dst/t/d"
	timeout 4 python3 - "$W" <<-'PY' &
		import os, sys
		w = sys.argv[1]
		while True:
		    try:
		        os.rename(w + "/dst/t/d", w + "/dst/t/x"); os.symlink(w + "/outside", w + "/dst/t/d")
		        os.unlink(w + "/dst/t/d"); os.rename(w + "/dst/t/x", w + "/dst/t/d")
		    except OSError: pass
	PY
	local mover=$! k
	for k in $(seq 40); do I untar "$W/dst" <"$W/many.tar" >/dev/null 2>&1 || true; done
	kill $mover 2>/dev/null || true
	wait $mover || true
	[ "$(ls -A "$W/outside")" = secret ]
}

@test "a directory becomes an EROFS file, for --rootfs" {
	I rootfs "$W/src" "$W/root.erofs"
	[ "$(od -An -tx4 -j1024 -N4 "$W/root.erofs" | tr -d ' ')" = e0f5e1e2 ]
	! command -v fsck.erofs >/dev/null || fsck.erofs "$W/root.erofs"
	run I rootfs "$W/src" "$W/root.erofs"
	[ "$status" = 125 ]
	run I rootfs "$W/nowhere" "$W/other.erofs"
	[ "$status" = 125 ]
	[ ! -e "$W/other.erofs" ]
}
