#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A mixed load for a minute (EQD_LONG=1: an hour): builds, compression, failures, time-outs, crashes, retries, cancels.

Every task must end as its kind says; afterwards there is no zombie, no process, no descriptor and no cgroup more than
before, and memory has stopped growing once the history is full.
"""

import collections
import json
import os
import random
import time
from pathlib import Path

from eqdtest import LONG, USER_A, USER_B, equal, eventually, main, test

SECONDS = 3600 if LONG else 45
BATCH = 24
SOURCE = "int main(void) { return %d; }\n"

# Kind: (arguments of eqctl submit, states that are right)
KINDS = {
    "build": (["-c", "echo 'int main(void){return 0;}' | gcc -x c -c -o work/$EQD_ARRAY_INDEX.o - && rm work/$EQD_ARRAY_INDEX.o"],
              {"DONE"}),
    "gzip": (["-c", "head -c 300000 /dev/urandom | gzip -1 | wc -c"], {"DONE"}),
    "tree": (["-c", "sleep 1000 & sleep 1000 & exit 0"], {"DONE"}),
    "loud": (["-c", "i=0; while [ $i -lt 500 ]; do echo $i out; echo $i err >&2; i=$((i+1)); done"], {"DONE"}),
    "fail": (["-c", "exit 3"], {"FAILED"}),
    "gone": (["--", "/nonexistent/program"], {"FAILED"}),
    "crash": (["-c", "kill -SEGV $$"], {"FAILED"}),
    "retry": (["-r", "2", "--backoff", "exp:1ms:5ms", "-c", "exit 4"], {"DEAD"}),
    "timeout": (["-t", "50ms", "--grace", "50ms", "-c", "trap '' TERM; while :; do sleep 0.01; done"], {"TIMEOUT"}),
    "cancel": (["--", "sleep", "1000"], {"CANCELED"}),
    "held": (["--hold", "--", "true"], {"CANCELED"}),
}


def submit_batch(eqd, rng, number):
    """Submits one array of each of some kinds, as different users where that is possible."""
    expected = {}
    for kind in rng.sample(sorted(KINDS), 6):
        args, states = KINDS[kind]
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


def cgroups():
    return sum(1 for _ in Path("/sys/fs/cgroup").rglob("slots/*") if _.is_dir())


def rss(eqd):
    with eqd.connect() as c:
        return c.call("stat")["rss_kib"]


@test(other_users=os.geteuid() == 0, seconds=SECONDS + 300,
      config={"eqd.conf": "[Watchdog]\nWatchdogThresh=5s\nHungTaskTimeoutSecs=20s\n[Queue]\nHungTask=life\n"})
def a_mixed_load_ends_as_it_should_and_leaves_nothing(eqd):
    rng = random.Random(int(os.environ.get("EQD_SEED", "1")))
    counts, n_cgroups = collections.Counter(), cgroups()
    eqd.ok("queue", "create", "wide", "max_active=4", "history=100")
    eqd.ok("queue", "create", "serial", "history=100")
    start, number, early = time.monotonic(), 0, None
    while time.monotonic() - start < SECONDS:
        check_batch(eqd, submit_batch(eqd, rng, number), counts)
        number += 1
        if early is None and time.monotonic() - start > SECONDS / 3:
            early = rss(eqd)
    late = rss(eqd)
    print(f"# {sum(counts.values())} tasks: {dict(counts)}; {early} KiB after a third, {late} KiB at the end")
    stat = json.loads(eqd.ok("stat", "--json"))
    equal((stat["stalls"], stat["hung"]), (0, 0), f"nothing was stalled, and yet: {eqd.log_text()}")
    equal(eqd.ls("-s", "RUNNING,QUEUED,WAITING"), [])
    eventually(lambda: cgroups() <= max(n_cgroups, 256), f"{cgroups()} cgroups, {n_cgroups} at the start")
    eventually(lambda: not eqd.zombies(), lambda: f"zombies {eqd.zombies()}")
    if late > early + 4096 + early // 10:
        raise AssertionError(f"memory grew from {early} to {late} KiB")


main()
