#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Workers that are killed, frozen, slow or lying, while clients submit, cancel and come again; then the whole history is
read: no task lost, none with two live leases at once, order kept on serial queues, no answer of a dead lease taken.

Workers are processes of their own, so that SIGKILL and SIGSTOP are real. Each writes what it does into a pipe that the test
reads, one line a step: GOT task attempt, ANSWERED. A line of at most PIPE_BUF bytes is written as a whole, so lines of
many workers do not mix.
"""

import collections
import os
import random
import select
import signal
import time

from eqdtest import LONG, FINISHED, Rpc, equal, main, test
import msgpack_mini
from workerkit import worker_queue

SERIAL, PARALLEL = ("s0", "s1", "s2"), ("p0", "p1")
N_TASKS = 20000 if LONG else 3000
N_WORKERS = 6
SEED = int(os.environ.get("EQD_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)

Line = collections.namedtuple("Line", "worker step queue seq attempt")


# ---- a worker ----

def worker_main(path, number, log, seed, how):
    """Serves everything until it is killed. how: lies, shuffles or is slow."""
    dice = random.Random(seed)
    rpc = Rpc(path)
    credit = dice.choice((1, 1, 2, 5))
    rpc.call("worker_serve", list(SERIAL + PARALLEL), credit=credit, parallel=1, name=how)
    pending = []

    def write(step, queue, seq, attempt):
        os.write(log, f"{number} {step} {queue} {seq} {attempt}\n".encode())

    def answer(msgid, error, result):
        rpc.sock.sendall(msgpack_mini.encode([1, msgid, error, result]))

    while True:
        if not rpc.requests and not pending:
            rpc.receive(3600)
        while rpc.requests:
            msgid, _, params = rpc.requests.popleft()
            _, queue, attempt, payload = params[:4]
            write("GOT", queue, int(payload), attempt)
            pending.append((msgid, queue, int(payload), attempt))
        if not pending:
            continue
        msgid, queue, seq, attempt = pending.pop(0)
        if how == "slow":
            select.select([], [], [], dice.random() * 0.02) # the work
        if how == "lying" and dice.random() < 0.3:
            lie(answer, dice, msgid, attempt)
        write("ANSWERED", queue, seq, attempt)
        if dice.random() < 0.05:
            answer(msgid, "failed", None)
        else:
            answer(msgid, None, {"attempt": attempt, "result": f"{number}/{attempt}".encode()})
        while rpc.receive(0):
            pass


def lie(answer, dice, msgid, attempt):
    """Answers to what nobody asked."""
    answer(dice.randrange(1 << 32), None, b"never sent")
    answer((msgid + (1 << 16)) & 0xffffffff, None, b"of another time")


# ---- the test ----

class Herd:
    """Worker processes, replaced as they fall."""

    def __init__(self, eqd, dice):
        self.eqd, self.dice, self.number, self.alive = eqd, dice, 0, {}
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self.text = b""

    def start(self):
        self.number += 1
        seed, how = self.dice.randrange(1 << 30), self.dice.choice(("honest", "honest", "slow", "lying"))
        pid = os.fork()
        if pid == 0:
            try:
                worker_main(self.eqd.socket, self.number, self.write_end, seed, how)
            except BaseException:
                pass # eqd has closed the connection, or the test is over
            finally:
                os._exit(0)
        self.alive[pid] = self.number

    def end(self, pid, sig=signal.SIGKILL):
        os.kill(pid, sig)
        if sig == signal.SIGKILL:
            os.waitpid(pid, 0)
            del self.alive[pid]

    def reap(self):
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.alive.pop(pid, None)

    def read(self, events):
        while events.receive(0):
            pass
        try:
            while data := os.read(self.read_end, 1 << 16):
                self.text += data
        except BlockingIOError:
            pass

    def end_all(self, events):
        for pid in list(self.alive):
            self.end(pid)
        self.read(events)
        os.close(self.read_end)
        os.close(self.write_end)

    def lines(self):
        for line in self.text.decode().splitlines():
            worker, step, queue, seq, attempt = line.split()
            yield Line(int(worker), step, queue, int(seq), int(attempt))


def one_blow(herd, c, dice, tasks):
    """Something that happens to workers or tasks."""
    blow = dice.random()
    pids = list(herd.alive)
    if blow < 0.35 and pids:
        herd.end(dice.choice(pids))
    elif blow < 0.5 and pids:
        frozen = dice.choice(pids)
        herd.end(frozen, signal.SIGSTOP)
        herd.frozen.append(frozen)
    elif blow < 0.65 and herd.frozen:
        pid = herd.frozen.pop(0)
        if pid in herd.alive:
            herd.end(pid, signal.SIGCONT)
    elif blow < 0.75 and tasks:
        c.call("cancel", [dice.choice(tasks[-30:])], running=True, grace_usec=dice.choice((0, 20000)))
    elif blow < 0.85:
        workers = c.call("worker_list")
        if workers:
            c.call("worker_kick", dice.choice(workers)["worker"])
    while len(herd.alive) - len([p for p in herd.frozen if p in herd.alive]) < N_WORKERS:
        herd.start()


def run(eqd, dice):
    names = SERIAL + PARALLEL
    for name in SERIAL:
        worker_queue(eqd, name, "max_crashes=1000", "retries=3", "backoff=0", "history=100000")
    for name in PARALLEL:
        worker_queue(eqd, name, "max_active=8", "max_crashes=1000", "history=100000", "timeout=40ms", "grace=10ms")
    herd = Herd(eqd, dice)
    herd.frozen = []
    c = eqd.connect()
    tasks, counts = [], collections.Counter()
    events = eqd.events(events=["task.started"])
    while len(tasks) < N_TASKS:
        if dice.random() < 0.1: # clients come and go, too
            c.close()
            c = eqd.connect()
        for _ in range(dice.randrange(1, 12)):
            name = dice.choice(names)
            counts[name] += 1
            tasks.append(c.call("submit", name, b"%d" % counts[name]))
        one_blow(herd, c, dice, tasks)
        herd.reap()
        herd.read(events)
    for pid in herd.frozen: # the rest is worked off by those who can
        if pid in herd.alive:
            herd.end(pid, signal.SIGCONT)
    shown = []
    for i in range(0, len(tasks), 200):
        shown += finish(c, herd, events, tasks[i:i + 200])
    herd.end_all(events)
    return shown, list(herd.lines()), starts_of(events)


def finish(c, herd, events, tasks):
    """Waits for tasks while workers that fall are replaced: some are killed by nobody but their own connection."""
    msgid = c.send("wait", tasks)
    end = time.monotonic() + 90
    while msgid not in c.replies:
        c.receive(0.05)
        herd.reap()
        herd.read(events)
        while len(herd.alive) < N_WORKERS:
            herd.start()
        if time.monotonic() > end:
            raise AssertionError(f"tasks do not end: {[(w['name'], w['state'], w['in_flight']) for w in c.call('worker_list')]}")
    return c.reply(msgid)


def starts_of(events):
    """(task id, attempt) in the order in which eqd started them."""
    events.call("ping")
    return [(tuple(p[0]["id"]), p[0]["attempt"]) for m, p in events.notes if m == "event"], \
        sum(p[0] for m, p in events.notes if m == "lost")


@test(seconds=600)
def nothing_is_lost_whatever_workers_do(eqd):
    print(f"# EQD_SEED={SEED}")
    dice = random.Random(SEED)
    shown, lines, (starts, lost) = run(eqd, dice)

    # Every task has ended, once, in a state that it may end in.
    equal(len(shown), len({tuple(t["id"]) for t in shown}))
    states = collections.Counter(t["state"] for t in shown)
    print(f"# {dict(states)}, {len(lines)} steps, {len({l.worker for l in lines})} workers")
    equal(set(states) <= set(FINISHED) - {"EXPIRED"}, True, states)
    equal(states["DONE"] > len(shown) / 2, True, states)

    # No two leases of a task have the same attempt, and each was started later than the one before.
    equal(lost, 0, "events lost")
    equal(len(starts), len(set(starts)), "an attempt was started twice")
    last = {}
    for task, attempt in starts:
        equal(attempt > last.get(task, 0), True, f"{task}: attempt {attempt} after {last.get(task)}")
        last[task] = attempt
    got = [(l.queue, l.seq, l.attempt) for l in lines if l.step == "GOT"]
    equal(len(got), len(set(got)), "a lease was given to two workers")

    # What counts is the answer of the last lease, whoever else answered as well.
    by_id = {(t["queue"], t["id"][1]): t for t in shown}
    for t in shown:
        if t["state"] == "DONE":
            equal(int(t["result"].split(b"/")[1]), t["attempt"], f"{t}: the answer of another lease was taken")

    # Serial queues begin with their tasks in order; after one has been answered well it is never begun again.
    for name in SERIAL:
        queue_starts = [(seq, attempt) for (q, seq), attempt in starts if q == queue_id(shown, name)]
        firsts = [seq for seq, attempt in queue_starts if attempt == 1]
        equal(firsts, sorted(firsts), f"order of {name}")
        runs = 0
        for seq, attempt in queue_starts: # a task is not begun before those ahead of it are over
            equal(seq >= runs, True, f"{name}/{seq} was begun after {name}/{runs}")
            runs = seq
        for line in lines:
            t = by_id[line.queue, line.seq]
            if line.queue == name and line.step == "GOT" and t["state"] == "DONE":
                equal(line.attempt <= t["attempt"], True, f"{name}/{line.seq} was given out after it was done")


def queue_id(shown, name):
    return next(t["id"][0] for t in shown if t["queue"] == name)


if __name__ == "__main__":
    main()
