#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""results.py [--brief] BUILD-DIR...: adds up what `meson test` left in meson-logs/testlog.json of build directories.

Prints failed tests with their output, skipped ones with their reasons, and as the last line `N passed, N failed`, with
`, N skipped` if some were. Each point of a TAP test counts. A test program that died, ran out of time or returned an
error although all its points passed counts as one failure more. A directory without a log did not get as far as to its
tests: one failure. Exit status 1 if anything failed or nothing passed. --brief: the last line only.
"""

import json
import re
import sys
from pathlib import Path

PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*(SKIP.*))?\s*$", re.M)
POINT = re.compile(r"^(not )?ok\b\s*(\d*)\s*-?\s*([^#\n]*?)\s*(?:#\s*(SKIP|TODO)\b\s*(.*))?$", re.M | re.I)
GOOD_POINT = re.compile(r"^ok\b.*\n", re.M)
GOOD = ("OK", "EXPECTEDFAIL", "SKIP")
OUTPUT_LINES = 80


class Sum:
    def __init__(self):
        self.passed = self.failed = 0
        self.failures, self.skips = [], []  # (name, text)

    def fail(self, name, text, n=1):
        self.failed += n
        self.failures.append((name, text))

    def line(self):
        skipped = f", {len(self.skips)} skipped" if self.skips else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"


def add_tap(total, name, test, plan, output):
    n_failed = 0
    if plan[1] == "0":
        total.skips.append((name, (plan[2] or "nothing to test")[4:].strip()))
    for not_ok, _, what, directive, reason in POINT.findall(test.get("stdout", "")):
        directive = directive.upper()
        if directive == "SKIP":
            total.skips.append((f"{name}: {what}", reason))
        elif not_ok and directive != "TODO":
            n_failed += 1
        else:
            total.passed += 1
    if n_failed or test["result"] not in GOOD:
        total.fail(name, f"{test['result']}\n{GOOD_POINT.sub('', output)}", max(n_failed, 1))


def add_test(total, build, test):
    name = f"{build}: {test['name'].split(':', 1)[-1]}"
    output = test.get("stdout", "") + test.get("stderr", "")
    plan = PLAN.search(test.get("stdout", ""))
    if plan:
        add_tap(total, name, test, plan, output)
    elif test["result"] == "SKIP":
        total.skips.append((name, last_line(output)))
    elif test["result"] in GOOD:
        total.passed += 1
    else:
        total.fail(name, f"{test['result']}, returned {test.get('returncode')}\n{output}")


def add_build(total, directory):
    log = directory / "meson-logs" / "testlog.json"
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    if not lines:
        total.fail(directory.name, "did not get as far as to its tests")
    for line in lines:
        add_test(total, directory.name, json.loads(line))


def main():
    args = sys.argv[1:]
    brief = args[:1] == ["--brief"]
    total = Sum()
    for directory in args[1 if brief else 0:]:
        add_build(total, Path(directory))
    if not brief:
        for name, text in total.failures:
            lines = text.splitlines()
            if len(lines) > OUTPUT_LINES:
                lines = [lines[0], f"[{len(lines) - OUTPUT_LINES} lines left out]", *lines[-OUTPUT_LINES:]]
            print("\n".join([f"\nFAILED {name}: {lines[0]}", *("    " + line for line in lines[1:])]))
        if total.skips:
            print("\nSkipped:")
        for name, reason in total.skips:
            print(f"  {name}: {reason}")
    print(total.line())
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
