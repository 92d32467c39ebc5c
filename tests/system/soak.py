#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A mixed load for a minute (EQD_LONG=1: an hour): builds, compression, failures, time-outs, crashes, retries, cancels.

Every task must end as its kind says; afterwards there is no zombie, no process, no descriptor and no cgroup but those of
the slots, and memory of eqd and of both processes of its spawner has stopped growing once the history is full.
"""

import collections
import os
import random
import time

from ends import spawners
from eqdtest import (LONG, USER_A, USER_B, comm, command_line, descendants, equal, eventually, is_gone, main, stalls, status_fields,
                     test)

SECONDS = 1800 if LONG else 30 # each of two
WIDE = 4
BATCH = 24
SOURCE = "int main(void) { return %d; }\n"

# Kind: (arguments of eqctl submit, states that are right)
KINDS = {
    "build": (["-c", "echo 'int main(void){return 0;}' | gcc -x c -c -o work/$EQD_ARRAY_INDEX.o - && rm work/$EQD_ARRAY_INDEX.o"],
              {"DONE"}),
    "gzip": (["-c", "head -c 300000 /dev/urandom | gzip -1 | wc -c"], {"DONE"}),
    "tree": (["-c", "sleep 1000 & sleep 1000 & exit 0"], {"DONE"}),
    "fled": (["-c", "setsid sleep 1000 & setsid sh -c 'sleep 1000; exit 0' & exit 0"], {"DONE"}),
    "loud": (["-c", "i=0; while [ $i -lt 500 ]; do echo $i out; echo $i err >&2; i=$((i+1)); done"], {"DONE"}),
    "fail": (["-c", "exit 3"], {"FAILED"}),
    "gone": (["--", "/nonexistent/program"], {"FAILED"}),
    "crash": (["-c", "kill -SEGV $$"], {"FAILED"}),
    "retry": (["-r", "2", "--backoff", "exp:1ms:5ms", "-c", "exit 4"], {"DEAD"}),
    "timeout": (["-t", "50ms", "--grace", "50ms", "-c", "trap '' TERM; while :; do sleep 0.01; done"], {"TIMEOUT"}),
    "cancel": (["--", "sleep", "1000"], {"CANCELED"}),
    "held": (["--hold", "--", "true"], {"CANCELED"}),
}


def nest(eqd):
    """A command that leaves a cgroup below its own, where its user may make one."""
    top = eqd.cgroup.parent
    return {"nest": (["-c", f"g=$(sed -n 's/^0::.*\\(\\/{eqd.cgroup.name}\\/\\)/\\1/p' /proc/self/cgroup); mkdir {top}$g/deep {top}$g/deep/er; "
                            "sleep 1000 & exit 0"], {"DONE"})}


def submit_batch(eqd, rng, number, kinds):
    """Submits one array of each of some kinds, as different users where that is possible."""
    expected = {}
    for kind in rng.sample(sorted(kinds), 6):
        args, states = kinds[kind]
        uid = rng.choice([None, USER_A, USER_B]) if os.geteuid() == 0 else None
        first = number * BATCH
        ids = eqd.submit("-q", rng.choice(["wide", "serial"]), "-J", kind, "--array", f"{first}-{first + 3}", *args,
                         uid=uid).split()
        expected.update(dict.fromkeys(ids, states))
        if kind in ("cancel", "held"):
            eqd.ok("cancel", "--grace", "100ms", *ids)
    return expected


def check_batch(eqd, expected, counts):
    eqd.ctl("wait", *expected, seconds=120)
    for task, states in expected.items():
        shown = eqd.show(task)
        counts[shown["state"]] += 1
        if shown["state"] not in states:
            raise AssertionError(f"{task} should have ended as {states}: {shown}")


def spare_cgroups(eqd):
    """Those that are neither of a slot nor the one above them, and those in which something else than a waiting process is."""
    return [str(d) for d in eqd.cgroup.rglob("*") if d.is_dir() and
            (str(d.relative_to(eqd.cgroup)).strip("0123456789") not in ("slots", "slots/") or
             any(comm(int(p)) != "eqd-waiting" for p in (d / "cgroup.procs").read_text().split()))]


def strays(eqd):
    """What runs below eqd and is not its own, while no task does: later eqd's end would take them along."""
    return [f"{p} {command_line(p)}" for p in descendants(eqd.pid)
            if comm(p) not in ("eqd-spawner", "eqd-waiting") and not is_gone(p)]


def sizes(eqd):
    """Of eqd, keeper and worker: (descriptors, KiB of memory)."""
    return {name: (len(os.listdir(f"/proc/{pid}/fd")), int(status_fields(pid)["VmRSS"].split()[0]))
            for name, pid in zip(("eqd", "keeper", "worker"), [eqd.pid, *spawners(eqd)])}


def grown(early, late):
    """Which of them has more descriptors, but for those of slots that were all busy only now, or more memory. A slot whose cgroup was
    killed has none until it is used again; seen were from 20 to 35 of the worker in 100 s, back and forth."""
    return [f"{name} from {early[name]} to {late[name]}" for name in early
            if late[name][0] > early[name][0] + 6 * WIDE or late[name][1] > 1.1 * early[name][1] + (4096 if name == "eqd" else 512)]


def soak(eqd, kinds):
    rng = random.Random(int(os.environ.get("EQD_SEED", "1")))
    counts = collections.Counter()
    eqd.ok("queue", "create", "wide", f"max_active={WIDE}", "history=100")
    eqd.ok("queue", "create", "serial", "history=100")
    told = eqd.events(events=["stall.", "task.hung"])
    start, number, early = time.monotonic(), 0, None
    while time.monotonic() - start < SECONDS:
        check_batch(eqd, submit_batch(eqd, rng, number, kinds), counts)
        number += 1
        if early is None and time.monotonic() - start > SECONDS / 3:
            early = sizes(eqd)
    late = sizes(eqd)
    print(f"# {sum(counts.values())} tasks: {dict(counts)}; {early} after a third, {late} at the end")
    while told.receive(0):
        pass
    equal(stalls(told), [], "nothing was stalled")
    equal(eqd.ls("-s", "RUNNING,QUEUED,WAITING"), [])
    eventually(lambda: not eqd.zombies(), lambda: f"zombies {eqd.zombies()}")
    eventually(lambda: not strays(eqd), lambda: f"what tasks left: {strays(eqd)}")
    equal(grown(early, late), [])


CONFIG = "[Watchdog]\nWatchdogThresh=5s\nHungTaskTimeoutSecs=20s\n[Queue]\nHungTask=life\n"


@test(other_users=os.geteuid() == 0, seconds=SECONDS + 300, config={"eqd.conf": CONFIG})
def a_mixed_load_ends_as_it_should_and_leaves_nothing(eqd):
    soak(eqd, KINDS)


@test(other_users=os.geteuid() == 0, seconds=SECONDS + 300, cgroup=CONFIG)
def a_mixed_load_with_cgroups_leaves_none_but_those_of_slots(eqd):
    soak(eqd, {**KINDS, **nest(eqd)})
    eventually(lambda: not spare_cgroups(eqd), lambda: f"left: {spare_cgroups(eqd)}")
    slots = [d.name for d in (eqd.cgroup / "slots").iterdir() if d.is_dir()]
    print(f"# cgroups of {len(slots)} slots are left")
    if not 1 <= len(slots) <= 3 * (WIDE + 1): # what runs, what waits ahead, and what was just emptied
        raise AssertionError(f"{len(slots)} cgroups of slots, for {WIDE + 1} tasks at once")


main()
