#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tables of docs/acceptance-*.md: are there tests of these names, and do those of stalls pass again and again?

    scenarios.py check TOP          each test that a table names is there; each scenario and requirement has a row
    scenarios.py run TOP BUILD      runs those of the rows S, W and T, three times over, one after the other. Only with EQD_LONG=1
                                    or EQD_RUNS=N in the environment, else it is skipped: each is in a suite of its own anyway

The last column of a row: `PROGRAM: case, case; PROGRAM: case`. A program without cases is meant as a whole. PROGRAM is a unit test
without its -test.c, a file of tests/system, FOLDER/FILE of tests, `booted`, the name of a test of meson, or `bench`: its cases are
what a benchmark prints.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

SCENARIOS = [*(f"S{i}" for i in range(1, 12)), *(f"W{i}" for i in range(1, 11)), "T-ACT", "T-IDLE", "T-LIFO", "T-CPU", "T-PSI",
             "T-FLUSH", "T-DRAIN", "T-CANCEL"]


REQUIREMENTS = [*(f"E{i}" for i in range(1, 17)), *(f"D{i}" for i in range(1, 5))]


def rows(document):
    """(label, {program: [cases]}) of each row."""
    for line in document.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| ") else []
        if len(cells) < 2 or not cells[-1] or cells[-1] == "tests":
            continue
        programs = {}
        for part in cells[-1].split("; "):
            program, _, cases = part.partition(": ")
            programs.setdefault(program, []).extend(case for case in cases.split(", ") if case)
        yield cells[0], programs


def source_of(top, program):
    if program.endswith(".py"):
        return top / "tests" / (program if "/" in program else f"system/{program}")
    return top / "tests/systemd/cases.py" if program == "booted" else top / f"tests/unit/{program}-test.c"


def exists(top, program, case):
    if program == "bench": # measurements of bench-eqd.py are called as their functions are, with hyphens
        name = rf"\b{re.escape(case)}\b|^def {case.replace('-', '_')}\("
        return any(re.search(name, path.read_text(), re.M) for path in (top / "tests/bench").rglob("*.*")
                   if path.suffix in (".c", ".py"))
    text = source_of(top, program).read_text()
    return re.search(rf"^(TEST\({case}\)|def {case}\()", text, re.M) is not None


def is_known(program, known):
    """Some names of tests are put together from a prefix and a list: then both are there."""
    prefix, _, rest = program.partition("-")
    return f"'{program}'" in known or (f"'{prefix}-' + name" in known and f"'{rest}'" in known)


def check(top):
    known = "\n".join(path.read_text() for folder in ("tests", "units", "client") for path in (top / folder).rglob("meson.build"))
    wrong, labels, n = [], [], 0
    for label, programs in (row for document in sorted((top / "docs").glob("acceptance-*.md")) for row in rows(document)):
        labels.append(label)
        for program, cases in programs.items():
            if program != "bench" and not source_of(top, program).exists() and not is_known(program, known):
                wrong.append(f"{label}: there is no test {program}")
                continue
            wrong += [f"{label}: {program} has no case {case}" for case in cases if not exists(top, program, case)]
            n += max(1, len(cases))
    wrong += [f"{s} has no row" for s in SCENARIOS + REQUIREMENTS if s not in labels]
    print("\n".join(wrong) or f"{n} tests are named, and are there")
    return 1 if wrong or n < 300 else 0


def commands(top, build):
    """How the tests of the scenarios are run: (what, command, environment), each program once."""
    wanted = {}
    for label, programs in rows(top / "docs/acceptance-stalls.md"):
        if label in SCENARIOS:
            for program, cases in programs.items():
                wanted.setdefault(program, []).extend(cases)
    for program, cases in sorted(wanted.items()):
        only = {"EQD_TEST_ONLY": " ".join(dict.fromkeys(cases))}
        if program.endswith(".py"):
            yield program, [sys.executable, top / "tests/system" / program], {"BUILD_DIR": str(build), **only}
        elif program == "booted":
            yield program, ["meson", "test", "-C", build, "--no-rebuild", "--logbase", "scenarios", program], only
        else:
            for case in dict.fromkeys(cases) or [None]:
                yield f"{program}: {case or 'all'}", [build / f"tests/unit/{program}-test"], {"CK_RUN_CASE": f"test_{case}"} if case else {}


def run(top, build, n_runs):
    failed = []
    for nth in range(1, n_runs + 1):
        for what, command, env in commands(top, build):
            p = subprocess.run(command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                               check=False, errors="replace")
            n_ok = len(re.findall(r"^ok ", p.stdout, re.M))
            # A name that matches nothing runs nothing.
            good = p.returncode == 0 and (n_ok > 0 or what == "booted")
            print(f"run {nth}: {what}: {n_ok} passed" if good else f"run {nth}: {what}: FAILED\n{p.stdout}{p.stderr}", flush=True)
            failed += [] if good else [what]
    print(json.dumps({"runs": n_runs, "failed": failed}))
    return 1 if failed else 0


def main():
    verb, top = sys.argv[1], Path(sys.argv[2])
    if verb == "check":
        return check(top)
    n_runs = int(os.environ.get("EQD_RUNS", 3 if os.environ.get("EQD_LONG") == "1" else 0))
    if n_runs == 0:
        print("with EQD_LONG=1 or EQD_RUNS=N only")
        return 77
    return run(top, Path(sys.argv[3]), n_runs)


sys.exit(main())
