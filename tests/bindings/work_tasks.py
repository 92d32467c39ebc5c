# SPDX-License-Identifier: MIT
"""Functions that the tests have run by workers."""

import os
import subprocess
import sys

import eqd


@eqd.task(queue="sums", retries=0)
def add(a, b=1):
    return {"sum": a + b, "pid": os.getpid()}


@eqd.task(queue="sums")
def fail():
    raise ValueError("no\nsuch luck")


@eqd.task(queue="sums")
async def later(value):
    return value


@eqd.task(queue="sums")
def die():
    os.kill(os.getpid(), 9)


@eqd.task(queue="sums", retries=3, backoff="1h")
def never():
    raise eqd.Final("hopeless")


@eqd.task(queue="sums", backoff="1h")
def again(counted):
    """Wants a second attempt at once, and tells on which it is."""
    run = eqd.current_run()
    run.touch(40, f"at {run.attempt}")
    if run.attempt == 1:
        raise eqd.Retry("not yet", after=0, counted=counted)
    return [run.attempt, run.queue, run.label]


@eqd.task(queue="sums")
def leave():
    sys.exit(3)


@eqd.task(queue="sums")
def hold(path):
    """Says that it has begun, and ends when the other end does."""
    with open(path + ".begun", "w") as f:
        f.write("x")
    with open(path) as f:
        return f.read()


@eqd.task(queue="sums")
def fork():
    """Returns in two processes, of which one is asked."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return "parent" if pid else "child"


class Mute(Exception):
    def __str__(self):
        return 1 / 0


@eqd.task(queue="sums")
def mute():
    raise Mute


@eqd.task(queue="sums")
def abandon(path):
    """Leaves a process behind that has all its descriptors, and dies."""
    with subprocess.Popen(["cat", path], close_fds=False):
        os.kill(os.getpid(), 9)


@eqd.task(queue="sums")
def shut(path):
    """As one that makes itself a daemon."""
    os.closerange(3, 1000)
    with open(path) as f:
        return f.read()


runs = []


@eqd.task(queue="sums")
def touch(progress, note):
    """A sign of life of this call, after one of that before in this process."""
    if runs:
        runs[-1].touch(77, "of another")
    runs.append(eqd.current_run())
    runs[-1].touch(progress, note)
    return os.getpid()
