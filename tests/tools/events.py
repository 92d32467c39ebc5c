#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""events.py [ROOT]: is what an administrator is told of an event, with MESSAGE_ID, fields and advice?

Records of notice and above go through log_event() and a row of base/events.def; log_debug() and log_info() are for the rest. The
table below lists who may write to standard error instead, and why. A row that nothing writes is one too many. What a row says has no
loose ends, and is right for one of a thing as for many: "tasks lost: 1", not "1 tasks". Exit status 1 and a line per offence if not.
"""

import re
import sys
from pathlib import Path

BEFORE_LOG = "before there is a log: whoever starts eqd reads it"
OWN_PROCESS = "a program of its own; eqd tells of what becomes of it"
# File, or file:function: why plain text will do.
EXCEPTIONS = {
    "daemon/base/log.c": "is the log",
    "daemon/main.c:parse_level": BEFORE_LOG,
    "daemon/main.c:check_options": BEFORE_LOG,
    "daemon/main.c:parse_options": BEFORE_LOG,
    "daemon/main.c:user_places": BEFORE_LOG,
    "daemon/main.c:find_places": BEFORE_LOG,
    "daemon/main.c:lock_state": BEFORE_LOG,
    "daemon/main.c:take_passed_fds": BEFORE_LOG,
    "daemon/main.c:cannot_start": "the event as well, which may come to the journal when eqd is gone",
    "daemon/main.c:print_mistake": "--check: for whoever asks",
    "daemon/main.c:check": "--check: for whoever asks",
    "daemon/main.c:main": BEFORE_LOG,
    "daemon/spawner/keeper.c": OWN_PROCESS,
    "daemon/spawner/main.c": OWN_PROCESS,
    "daemon/spawner/worker.c": OWN_PROCESS,
    "daemon/storetool": "a program for people, with a terminal",
}
# Not the definitions in base/log.h, base/event.h and event.c.
PLAIN = re.compile(r"\b(log_(?:write|write_fields|notice|warning|error|crit|alert|emerg)|"
                   r"fprintf\(stderr|fputs\([^;]*stderr|dprintf\(STDERR_FILENO|perror|sd_journal_\w+)\b")
LOG_FLOOR = ("daemon/base/log.h", "daemon/base/event.h", "daemon/base/event.c")
FUNCTION = re.compile(r"^[a-zA-Z_][\w \*]*?(\w+)\([^;]*\{$", re.M)
ROW = re.compile(r"^EVENT\((\w+),", re.M)
FORMAT = re.compile(r'^EVENT\((\w+),[^\n]*?LOG_\w+,\s*\d+,\s*((?:"(?:[^"\\\\]|\\\\.)*"|PRI\w+|\s)+),', re.M)
PART = re.compile(r'"((?:[^"\\]|\\.)*)"|(PRI\w+)')
LOOSE = re.compile(r"^\s|[\s:;,(]$|(?<!\w)\(\s*\)|\s[\s:;,.]")
COUNTED = re.compile(r"%(?:z?u|d|PRI\w+) (?:tasks|queues|commands|connections|parameters|processes|threads|workers|files|records)\b")
WRITTEN = re.compile(r"\b(?:log_event(?:_at|_fields)?\(\s*|EVENT_)(\w+)")


def excused(source, text, at):
    functions = [m[1] for m in FUNCTION.finditer(text, 0, at)]
    names = {source, str(Path(source).parent), f"{source}:{functions[-1] if functions else ''}"}
    return names & EXCEPTIONS.keys()


def loose_ends(table):
    for name, parts in FORMAT.findall(table):
        text = "".join(quoted or macro for quoted, macro in PART.findall(parts))
        for pattern, what in ((LOOSE, "a loose end"), (COUNTED, "a plural that is wrong for 1")):
            if pattern.search(text):
                yield f"daemon/base/events.def: {name} has {what}: {text}"


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    offences, used, written, n_files = [], set(), set(), 0
    for path in sorted((root / "daemon").rglob("*.[ch]")):
        source, text = str(path.relative_to(root)), path.read_text()
        n_files += 1
        written |= set(WRITTEN.findall(text))
        if source in LOG_FLOOR:
            continue
        for match in PLAIN.finditer(text):
            names = excused(source, text, match.start())
            used |= names
            if not names:
                line = text.count("\n", 0, match.start()) + 1
                offences.append(f"{source}:{line}: {match[1]} has no MESSAGE_ID and no advice; give it a row of events.def")
    table = root / "daemon/base/events.def"
    rows = ROW.findall(table.read_text()) if table.exists() else []
    offences += loose_ends(table.read_text()) if table.exists() else []
    offences += [f"daemon/base/events.def: nothing writes {row}" for row in rows if row not in written]
    if rows: # the tree itself, and not one that a test has made
        offences += [f"tests/tools/events.py: {name} is no exception any more" for name in EXCEPTIONS.keys() - used]
    print("\n".join(offences) if offences else f"{n_files} files, {len(rows)} events: all that is told has its row")
    return 1 if offences or n_files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
