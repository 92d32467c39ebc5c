#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the stall watch costs those that do not stall: instructions of a task with it and without.

    watchcost.py engine BENCH_ENGINE BENCH_ENGINE_UNWATCHED
    watchcost.py plugin BENCH_PLUGIN BENCH_PLUGIN_UNWATCHED

Counted by callgrind, so it is the same in each run, whatever else the machine does. In a task's way there must be no lock, no
fence and no call into a library more, and at most 3 % more instructions. A plugin's task, whose threads have CPU clocks, makes
no system call for the watch either: these are counted by ptrace(2).
"""

import re
import shutil
import subprocess
import sys
import tempfile

LIMIT = 1.03
N_TASKS = 20000
CALLS = 0.01 # of the watch, for a task: a thread reads its CPU clock once every 10 ms
BATCHES = ("1", "64") # at one task in each call its end is one more look at the clock: else a hog could not be told from a short task
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


def per_plugin_task(program, batch):
    return (instructions(program, "run", str(N_TASKS), batch) - instructions(program, "run", "0", batch)) / N_TASKS


def system_calls(program, batch):
    """(all, of CPU clocks) for a task."""
    def count(n):
        p = subprocess.run([program, "trace", str(n), batch], capture_output=True, text=True, check=True)
        return [int(word) for word in p.stdout.split()]
    return [(some - none) / N_TASKS for some, none in zip(count(N_TASKS), count(0))]


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


def compare(what, with_it, without):
    print(f"{what}: {with_it:.0f} instructions per task, {without:.0f} unwatched, ratio {with_it / without:.4f} of {LIMIT}")
    return with_it > without and with_it / without <= LIMIT # if it were not more, nothing was left out


def engine_is_good(watched, unwatched):
    good = True
    for mode in ("direct", "backlog"):
        good &= compare(mode, per_task(watched, mode), per_task(unwatched, mode))
    return good


def plugin_is_good(watched, unwatched):
    good = True
    for batch in BATCHES:
        good &= compare(f"{batch} in a call", per_plugin_task(watched, batch), per_plugin_task(unwatched, batch))
        (calls, clocks), (without, _) = system_calls(watched, batch), system_calls(unwatched, batch)
        print(f"{batch} in a call: {calls:.4f} system calls per task, {clocks:.4f} for CPU clocks; {without:.4f} unwatched")
        good &= 0 < clocks <= CALLS and calls - without <= CALLS
    return good


def main():
    kind, watched, unwatched = sys.argv[1:]
    missing = [tool for tool in ("valgrind", "objdump", "nm") if not shutil.which(tool)]
    if missing:
        print(f"{' '.join(missing)} is missing")
        return 77
    good = engine_is_good(watched, unwatched) if kind == "engine" else plugin_is_good(watched, unwatched)
    with_it, without = locked(watched), locked(unwatched) # which has all of the engine, also what the other did not take
    both = with_it.keys() & without.keys()
    print(f"locked instructions: {sum(with_it[f] for f in both)}, {sum(without[f] for f in both)} unwatched, in {len(both)} functions")
    more = set(library_calls(watched)) - set(library_calls(unwatched))
    print(f"library calls that only the watched one makes: {sorted(more)}")
    good &= "engine_task_ended" in both and not more
    good &= not [f for f in both if with_it[f] > without[f]]
    return 0 if good else 1


sys.exit(main())
