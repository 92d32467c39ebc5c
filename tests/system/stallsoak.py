#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A mixed load with things that get stuck at random: each is told in time, again and again, and ended; nothing else is told.

What is asserted, of each event as it comes:
  - it is of a queue that is stuck just then (no false report), not before the threshold, and its begin comes once
  - each queue that is stuck for the threshold and a second has been told by then
  - there is one repetition each threshold, until the end, which comes within a second after the queue got free
and at the end:
  - each begin has had its end, and the status line and `stat` name no stall any more
  - `stat` has counted what the subscriber has; no record of the log was dropped, and there is no warning but of stalls
  - WATCHDOG=1 went on coming all the time
  - eqd holds as many descriptors and processes as at the start, and no more memory than after a third of the time

EQD_LONG=1: an hour. EQD_SECONDS: that long. EQD_SEED: another course of things.
"""

import os
import random
import re
import time

from eqdtest import LONG, equal, eventually, main, test

SECONDS = int(os.environ.get("EQD_SECONDS", 3600 if LONG else 30))
WATCHDOG = 10 # seconds; a sign comes with each half of them, and who counts them may be late by the other half
THRESHOLD = 2
SURELY = THRESHOLD + 1 # who is stuck for that long stays stuck until it is told; how late that may be is shown in tests/unit/stall-test.c
HEALTHY, VICTIMS = 8, 12


class Victim:
    """A queue whose tasks show no life. Idle, or stuck; each of its heads since some time of the wall clock, not before."""

    def __init__(self, name):
        self.name, self.head, self.since, self.until, self.begun, self.told, self.repeats = name, None, {}, 0, None, 0, 0

    def get_stuck(self, rpc, rng):
        self.head = rpc.call("submit", self.name, b"", argv=["/bin/sleep", "100000"])
        self.since[self.head[1]] = time.time() # before somebody waits for it
        rpc.call("submit", self.name, b"", argv=["/bin/true"])
        seconds = rng.uniform(0.2, 4 * THRESHOLD)
        self.until, self.must_be_told = time.time() + seconds, seconds >= SURELY

    def may_be_freed(self):
        return self.head and time.time() > self.until and (self.told == self.head[1] or not self.must_be_told)

    def get_free(self, rpc):
        rpc.call("cancel", [self.head], running=True, signal=9)
        self.head, self.freed = None, time.time()


class Watcher:
    def __init__(self, victims):
        self.victims = {v.name: v for v in victims}
        self.latency, self.n_repeats, self.ended_late = [], 0, []

    def take(self, event):
        kind, at = event["event"], event["time_usec"] / 1e6
        victim = self.victims.get(event.get("queue"))
        if victim is None or "pool" in event and event.get("part"):
            raise AssertionError(f"nothing of that is stuck: {event}")
        if kind == "stall.begin":
            equal(victim.begun, None, f"{event} came twice")
            victim.begun, victim.told, victim.repeats = at, event["id"][1], 0 # which may be free again by now, and the next one stuck
            since = victim.since[victim.told]
            equal(at - since >= THRESHOLD, True, f"too early: {event}")
            self.latency.append(at - since)
        elif kind == "stall.repeat":
            equal(victim.begun is not None, True, f"no begin before {event}")
            victim.repeats += 1
            self.n_repeats += 1
        else:
            equal(victim.head is None or victim.head[1] != victim.told, True, f"it is still stuck: {event}")
            wanted = int((at - victim.begun) / THRESHOLD)
            equal(abs(victim.repeats - wanted) <= 1, True, f"{victim.repeats} repetitions, not {wanted}: {event}")
            self.ended_late.append(at - victim.freed)
            victim.begun = None


def healthy_load(rpc, rng):
    """Short ones, long ones that are expected, delayed and held ones, paused queues."""
    queue = f"h{rng.randrange(HEALTHY)}"
    kind = rng.randrange(20)
    if kind == 0:
        rpc.call("queue_pause", queue)
        rpc.call("queue_resume", queue)
    elif kind == 1:
        rpc.call("submit", queue, b"", argv=["/bin/true"], delay_usec=rng.randrange(5_000_000))
    elif kind == 2:
        rpc.call("submit", queue, b"", argv=["/bin/sleep", f"{rng.uniform(0, 2 * THRESHOLD):.2f}"])
    elif kind == 3:
        rpc.call("submit", queue, b"", argv=["/bin/false"], retries=2, backoff_usec=200_000)
    else:
        rpc.call("submit", queue, b"", argv=["/bin/true"])


@test(config={"eqd.conf": f"[Watchdog]\nWatchdogThresh={THRESHOLD}s\n[Commands]\nSlots=64\n"}, seconds=SECONDS + 120, notify=True,
      env={"WATCHDOG_USEC": str(WATCHDOG * 1_000_000)})
def what_gets_stuck_is_told_and_nothing_else(eqd):
    rng = random.Random(int(os.environ.get("EQD_SEED", "1")))
    rpc, events = eqd.connect(), eqd.events(events=["stall."])
    victims = [Victim(f"v{i}") for i in range(VICTIMS)]
    for i in range(HEALTHY):
        rpc.call("queue_create", f"h{i}", set=["max_active=2", "history=100"])
    for v in victims:
        rpc.call("queue_create", v.name, set=["expected_runtime=0", "history=100"])
    began = time.monotonic()
    watcher, n_stuck, end = Watcher(victims), 0, began + SECONDS
    n_alive, n_gaps, last_alive, memory = 0, 0, began, None

    def pump(seconds):
        until = time.monotonic() + seconds
        while True:
            while events.notes:
                watcher.take(events.notes.popleft()[1][0])
            if not events.receive(max(0, until - time.monotonic())):
                return

    while time.monotonic() < end or any(v.head or v.begun for v in victims):
        healthy_load(rpc, rng)
        while (told := eqd.notified(0)) is not None:
            if told.get("WATCHDOG"):
                n_alive, n_gaps, last_alive = n_alive + 1, n_gaps + (time.monotonic() - last_alive > WATCHDOG), time.monotonic()
        if memory is None and time.monotonic() > began + SECONDS / 3:
            memory = rpc.call("stat")["rss_kib"]
        for v in victims:
            if v.may_be_freed(): # one that is not told, and should be, never is: the limit of time is what fails here
                v.get_free(rpc)
            elif not v.head and v.begun is None and time.monotonic() < end and rng.random() < 0.02:
                v.get_stuck(rpc, rng)
                n_stuck += 1
        pump(0.02)
    pump(1)
    latency, late = sorted(watcher.latency), sorted(watcher.ended_late)
    print(f"# {n_stuck} times stuck, {len(latency)} told, {watcher.n_repeats} repetitions; told after {latency[0]:.2f} to "
          f"{latency[-1]:.2f} s, p99 {latency[len(latency) * 99 // 100]:.2f} s; ends told within {late[-1]:.2f} s")
    equal(len(late), len(latency), "each that began has ended")

    stat = rpc.call("stat")
    equal([stat[k] for k in ("stalls", "stalled", "log_dropped")], [len(latency), 0, 0])
    log = eqd.log_text()
    equal(0 < log.count("no forward progress") <= len(latency) + watcher.n_repeats, True, "the log says it, too, but not too often")
    equal([line for line in log.splitlines() if re.match("<[0-4]>", line) and "no forward progress" not in line], [])
    print(f"# {n_alive} signs of life in {time.monotonic() - began:.0f} s, {n_gaps} gaps; {memory} KiB after a third, "
          f"{stat['rss_kib']} at the end")
    equal(n_gaps, 0, "times that WATCHDOG=1 did not come within WATCHDOG_USEC")
    equal(n_alive >= SECONDS / WATCHDOG, True, f"{n_alive} signs of life")
    equal(stat["rss_kib"] <= 1.2 * memory + 2048, True, "memory at the end, beside that after a third of the time")
    eqd.ok("queue", "flush", *(f"h{i}" for i in range(HEALTHY)))
    told = [m for m in iter(lambda: eqd.notified(0), None) if "STATUS" in m]
    equal([m["STATUS"] for m in told[-1:] if "STALLED" in m["STATUS"]], [])
    # The two connections of this test are there still; that of the start may have been counted with the others, or not any more.
    eventually(lambda: eqd.count_fds() <= eqd.descriptors + 2, eqd.fd_list)


# A disk that others keep busy may not answer for seconds, and that is told as well: rightly, but it is nothing of this test.
if os.access("/dev/shm", os.W_OK):
    os.environ["TMPDIR"] = "/dev/shm"
main()
