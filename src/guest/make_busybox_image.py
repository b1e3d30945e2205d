#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the built-in image: a busybox with its applets in an EROFS file that is the same for the same busybox.

usage: make_busybox_image.py BUSYBOX MKFS.EROFS OUTPUT
"""
import os
import shutil
import subprocess
import sys
import tempfile

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "",  # empty: filled by the agent, which knows the host name
    "etc/resolv.conf": "",
    "etc/shells": "/bin/sh\n",
}
DIRS = {
    "bin": 0o755, "sbin": 0o755, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "etc": 0o755, "dev": 0o755,
    "proc": 0o555, "sys": 0o555, "run": 0o755, "tmp": 0o1777, "root": 0o700, "home": 0o755, "mnt": 0o755, "var": 0o755,
    "var/tmp": 0o1777, "srv": 0o755, "opt": 0o755,
}


def build_tree(root, busybox):
    os.chmod(root, 0o755)
    for path, mode in DIRS.items():
        os.mkdir(f"{root}/{path}")
        os.chmod(f"{root}/{path}", mode)
    for path, text in FILES.items():
        with open(f"{root}/{path}", "w", encoding="ascii") as f:
            f.write(text)
        os.chmod(f"{root}/{path}", 0o644)
    shutil.copyfile(busybox, f"{root}/bin/busybox")
    os.chmod(f"{root}/bin/busybox", 0o755)
    # Hard links: no symbolic link to follow on each exec. Applets in the order of their names, whatever busybox prints.
    applets = subprocess.run([f"{root}/bin/busybox", "--list-full"], check=True, capture_output=True, text=True).stdout.split()
    for applet in sorted(applets):
        path = f"{root}/{applet}"
        if applet != "linuxrc" and not os.path.lexists(path) and os.path.isdir(os.path.dirname(path)):
            os.link(f"{root}/bin/busybox", path)


def main():
    busybox, mkfs, output = sys.argv[1:4]
    with open(busybox, "rb") as f:
        if b"/lib64/ld-linux" in f.read(4096):
            sys.exit(f"{busybox} is not static; the package busybox-static has one that is")
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as tmp:
        root = f"{tmp}/root"
        os.mkdir(root)
        build_tree(root, busybox)
        image = f"{tmp}/image"
        # A fixed time and UUID, owners root: the same image on every machine.
        subprocess.run([mkfs, "--quiet", "-T0", "-U", "ca155000-0000-4000-8000-000000000001", "--all-root", "-x-1", image, root],
                       check=True, stdout=subprocess.DEVNULL)
        shutil.copyfile(image, output)


if __name__ == "__main__":
    main()
