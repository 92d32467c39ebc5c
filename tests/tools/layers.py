#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""layers.py [ROOT]: do all includes go downward?

The folders are the floors of the house, and the table below says which floors each may include. Beside that every
include of ours names its floor ("engine/queue.h"), so that a reader sees the direction on the line itself, and
stands in quotes, since <> finds ours as well. Exit status 1 and a line per offence if not.
"""

import os
import re
import sys
from pathlib import Path

# Floor: the floors and single files it may include, beside its own. Roof: daemon/*.[ch].
FLOORS = {
    "proto": [],
    "daemon/base": ["proto/timeunits.h"],
    "daemon/engine": ["daemon/base", "proto"],
    "daemon/store": ["daemon/base", "proto"],
    "daemon/spawner": ["daemon/base"],
    "daemon/storetool": ["daemon/store", "daemon/base", "proto", "daemon/manager/stored.h"],
    "daemon/executor": ["daemon/engine", "daemon/base", "proto", "daemon/spawner/wire.h"],
    "daemon/manager": ["daemon/executor", "daemon/engine", "daemon/store", "daemon/base", "proto"],
    "daemon/server": ["daemon/manager", "daemon/executor", "daemon/engine", "daemon/store", "daemon/base", "proto"],
    "daemon": ["daemon/server", "daemon/manager", "daemon/executor", "daemon/engine", "daemon/store", "daemon/base",
               "proto"],
    "client": ["proto"],
}
# Installed flat, so they are written flat everywhere.
INSTALLED = ["proto/eq-types.h", "proto/eq-plugin.h", "proto/eqd.def", "client/eq.h"]
# Where the compiler looks, beside the folder of the file itself.
SEARCH = ["daemon", "client", "proto", ""]
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.M)


def floor_of(path):
    """The longest floor that the file lies in."""
    parents = [str(p) for p in Path(path).parents]
    return next((p for p in parents if p in FLOORS), None)


def resolve(root, source, name):
    for folder in [str(Path(source).parent), *SEARCH]:
        path = os.path.normpath(os.path.join(folder, name))
        if (root / path).is_file():
            return path
    return None


def names_floor(floor, target, name):
    """proto/ names its own files bare; the roof and client/ have files beside the folders, without one to name."""
    return "/" in name or floor == "proto" or target in INSTALLED or str(Path(target).parent) in ("daemon", "client")


def offence(root, source, name):
    floor, target = floor_of(source), resolve(root, source, name)
    if target is None:
        return "includes nothing that is in the tree; headers of libraries go in <>"
    own = floor_of(target)
    if own != floor and own not in FLOORS[floor] and target not in FLOORS[floor]:
        return f"goes up or sideways: {floor} may see {', '.join([floor, *FLOORS[floor]])} only"
    if not names_floor(floor, target, name):
        return f"does not name its floor; write \"{Path(target).parent.name}/{Path(target).name}\""
    return None


def offence_in_brackets(root, source, name):
    """<> finds ours on the search path as well. It is for libraries; the examples have our installed headers so, as users do."""
    target = next((path for path in (os.path.normpath(os.path.join(folder, name)) for folder in SEARCH)
                   if (root / path).is_file()), None)
    if target is None or target in INSTALLED and source.startswith("client/"):
        return None
    return f'is in the tree, as {target}; write it in ""'


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    n_files, offences = 0, []
    for top in ("proto", "daemon", "client"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in (".c", ".h", ".def"):
                continue
            n_files += 1
            source, text = str(path.relative_to(root)), path.read_text()
            for match in INCLUDE.finditer(text):
                ours, library = match.groups()
                what = offence(root, source, ours) if ours else offence_in_brackets(root, source, library)
                if what:
                    line = text.count("\n", 0, match.start()) + match[0].count("\n") + 1
                    offences.append(f"{source}:{line}: {ours or library} {what}")
    print("\n".join(offences) if offences else f"{n_files} files: every include goes downward and names its floor")
    return 1 if offences or n_files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
