#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Shared directories under Linux: what programs do with files, seen from both sides; a read-only share; a server that dies.
#
#   linux-fs.sh CAISSON_VMM CAISSON_FS VMM_RUN VMLINUX CPUS
set -u
vmm=$1 fs=$2 run=$3 kernel=$4 cpus=$5
here=$(cd "$(dirname "$0")" && pwd)
[ -f "$kernel" ] || { echo "skipped: the guest kernel is not built ($kernel)"; exit 77; }
for p in busybox python3; do command -v $p >/dev/null || { echo "skipped: there is no $p"; exit 77; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "not ok: $*"; tail -n 30 "$dir/text"; exit 1; }

mkdir "$dir/rw" "$dir/ro" "$dir/outside"
echo secret >"$dir/outside/secret"
head -c $((4 << 20)) /dev/urandom >"$dir/ro/data"
sum=$(sha256sum <"$dir/ro/data" | cut -d' ' -f1)
echo "from the host" >"$dir/rw/host"
ln -s "$dir/outside/secret" "$dir/rw/out"
for i in $(seq 700); do : >"$dir/ro/entry-$i"; done

cat >"$dir/init" <<'SCRIPT'
#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t devtmpfs dev /dev 2>/dev/null
mkdir /ro; mount -t virtiofs rw /mnt; mount -t virtiofs ro /ro
is() { [ "$2" = "$3" ] && echo "guest: $1 ok" || echo "guest: $1: '$2' is not '$3'"; }
is read "$(cat /mnt/host)" "from the host"
is sum "$(sha256sum </ro/data | cut -d' ' -f1)" "$SUM"
is entries "$(ls /ro | wc -l)" 701
cp /ro/data /mnt/copy; is copied "$(sha256sum </mnt/copy | cut -d' ' -f1)" "$SUM"
cp /mnt/copy /mnt/copy2; is copied-again "$(sha256sum </mnt/copy2 | cut -d' ' -f1)" "$SUM"
echo a >/mnt/f; echo b >>/mnt/f; is append "$(cat /mnt/f)" "$(printf 'a\nb')"
ln /mnt/f /mnt/g; echo c >>/mnt/g; is hard-link "$(wc -l </mnt/f) $(stat -c %h /mnt/f)" "3 2"
ln -s f /mnt/l; is link "$(readlink /mnt/l) $(wc -l </mnt/l)" "f 3"
is link-out "$(cat /mnt/out 2>&1 | grep -c secret$)" 0
exec 3<>/mnt/open; rm /mnt/open; echo still >&3; is unlinked "$(cat /proc/self/fd/3)" still; exec 3>&-
mkdir -p /mnt/d/e; mv /mnt/g /mnt/d/e/h; mv /mnt/d /mnt/d2; is renamed "$(wc -l </mnt/d2/e/h)" 3
chmod 4750 /mnt/f; is mode "$(stat -c %a /mnt/f)" 4750
echo d >>/mnt/f; chmod 640 /mnt/f
touch -d "2001-02-03 04:05:06" /mnt/f; is time "$(stat -c %Y /mnt/f)" "$(date -d '2001-02-03 04:05:06' +%s)"
truncate -s 100000 /mnt/t; is truncate "$(stat -c %s /mnt/t)" 100000
mkfifo /mnt/p; (echo through >/mnt/p &); is fifo "$(cat /mnt/p)" through
mknod /mnt/null c 1 3 2>/dev/null; is device $? 1
is statfs "$(df /mnt | grep -c /mnt)" 1
i=0; mkdir /mnt/many; while [ $i -lt 300 ]; do echo $i >/mnt/many/$i; i=$((i + 1)); done
is many "$(ls /mnt/many | wc -l) $(cat /mnt/many/* | sort -n | tail -n 1)" "300 299"
rm -r /mnt/many; is removed "$(ls -d /mnt/many 2>/dev/null)" ""
(: >/ro/new) 2>/dev/null; is read-only $? 1
rm /ro/data 2>/dev/null; is read-only-rm $? 1
umount /mnt; mount -t virtiofs rw /mnt; is mounted-again "$(wc -l </mnt/f)" 4
echo "guest: wait"
while [ ! -e /mnt/changed ]; do sleep 0.1; done
is host-change "$(cat /mnt/host) $(cat /mnt/changed)" "changed now"
echo "guest: kill"
while [ -e /mnt/host ]; do sleep 0.1; done
cat /mnt/host 2>/tmp/err; is dead "$? $(grep -c 'not connected' /tmp/err)" "1 1"
is other-share "$(sha256sum </ro/data | cut -d' ' -f1)" "$SUM"
poweroff -f
SCRIPT
sed -i "s/\$SUM/$sum/" "$dir/init"
python3 "$here/busybox_initramfs.py" "$(command -v busybox)" "$dir/init" "$dir/initrd" || fail "no initramfs"

# A stand-in for the server's program leaves its process id, so that this one can be killed.
printf '#!/bin/sh\n[ -n "$*" ] || echo $$ >%s/pid\nexec %s "$@"\n' "$dir" "$fs" >"$dir/server"
chmod +x "$dir/server"
: >"$dir/out"
CAISSON_VMM=$vmm CAISSON_FS=$dir/server timeout -k 5 120 "$run" --cpus "$cpus" -m 256 --kernel "$kernel" --initrd "$dir/initrd" \
	--fs "rw=$dir/rw" --fs "ro=$dir/ro:ro" --cmdline "$(cat "$here/../../kernel/cmdline")" --stats >"$dir/out" 2>"$dir/err" </dev/null &
guest=$!
said() { for i in $(seq 900); do grep -q "^guest: $1" "$dir/out" && return 0; kill -0 $guest 2>/dev/null || return 1; sleep 0.1; done; }
said wait && { echo changed >"$dir/rw/host"; echo now >"$dir/rw/.new"; mv "$dir/rw/.new" "$dir/rw/changed"; }
said kill && kill -9 "$(cat "$dir/pid")"
wait $guest
status=$?
tr -d '\r' <"$dir/out" >"$dir/text"
[ $status = 0 ] || { cat "$dir/err"; fail "the guest ended with status $status"; }
! grep "^guest: .* is not " "$dir/text" || fail "see above"
[ "$(grep -c '^guest: .* ok$' "$dir/text")" = 25 ] || fail "not everything was tried"
# What the guest made, as the host sees it.
cmp -s "$dir/rw/copy" "$dir/ro/data" || fail "the copy is not the original"
[ "$(stat -c '%a %h %s' "$dir/rw/f")" = "640 2 8" ] || fail "the file is $(stat -c '%a %h %s' "$dir/rw/f")"
[ "$(cat "$dir/outside/secret")" = secret ] || fail "something outside was changed"
[ "$(find "$dir/ro" | wc -l)" = 702 ] || fail "the read-only directory was changed"
grep "shared directories" "$dir/err" | tail -n 1
echo ok
