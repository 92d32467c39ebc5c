#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the stall watch costs those that do not stall: instructions of a task with it and without.

    watchcost.py BENCH_ENGINE BENCH_ENGINE_UNWATCHED

Counted by callgrind, so it is the same in each run, whatever else the machine does. In a task's way there must be no lock, no
fence and no call into a library more, and at most 3 % more instructions.
"""

import re
import shutil
import subprocess
import sys
import tempfile

LIMIT = 1.03
N_TASKS = 20000
# An exchange with memory has an implied lock.
LOCKED = re.compile(r"^\s*(lock |xchg .*\(|mfence)")


def instructions(program, *args):
    with tempfile.NamedTemporaryFile() as out:
        p = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", program, *args],
                           capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", p.stderr)[1])


def per_task(program, mode):
    n = str(N_TASKS)
    return (instructions(program, "count", mode, n) - instructions(program, "count", "none", n)) / N_TASKS


def locked(program):
    """{function: its locked instructions}"""
    out = subprocess.run(["objdump", "-d", "--no-show-raw-insn", program], capture_output=True, text=True, check=True).stdout
    found, name = {}, None
    for line in out.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            name = head[1]
            found[name] = 0
        elif LOCKED.match(line.partition("\t")[2]):
            found[name] += 1
    return found


def library_calls(program):
    out = subprocess.run(["nm", "-D", "--undefined-only", program], capture_output=True, text=True, check=True).stdout
    return sorted(line.split()[-1] for line in out.splitlines())


def main():
    watched, unwatched = sys.argv[1:]
    missing = [tool for tool in ("valgrind", "objdump", "nm") if not shutil.which(tool)]
    if missing:
        print(f"{' '.join(missing)} is missing")
        return 77
    good = True
    for mode in ("direct", "backlog"):
        with_it, without = per_task(watched, mode), per_task(unwatched, mode)
        print(f"{mode}: {with_it:.0f} instructions per task, {without:.0f} unwatched, ratio {with_it / without:.4f} of {LIMIT}")
        good &= with_it > without and with_it / without <= LIMIT # if it were not more, nothing was left out
    with_it, without = locked(watched), locked(unwatched) # which has all of the engine, also what the other did not take
    both = with_it.keys() & without.keys()
    print(f"locked instructions: {sum(with_it[f] for f in both)}, {sum(without[f] for f in both)} unwatched, in {len(both)} functions")
    good &= "engine_task_ended" in both and not [f for f in both if with_it[f] > without[f]]
    more = set(library_calls(watched)) - set(library_calls(unwatched))
    print(f"library calls that only the watched one makes: {sorted(more)}")
    return 0 if good and not more else 1


sys.exit(main())
