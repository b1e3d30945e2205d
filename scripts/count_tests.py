#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adds up meson test logs (testlog.json, one JSON object a line): count_tests.py LOG STATUS.

A test program that reports cases of its own, as TAP or as cmocka does, counts as that many; any other counts as one. A program that
failed counts as at least one failure, whatever it printed. Prints why things were skipped, what failed, and last "N passed, N failed, N skipped".
"""
import json
import re
import sys

TAP = re.compile(r"^(not )?ok\b[^#\n]*(#\s*skip\b[^\n]*)?", re.M | re.I)
CMOCKA = re.compile(r"^\[\s*(OK|FAILED|SKIPPED)\s*\] (?!\d+ test)", re.M)
WHY = re.compile(r"^.*\bskipped: *(.+)$|^ok\b.*# *skip *(.+)$", re.M | re.I)


def cases(test):
    """(passed, failed, skipped) of one test program."""
    text = (test.get("stdout") or "") + "\n" + (test.get("stderr") or "")
    passed = failed = skipped = 0
    for negative, skip in TAP.findall(test.get("stdout") or ""):
        if skip:
            skipped += 1
        elif negative:
            failed += 1
        else:
            passed += 1
    if not passed + failed + skipped:
        found = CMOCKA.findall(text)
        passed, skipped = found.count("OK"), found.count("SKIPPED")
    result = test["result"]
    if result in ("OK", "EXPECTEDFAIL"):
        return (passed, failed, skipped) if passed + failed + skipped else (1, 0, 0)
    if result == "SKIP":
        return (passed, 0, skipped) if passed + skipped else (0, 0, 1)
    return passed, max(failed, 1), skipped


def main():
    total = [0, 0, 0]
    failures, reasons = [], {}
    with open(sys.argv[1], encoding="utf-8") as log:
        for line in log:
            test = json.loads(line)
            count = cases(test)
            total = [a + b for a, b in zip(total, count)]
            if count[1]:
                failures.append("%s (%s)" % (test["name"], test["result"].lower()))
            if count[2]:
                text = (test.get("stdout") or "") + (test.get("stderr") or "")
                for why in {(a or b).strip() for a, b in WHY.findall(text)} or {"no reason given by " + test["name"]}:
                    reasons[why] = reasons.get(why, 0) + 1
    for why, n in sorted(reasons.items()):
        print("skipped: %s%s" % (why, " (%d programs)" % n if n > 1 else ""))
    for name in failures:
        print("failed: " + name)
    print("%d passed, %d failed, %d skipped" % tuple(total))
    return 1 if total[1] or sys.argv[2] != "0" or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main())
