#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Clients that come back by themselves: eqd is restarted and killed under them, in all styles of libeq at once, and then the
whole history is read: no task lost, none doubled, order of each client kept, no answer of a dead lease taken."""

import collections
import os
import random
import signal
import subprocess
import threading

from eqdtest import BUILD, LONG, equal, main, test
from ends import crash, orderly, restart
from workerkit import worker_queue

SUBMITTERS, WORKERS = ("blocking", "pipelined", "loop"), ("next", "callbacks")
N_TASKS = 20000 if LONG else 1500
N_ENDS = 24 if LONG else 8
END_SECONDS = 300
SEED = int(os.environ.get("EQD_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


class Client:
    """A process of comeback.c, whose lines a thread collects."""

    changed = threading.Condition() # of all

    def __init__(self, eqd, style, queue, name, n=0):
        self.process = subprocess.Popen([BUILD / "tests/system/comeback", style, queue, name, str(n)], text=True,
                                        env=eqd.environment(EQD_SOCKET=str(eqd.socket)), stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.style, self.name, self.lines = style, name, []
        self.thread = threading.Thread(target=self.collect)
        self.thread.start()

    def collect(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.split())
                self.changed.notify_all()
        with self.changed:
            self.lines.append(None)
            self.changed.notify_all()

    def end(self):
        """Its exit, without a complaint. lost, repeated, unanswered, late."""
        self.thread.join(END_SECONDS)
        equal(self.thread.is_alive(), False, f"{self.name} does not end: {self.lines[-3:]}")
        equal((self.process.wait(END_SECONDS), self.process.stderr.read()), (0, ""), self.name)
        self.process.stdout.close()
        self.process.stderr.close()
        _, *self.lines, last, _ = self.lines
        equal(last[0], "LINK")
        return [int(v) for v in last[1:]]


def until(clients, n, enough=any):
    """One of them, or all, have said n lines, or all there are."""
    with Client.changed:
        if not Client.changed.wait_for(lambda: enough(len(c.lines) >= n or c.lines[-1:] == [None] for c in clients), END_SECONDS):
            raise AssertionError(f"{[c.name for c in clients]}: less than {n} lines")


def shake(eqd, dice, submitters, ends):
    """Ends of eqd while tasks are on their way in."""
    for i in range(N_ENDS):
        # At first under all of them, then under the slow one, too.
        until(submitters if i == 0 else [dice.choice(submitters)], (i + 1) * N_TASKS // (N_ENDS + 2))
        dice.choice(ends)(eqd)


def under_load(eqd, queue, ends):
    print(f"# EQD_SEED={SEED}")
    dice = random.Random(SEED)
    workers = [Client(eqd, style, queue, f"{style}{i}") for i in range(2) for style in WORKERS]
    until(workers, 1, all) # opened: one that finds no eqd at its start has nothing to come back to
    submitters = [Client(eqd, style, queue, style, N_TASKS) for style in SUBMITTERS]
    until(submitters, 1, all)
    shake(eqd, dice, submitters, ends)
    links = {s.name: s.end() for s in submitters}
    for w in sorted(workers, key=lambda w: w.style): # "callbacks" keep some of what they have; the others do the rest
        if w.style == "next":
            eqd.ok("queue", "flush", queue)
        w.process.send_signal(signal.SIGTERM)
        links[w.name] = w.end()
    print(f"# lost, repeated, unanswered, late: {links}")
    return submitters, workers, links


def tasks_of(eqd, queue):
    """All of them, page by page."""
    with eqd.connect() as c:
        rows = page = c.call("list", queue=queue)
        while page:
            page = c.call("list", queue=queue, **{"from": page[-1]["id"]})
            rows += page
    return rows


def check_history(eqd, queue, submitters, workers, links):
    shown = {t["label"]: t for t in tasks_of(eqd, queue)}
    # None lost, none doubled: as many tasks as were asked for, and each with its own label.
    equal(eqd.queue(queue)["last_seq"], N_TASKS * len(submitters), "tasks that were ever accepted")
    equal(len(shown), N_TASKS * len(submitters))
    equal(collections.Counter(t["state"] for t in shown.values()), {"DONE": len(shown)})
    for s in submitters:
        seqs = [int(seq) for seq, _ in s.lines]
        equal([label for _, label in s.lines], [f"{s.name}-{i}" for i in range(N_TASKS)], "each was accepted once, in order")
        equal(seqs, sorted(seqs), f"{s.name}: order of the queue")
        for seq, label in s.lines:
            equal(shown[label]["id"][1], int(seq), f"{label}: what was answered and what there is")
    # No lease twice; answers of the leases that were lost were refused.
    got = [(l[1], int(l[2])) for w in workers for l in w.lines if l[0] == "GOT"]
    equal(len(got), len(set(got)), "a lease was given out twice")
    equal({label for label, _ in got}, set(shown))
    refused = [l for w in workers for l in w.lines if l[0] == "ENDED" and l[3] != "0"]
    equal(len(refused), sum(links[w.name][3] for w in workers), "late answers are counted")
    taken = {(l[1], int(l[2])) for w in workers for l in w.lines if l[0] == "ENDED" and l[3] == "0"}
    for label, task in shown.items():
        equal((label, task["attempt"]) in taken, True, f"{label}: DONE by an attempt that nobody ended")
    equal(sum(link[2] for link in links.values()), 0, "calls that could not be repeated")
    for w in workers: # submitters may be through before the first end
        equal(links[w.name][0] > 0, True, f"{w.name} has not lost a connection")


@test(seconds=600)
def no_task_is_lost_and_none_is_doubled_however_often_eqd_is_killed(eqd):
    worker_queue(eqd, "w", "history=200000", "max_active=16", "max_crashes=1000", "unique_window=200000")
    check_history(eqd, "w", *under_load(eqd, "w", [crash]))


@test(seconds=600)
def nor_over_restarts(eqd):
    worker_queue(eqd, "w", "history=200000", "max_active=16", "max_crashes=1000", "unique_window=200000", "grace=0")
    check_history(eqd, "w", *under_load(eqd, "w", [orderly, crash]))


@test(seconds=600, config={"eqd.conf": "[Queue]\nDurable=no\n"})
def nor_of_a_queue_in_memory_over_restarts(eqd):
    worker_queue(eqd, "w", "history=200000", "max_active=16", "max_crashes=1000", "unique_window=200000", "grace=0")
    check_history(eqd, "w", *under_load(eqd, "w", [restart]))


if __name__ == "__main__":
    main()
