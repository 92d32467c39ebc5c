#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""targets.py BUILD SUITE...: what ninja has to make in BUILD for the tests of these suites, a file a line."""

import json
import sys
from pathlib import Path


def main(build, *suites):
    info = Path(build) / "meson-info"
    files = {t["id"]: t["filename"] for t in json.loads((info / "intro-targets.json").read_text())}
    needed = {target for test in json.loads((info / "intro-tests.json").read_text())
              if any(s.split(":")[-1] in suites for s in test["suite"]) for target in test["depends"]}
    for target in sorted(needed):
        for file in files[target]:
            print(Path(file).relative_to(Path(build).resolve()))


main(*sys.argv[1:])
