#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A full disk: the state directory is a small file system of its own, in a mount namespace of this test.

New tasks are refused with the documented error, what is in hand ends and is written down, eqd starts there, and goes on by itself
when there is space, whoever made it.
"""

import contextlib
import os
import subprocess
import sys

from eqdtest import RpcError, Skip, contains, equal, eventually, main, test
from ends import crash, orderly

EQ_E_STORE = 24
BYTES = 20000 # of a task: a segment has some dozens
CONF = {"eqd.conf": "[Store]\nSegmentSize=1M\nLowWater=0\n"}
LOW_CONF = {"eqd.conf": "[Store]\nSegmentSize=1M\nLowWater=8M\n"}
UNSHARE = ["unshare", "--mount", "--propagation", "private"]
IN_NAMESPACE = "DISKFULL_IN_NAMESPACE"


def small_disk(eqd, size="9M"):
    if os.environ.get(IN_NAMESPACE) != "yes":
        raise Skip("only root can mount, in a namespace of its own: unshare --mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "eqd-disk", eqd.dir / "state"], check=True)


@contextlib.contextmanager
def disk(eqd):
    """Its directory goes at the end of the test; the file system with the last eqd that has it open."""
    try:
        yield eqd.dir / "state"
    finally:
        subprocess.run(["umount", "--lazy", eqd.dir / "state"], check=True)


def logs(state):
    return sorted(p.name for p in (state / "store").glob("log-*"))


def larger_disk(eqd):
    """Of which 8M are less than a tenth, which is the most that LowWater= counts."""
    small_disk(eqd, "96M")


def free_bytes(state):
    s = os.statvfs(state)
    return s.f_bavail * s.f_frsize


def space(eqd):
    with eqd.connect() as c:
        return c.call("store_stat")


def leave(state, mib):
    """Others take the rest of the file system, in a file."""
    ballast = state / "ballast"
    with open(ballast, "ab") as f:
        os.posix_fallocate(f.fileno(), ballast.stat().st_size, free_bytes(state) - mib * 1048576)
    return ballast


def fill(eqd, says="no space"):
    """Held tasks until one is refused; how many were taken."""
    n = 0
    with eqd.connect() as c:
        try:
            while n < 10000:
                c.call("submit", "big", b"x" * BYTES, argv=["true"], hold=True)
                n += 1
        except RpcError as e:
            equal(e.code, EQ_E_STORE, e.text)
            contains(e.text, says, "queue big", "try again")
            equal((e.details["queue"], e.details["retry_after_usec"]), ("big", 1000000), "details")
    return n


def is_refused(eqd):
    eqd.fails(75, "submit", "-q", "run", "--", "true", says="no space")


def ends_all_the_same(eqd, task):
    """Held until now, or running."""
    eqd.ok("release", task)
    eqd.ends_as(task, "DONE")


def queues(eqd):
    eqd.ok("queue", "create", "big", "history=1")
    eqd.ok("queue", "create", "run", "max_active=4")
    os.mkfifo(eqd.dir / "work/gate", 0o666)
    (eqd.dir / "work/gate").chmod(0o666)
    running = [eqd.sh("exec cat work/gate", "-q", "run") for _ in range(3)]
    for task in running:
        eqd.until_state(task, "RUNNING")
    return running


def open_gate(eqd, tasks):
    """Again for those that have not come to it yet."""
    def ended():
        try:
            os.close(os.open(eqd.dir / "work/gate", os.O_WRONLY | os.O_NONBLOCK))
        except OSError: # nobody is at it
            pass
        return all(eqd.show(task)["state"] == "DONE" for task in tasks)
    eventually(ended, "they have come through the gate")


@test(config=CONF, change=small_disk, seconds=300)
def what_is_in_hand_ends_and_compaction_makes_space(eqd):
    with disk(eqd) as state:
        running = queues(eqd)
        n = fill(eqd)
        equal(n > 100, True, f"{n} tasks were taken")
        is_refused(eqd)
        eqd.has_logged("the store has no space")
        open_gate(eqd, running)
        for task in running:
            eqd.ends_as(task, "DONE", attempt=1)
        ends_all_the_same(eqd, "big/1")
        full = logs(state)
        for end, task in ((crash, "big/2"), (orderly, "big/3"), (crash, "big/4")):
            end(eqd)
            eqd.has_logged("the store has no space")
            is_refused(eqd)
            for done in running:
                equal([eqd.show(done)[f] for f in ("state", "attempt")], ["DONE", 1])
            ends_all_the_same(eqd, task)
            equal(eqd.queue("big")["waiting"], n - int(task[4:]))
        equal(logs(state), full)
        eqd.ok("cancel", *[f"big/{i}" for i in range(5, n - 4)])
        eqd.has_logged("the store has space again")
        eventually(lambda: len(logs(state)) < len(full), lambda: f"fewer segments than {full}: {logs(state)}")
        eqd.ends_as(eqd.submit("-q", "run", "--", "true"), "DONE")
        crash(eqd)
        equal([t["id"] for t in eqd.ls("-q", "big", "-s", "WAITING")], [f"big/{i}" for i in range(n - 4, n + 1)])
        eqd.ok("cancel", *[f"big/{i}" for i in range(n - 4, n + 1)])


@test(config=CONF, change=small_disk, seconds=300)
def what_others_fill_and_clear_away_needs_no_restart(eqd):
    with disk(eqd) as state:
        running = queues(eqd)
        ballast = state / "ballast"
        with open(ballast, "wb", buffering=0) as f, contextlib.suppress(OSError):
            while f.write(b"b" * 65536) > 0:
                pass
        n = fill(eqd)
        is_refused(eqd)
        for end in (crash, orderly):
            end(eqd)
            is_refused(eqd)
            equal(eqd.queue("big")["waiting"], n)
            for task in running: # again, at their places
                eqd.until_state(task, "RUNNING")
        open_gate(eqd, running)
        for task in running:
            eqd.ends_as(task, "DONE", attempt=3)
        ballast.unlink()
        eqd.has_logged("the store has space again")
        equal(fill(eqd) > 0, True)
        crash(eqd)
        for task in running:
            eqd.ends_as(task, "DONE", attempt=3)


@test(config=LOW_CONF, change=larger_disk, seconds=300)
def with_little_left_tasks_are_refused_early_and_all_else_goes_on_until_there_is_more(eqd):
    with disk(eqd) as state:
        running = queues(eqd)
        leave(state, 12)
        n = fill(eqd, "too little (LowWater= of eqd.conf) space")
        equal(n > 100, True, f"{n} tasks were taken")
        left = free_bytes(state)
        equal(6 * 1048576 <= left < 8 * 1048576, True, f"refused early: {left} bytes are left")
        eqd.has_logged("less than the 8388608 of LowWater=")
        equal("the store has no space" in eqd.log_text(), False, "it has some")
        stat = space(eqd)
        equal((stat["health"], stat["low_water"], stat["free_bytes"] < 8388608), ("low", 8388608, True))
        ballast = leave(state, 5) # so that files that come and go do not matter
        eqd.fails(75, "queue", "create", "another", says="too little")
        eqd.ok("queue", "create", "aside", "durable=no") # is nothing of the store's
        eqd.ends_as(eqd.submit("-q", "aside", "--", "true"), "DONE")
        open_gate(eqd, running)
        for task in running:
            eqd.ends_as(task, "DONE", attempt=1)
        ends_all_the_same(eqd, "big/1")
        for end, task in ((crash, "big/2"), (orderly, "big/3")):
            end(eqd)
            eqd.has_logged("less than the 8388608 of LowWater=")
            eqd.fails(75, "submit", "-q", "run", "--", "true", says="too little")
            for done in running:
                equal([eqd.show(done)[f] for f in ("state", "attempt")], ["DONE", 1])
            ends_all_the_same(eqd, task)
        eqd.ok("param", "set", "low_water=1T")
        eventually(lambda: space(eqd)["low_water"] == 96 * 1048576 // 10, "no more counts than a tenth")
        eqd.ok("param", "set", "low_water=0")
        eqd.has_logged("the store has space again")
        eqd.ends_as(eqd.submit("-q", "run", "--", "true"), "DONE")
        eqd.ok("param", "set", "low_water=8M")
        eventually(lambda: eqd.log_text().count("of LowWater=") == 2, "it has too little again")
        ballast.unlink()
        eventually(lambda: eqd.log_text().count("the store has space again") == 2, "it has space by itself")
        eqd.ends_as(eqd.submit("-q", "run", "--", "true"), "DONE")
        crash(eqd)
        equal(eqd.queue("big")["waiting"], n - 3)


@test(config=LOW_CONF, change=larger_disk, notify=True, seconds=300)
def the_status_line_says_that_there_is_little_space_as_long_as_that_lasts(eqd):
    with disk(eqd) as state:
        eqd.ok("queue", "create", "big")
        ballast = leave(state, 3)
        fill(eqd, "too little")
        eqd.until_notified(lambda m: "; the store has too little space for tasks" in m.get("STATUS", ""))
        ballast.unlink()
        eqd.until_notified(lambda m: m.get("STATUS") and "the store" not in m["STATUS"])


if __name__ == "__main__":
    own = os.geteuid() == 0 and subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    if own and IN_NAMESPACE not in os.environ:
        os.environ[IN_NAMESPACE] = "yes"
        os.execvp(UNSHARE[0], [*UNSHARE, sys.executable, *sys.argv])
    main()
