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
