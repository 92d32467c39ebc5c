#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""libeq-man.py ROOT: the pages of libeq say everything about its functions, and nothing else: each one that is exported stands in
the NAME of one page, has its prototype of eq.h in the SYNOPSIS there and a paragraph of its own; each page says what blocks."""

import re
import sys
from pathlib import Path


def section(text, name):
    found = re.search(rf'^\.SH "?{re.escape(name)}"?$(.*?)(?=^\.SH |\Z)', text, re.M | re.S)
    return found[1] if found else ""


def plain(text):
    """C as written in a page or a header, in one line."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return " ".join(text.replace("\\-", "-").replace("\\e", "\\").split())


def prototypes(header):
    found = {}
    for text in re.findall(r"^[a-z][^;{}#]*?\([^;{}]*\);", re.sub(r"/\*.*?\*/", "", header, flags=re.S), re.M):
        name = re.search(r"\b(eq_\w+)\(", text)
        if name and not text.startswith("typedef"):
            found[name[1]] = plain(text)
    return found


def check(root):
    exported = set(re.findall(r"^\s+(eq_\w+);", (root / "client/libeq.syms").read_text(), re.M))
    declared, homes = prototypes((root / "client/eq.h").read_text()), {}
    yield from (f"{name} is exported and not in eq.h" for name in sorted(exported - declared.keys()))
    for path in sorted((root / "man").glob("libeq-*.3")):
        text = path.read_text()
        synopsis = plain(section(text, "SYNOPSIS"))
        if not section(text, "THREADS AND BLOCKING").strip():
            yield f"{path.relative_to(root)}: no section THREADS AND BLOCKING"
        for name in re.findall(r"\beq_\w+", section(text, "NAME")):
            if name in homes:
                yield f"{name} is in {homes[name]} and {path.relative_to(root)}"
            homes[name] = path.relative_to(root)
            if declared.get(name, "-") not in synopsis:
                yield f"{path.relative_to(root)}: the prototype of {name} is not that of eq.h: {declared.get(name)}"
            if not re.search(rf"^\.TP\n\.BR {name} \(\)\n.+", section(text, "DESCRIPTION"), re.M):
                yield f"{path.relative_to(root)}: {name} has no paragraph"
    yield from (f"client/libeq.syms: {name} has no page" for name in sorted(exported - homes.keys()))
    yield from (f"{homes[name]}: {name} is not exported" for name in sorted(homes.keys() - exported))
    if not exported:
        yield "client/libeq.syms exports nothing"


def main():
    wrong = list(check(Path(sys.argv[1])))
    print("\n".join(wrong) or "every function has its page")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
