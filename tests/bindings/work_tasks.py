# SPDX-License-Identifier: MIT
"""Functions that the tests have run by workers."""

import os
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
