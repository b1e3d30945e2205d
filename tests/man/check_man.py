#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Manual pages against the program that they describe.

    check_man.py CAISSON DIR     every command has a page in DIR, in which each of its flags appears; pages parse without warnings by
                                 whichever of mandoc and groff is installed; what they refer to is there
    check_man.py --self-test     show on pages made for it that each of these faults is found

What commands and flags there are is asked of the program (`caisson __complete`).
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

IN_OVERVIEW = ("help", "version")  # commands that caisson(1) describes by itself


def complete(program, *words):
    out = subprocess.run([program, "__complete", *words], capture_output=True, text=True, check=True).stdout
    return [line.split("\t")[0] for line in out.splitlines() if not line.startswith(":")]


def names(text):
    """The names in a page's NAME section, mdoc's or man's."""
    section = re.search(r"^\.Sh NAME\n(.*?)^\.Nd", text, re.M | re.S)
    if section:
        return [w for line in re.findall(r"^\.Nm (.*)", section[1], re.M) for w in line.split() if w != ","]
    section = re.search(r"^\.SH NAME\n(\S+)", text, re.M)
    return [section[1]] if section else []


def flags(text):
    """The long flags that a page names: `Fl -name` and `Fl n , -name` of mdoc, \\-\\-name of man."""
    found = set()
    for line in text.splitlines():
        if line.startswith(".") and " Fl " in line.replace(".Fl ", ". Fl "):
            found.update(re.findall(r"(?:Fl |, |\| )-([a-z][a-z-]*)", line))
        found.update(w.replace("\\-", "-") for w in re.findall(r"\\-\\-([a-z](?:[a-z]|\\-)*)", line))
    return found


def read_pages(folder):
    pages = {}
    for name in sorted(os.listdir(folder)):
        if re.search(r"\.[1-8]$", name):
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                pages[name] = f.read()
    return pages


def check_names(pages):
    known = {"%s.%s" % (n, page[-1]) for page, text in pages.items() for n in names(text)}
    for page, text in pages.items():
        if page[:-2] not in names(text):
            yield "%s: its NAME section does not have its own name" % page
        refs = re.findall(r"^\.Xr (caisson[a-z-]*) ([1-8])", text, re.M) + re.findall(r"(caisson[a-z-]*) ?\(([1-8])\)", text)
        for ref in refs:
            if ".".join(ref) not in known:
                yield "%s: there is no %s(%s)" % (page, *ref)


def check_commands(program, pages):
    for command in complete(program, ""):
        name = "caisson" if command in IN_OVERVIEW else "caisson-" + command
        page = next((p for p, text in pages.items() if p.endswith(".1") and name in names(text)), None)
        if not page:
            yield "caisson %s has no page: no NAME section has %s" % (command, name)
            continue
        usage = subprocess.run([program, "help", command], capture_output=True, text=True, check=True).stdout
        actions = complete(program, command, "") if usage.startswith("usage: caisson %s COMMAND " % command) else []
        for action in actions:
            if action != "list" and not re.search(r"^\.It Cm (?:[a-z]+ , )*%s\b" % action, pages[page], re.M):
                yield "%s: no entry for caisson %s %s" % (page, command, action)
        have = flags(pages[page])
        for flag in complete(program, command, *actions[:1], "--"):
            if flag != "--help" and flag[2:] not in have:
                yield "%s: caisson %s has %s, the page does not" % (page, command, flag)


def check_syntax(folder, pages):
    tools = {"mandoc": ["-T", "lint", "-W", "warning"], "groff": ["-mandoc", "-ww", "-z", "-T", "utf8"]}
    for tool, args in tools.items():
        if not shutil.which(tool):
            continue
        for page in pages:
            r = subprocess.run([tool, *args, os.path.join(folder, page)], capture_output=True, text=True)
            said = (r.stdout + r.stderr).strip()
            if said or r.returncode:
                yield "%s: %s: %s" % (page, tool, said or r.returncode)


def check(program, folder):
    pages = read_pages(folder)
    return list(check_names(pages)) + list(check_commands(program, pages)) + list(check_syntax(folder, pages))


def self_test():
    page = ".Dd November 25, 2026\n.Dt CAISSON-X 1\n.Os\n.Sh NAME\n.Nm caisson-x , caisson-y\n.Nd text\n.Sh DESCRIPTION\n.Bl -tag -width Ds\n" \
           ".It Fl a , -all\n.It Fl -size Ar n | Fl -none\nText.\n.El\n"
    assert names(page) == ["caisson-x", "caisson-y"], names(page)
    assert flags(page) == {"all", "size", "none"}, flags(page)
    assert flags("\\-\\-dir\\-fd") == {"dir-fd"}
    assert flags("It is -all there.") == set()
    with tempfile.TemporaryDirectory() as d:
        program = os.path.join(d, "program")
        with open(program, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\n[ $1 != help ] || exit 0\nshift\ncase $1,$2 in ,) printf 'x\\nz\\n' ;; x,--) printf -- '--all\\n--more\\n' ;; esac\n")
        os.chmod(program, 0o755)
        with open(os.path.join(d, "caisson-x.1"), "w", encoding="utf-8") as f:
            f.write(page + ".Sh SEE ALSO\n.Xr caisson-none 1\n")
        faults = "\n".join(check(program, d))
        for want in ("caisson z has no page", "caisson x has --more", "no caisson-none(1)"):
            assert want in faults, (want, faults)
        assert "--all" not in faults, faults
        if shutil.which("mandoc"):
            with open(os.path.join(d, "caisson-x.1"), "w", encoding="utf-8") as f:
                f.write(page + ".Bl -tag\n")
            assert any("mandoc" in fault for fault in check(program, d))
    return []


def main():
    if sys.argv[1:] == ["--self-test"]:
        faults = self_test()
    else:
        faults = check(sys.argv[1], sys.argv[2])
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
