#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""installed.py SOURCE BUILD: does meson know of all that it installs? What a script of ours would install, `ninja uninstall` leaves
behind: completions and the names that the functions of libeq have among the man pages."""

import json
import re
import sys
from pathlib import Path

source, build = map(Path, sys.argv[1:3])
known = json.loads((build / "meson-info/intro-installed.json").read_text()).values()
wanted = {"bash-completion/completions/eqctl", "site-functions/_eqctl", "vendor_completions.d/eqctl.fish"}
functions = re.findall(r"^\s*(eq_\w+);", (source / "client/libeq.syms").read_text(), re.M)
wanted |= {f"man3/{function}.3" for function in functions}
missing = sorted(path for path in wanted if not any(to.endswith("/" + path) for to in known))
print("\n".join(missing) or f"{len(wanted)} paths of {len(known)} looked for")
sys.exit(bool(missing) or not functions)
