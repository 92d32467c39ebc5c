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
CONF = {"eqd.conf": "[Store]\nSegmentSize=1M\n"}
UNSHARE = ["unshare", "--mount", "--propagation", "private"]
IN_NAMESPACE = "DISKFULL_IN_NAMESPACE"


def small_disk(eqd):
    if os.environ.get(IN_NAMESPACE) != "yes":
        raise Skip("only root can mount, in a namespace of its own: unshare --mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9M,mode=700", "eqd-disk", eqd.dir / "state"], check=True)


@contextlib.contextmanager
def disk(eqd):
    """Its directory goes at the end of the test; the file system with the last eqd that has it open."""
    try:
        yield eqd.dir / "state"
    finally:
        subprocess.run(["umount", "--lazy", eqd.dir / "state"], check=True)


def logs(state):
    return sorted(p.name for p in (state / "store").glob("log-*"))


def fill(eqd):
    """Held tasks until one is refused; how many were taken."""
    n = 0
    with eqd.connect() as c:
        try:
            while n < 10000:
                c.call("submit", "big", b"x" * BYTES, argv=["true"], hold=True)
                n += 1
        except RpcError as e:
            equal(e.code, EQ_E_STORE, e.text)
            contains(e.text, "no space", "queue big", "try again")
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


if __name__ == "__main__":
    own = os.geteuid() == 0 and subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    if own and IN_NAMESPACE not in os.environ:
        os.environ[IN_NAMESPACE] = "yes"
        os.execvp(UNSHARE[0], [*UNSHARE, sys.executable, *sys.argv])
    main()
