#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A loss of power at any moment, and a task of a queue with at_most_once.

A real eqd is recorded through two lives, the first of which ends by kill -9. Who runs a task, a command or a worker, writes into the
same trace that it has begun, before it does anything else: so the trace tells what was on the disk then. `powerloss` cuts it, and
holds what the store tells against that: what has begun has ended or is known to have begun, and would not start again. EQD_LONG=1
cuts at each point.
"""

import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from eqdtest import BUILD, LONG, equal, main, test
from workerkit import Worker

TASKS = 60 # of each queue, in each life
ACCEPTED, STARTED = 69, 71 # as trace.h has them


def event(kind, queue, seq, data=b""):
    return struct.pack("=7I4x2Q2I4Q2I", kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, len(data), queue, seq, 0, 0, 0, 0) + data


class Trace:
    def __init__(self, eqd):
        self.eqd, self.path, self.begun = eqd, eqd.dir / "trace", eqd.dir / "work/begun"
        self.env = {"LD_PRELOAD": BUILD / "tests/crash/recorder.so", "EQD_TRACE": self.path, "EQD_TRACE_ROOT": eqd.dir / "state"}
        self.begun.mkdir()

    def note(self, data):
        with open(self.path, "ab", buffering=0) as f: # one write, behind whatever is there
            f.write(data)


def commands(trace, life):
    """Each tells that it has begun by one write of what is prepared for it."""
    queue = trace.eqd.queue("commands")["id"]
    (trace.begun / "commands").mkdir(exist_ok=True)
    with trace.eqd.connect() as c:
        for seq in range(life * TASKS + 1, (life + 1) * TASKS + 1):
            (trace.begun / f"commands/{seq}").write_bytes(event(STARTED, queue, seq))
            text = f"command-{seq}."
            _, got = c.call("submit", "commands", b"", argv=["/bin/sh", "-c", f"cat {trace.begun}/$EQD_TASK >>{trace.path}", text])
            equal(got, seq)
            trace.note(event(ACCEPTED, queue, seq, text.encode()))


def worker(trace, life):
    """Has three at once, of which it ends one after the other."""
    queue = trace.eqd.queue("worker")["id"]
    w, leases = Worker(trace.eqd, "worker", credit=3), []
    with trace.eqd.connect() as c:
        for n in range(TASKS):
            text = f"work-{life}-{n}."
            _, seq = c.call("submit", "worker", text.encode())
            trace.note(event(ACCEPTED, queue, seq, text.encode()))
            run = w.next()
            trace.note(event(STARTED, queue, run.id[1]))
            leases.append(run)
            if len(leases) == 3:
                w.done(leases.pop(0))


@test(config={"eqd.conf": "[Store]\nSegmentSize=1M\n"}, seconds=3500 if LONG else 400)
def what_has_begun_never_starts_again_after_a_loss_of_power(eqd):
    trace = Trace(eqd)
    eqd.stop()
    eqd.forget()
    shutil.rmtree(eqd.dir / "state/store") # the trace is to have all of it
    eqd.start(env=trace.env)
    eqd.ok("queue", "create", "commands", "at_most_once=yes", "max_active=4")
    eqd.ok("queue", "create", "worker", "at_most_once=yes", "max_active=3", "executor=worker")
    for life in range(2):
        commands(trace, life)
        worker(trace, life)
        os.kill(eqd.pid, signal.SIGKILL)
        eqd.connections = []
        eqd.expect_end(120, -signal.SIGKILL)
        eqd.forget()
        if life == 0:
            eqd.start(env=trace.env)
    recorded = trace.path.rename(eqd.dir / "recorded") # what runs under the next eqd, which is not recorded, writes all the same
    eqd.start()
    with subprocess.Popen([BUILD / "tests/crash/powerloss", "--trace", recorded, "store"], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as p:
        told = p.communicate()[0]
    print("".join(f"# {line.removeprefix('# ')}\n" for line in told.splitlines()), end="")
    equal(p.returncode, 0, told)


main()
