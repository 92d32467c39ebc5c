#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""budget.py [ROOT]: sizes of functions and files, and the outliers by name. A place to look, not a verdict: exits 0."""

import re
import statistics
import sys
from pathlib import Path

FUNCTION_LINES, FILE_LINES, HEADER_LINES = 60, 800, 250
START = re.compile(r"^[A-Za-z_].*\b([A-Za-z_]\w*)\(.*$")


def functions(lines):
    """Yields (name, first line, lines): from a line that starts in column 0 with a call-like name to the closing }."""
    name = first = None
    for number, line in enumerate(lines, 1):
        match = START.match(line)
        if match and not line.rstrip().endswith(";"):
            name, first = match[1], number
        elif line.startswith("}") and name:
            yield name, first, number - first + 1
            name = None


def summary(what, values):
    if values:
        p90 = sorted(values)[int(len(values) * 0.9)]
        print(f"{what}: {len(values)}, lines median {statistics.median(values):.0f}, 90 % {p90}, longest {max(values)}")


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    sizes, sources, headers, outliers = [], [], [], []
    for top in ("proto", "daemon", "client"):
        for path in sorted((root / top).rglob("*.[ch]")):
            lines = path.read_text().splitlines()
            name, limit = path.relative_to(root), FILE_LINES if path.suffix == ".c" else HEADER_LINES
            (sources if path.suffix == ".c" else headers).append(len(lines))
            if len(lines) > limit:
                outliers.append(f"  {name}: {len(lines)} lines, over {limit}")
            for function, first, n in functions(lines):
                sizes.append(n)
                if n > FUNCTION_LINES:
                    outliers.append(f"  {name}:{first}: {function}() has {n} lines, over {FUNCTION_LINES}")
    summary("functions", sizes)
    summary(".c files", sources)
    summary(".h files", headers)
    print("\n".join(outliers) or "  no outliers")


if __name__ == "__main__":
    main()
