#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Workers that are killed, frozen, slow or lying, while clients submit, cancel and come again; then the whole history is
read: no task lost, none with two live leases at once, order kept on serial queues, no answer of a dead lease taken.

Workers are processes of their own, so that SIGKILL and SIGSTOP are real. Each writes what it does into a pipe that the test
reads, one line a step with its time: GOT task attempt, ANSWERED. A line of at most PIPE_BUF bytes is written as a whole, so lines of
many workers do not mix.

So a lease has an interval as its worker saw it: from GOT until the first thing that may end it, which is written before it is
done: its answer, a lie about its attempt, the death of the worker, a kick of its connection, or its timeout and grace counted from the start
that eqd told. The next lease of the task may not begin before that.
"""

import collections
import os
import random
import select
import signal
import time

from eqdtest import LONG, FINISHED, Rpc, RpcError, equal, main, test
import msgpack_mini
from workerkit import NO_LEASE, Worker, worker_queue

SERIAL, PARALLEL = ("s0", "s1", "s2"), ("p0", "p1")
N_TASKS = 20000 if LONG else 3000
N_WORKERS = 6
TIMEOUT_USEC, GRACE_USEC = 40000, 10000 # of the parallel queues
SEED = int(os.environ.get("EQD_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)

Line = collections.namedtuple("Line", "worker step queue seq attempt usec")


def now_usec():
    """Of the clock that eqd dates its events by."""
    return time.time_ns() // 1000


# ---- a worker ----

def worker_main(path, number, log, seed, how):
    """Serves everything until it is killed. how: lies, shuffles or is slow."""
    dice = random.Random(seed)
    rpc = Rpc(path)
    credit = dice.choice((1, 1, 2, 5))
    rpc.call("worker_serve", list(SERIAL + PARALLEL), credit=credit, parallel=1, name=f"{number}-{how}")
    pending = []

    def write(step, queue, seq, attempt):
        os.write(log, f"{number} {step} {queue} {seq} {attempt} {now_usec()}\n".encode())

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
            lie(answer, dice, msgid)
            touch_foreign(rpc, write, dice, pending, queue, seq)
            if dice.random() < 0.3: # about this one: with another attempt, or with what belongs to another
                write("LIED", queue, seq, attempt)
                answer(msgid, None, {"attempt": attempt + dice.choice((1, 2, 1000)), "result": b"of another attempt"})
                continue
            if pending and pending[0][3] != attempt:
                other = pending.pop(0)
                write("LIED", *other[1:])
                answer(other[0], None, {"attempt": attempt, "result": b"of another task"})
        write("ANSWERED", queue, seq, attempt)
        if dice.random() < 0.05:
            answer(msgid, "failed", None)
        else:
            answer(msgid, None, {"attempt": attempt, "result": f"{number}/{attempt}".encode()})
        while rpc.receive(0):
            pass


def lie(answer, dice, msgid):
    """Answers to what nobody asked."""
    answer(dice.randrange(1 << 32), None, b"never sent")
    answer((msgid + (1 << 16)) & 0xffffffff, None, b"of another time")


def touch_foreign(rpc, write, dice, pending, queue, seq):
    """Signs of life for what others have, or nobody."""
    other = max(1, seq + dice.choice((-3, -2, -1, 1)))
    if any(p[1] == queue and p[2] == other for p in pending):
        return
    for attempt in (1, 2):
        try:
            rpc.call("worker_touch", f"{queue}/{other}", attempt, progress=99)
            write("TOUCHED", queue, other, attempt)
        except RpcError as e:
            equal(e.code, NO_LEASE)


def foreign_touches(lines):
    """What was meant for another's lease may have come here at that very moment: then it says so before or after that. The last line
    of a worker that was killed may miss its other half."""
    leases, answered = {(l.worker, l.queue, l.seq, l.attempt) for l in lines if l.step == "GOT"}, set()
    last = {l.worker: l for l in lines}
    for l in lines:
        lease = (l.worker, l.queue, l.seq, l.attempt)
        if l.step == "ANSWERED":
            answered.add(lease)
        elif l.step == "TOUCHED" and (lease not in leases or lease in answered) and l is not last[l.worker]:
            yield l


# ---- the test ----

class Herd:
    """Worker processes, replaced as they fall."""

    def __init__(self, eqd, dice):
        self.eqd, self.dice, self.number, self.alive = eqd, dice, 0, {}
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self.text = b""
        self.over = {} # number: when it was ended
        self.late = collections.Counter()

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
        if sig == signal.SIGKILL:
            self.over.setdefault(self.alive[pid], now_usec())
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
            worker, step, queue, seq, attempt, usec = line.split()
            yield Line(int(worker), step, queue, int(seq), int(attempt), int(usec))

    def look(self, c):
        """The rows of workers, and what they tell of late answers."""
        rows = c.call("worker_list")
        for row in rows:
            self.late[row["name"]] = max(self.late[row["name"]], row.get("late", 0))
        return rows


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
        workers = herd.look(c)
        if workers:
            row = dice.choice(workers)
            herd.over.setdefault(int(row["name"].split("-")[0]), now_usec())
            c.call("worker_kick", row["worker"])
    while len(herd.alive) - len([p for p in herd.frozen if p in herd.alive]) < N_WORKERS:
        herd.start()


def run(eqd, dice):
    names = SERIAL + PARALLEL
    for name in SERIAL:
        worker_queue(eqd, name, "max_crashes=1000", "retries=3", "backoff=0", "history=100000")
    for name in PARALLEL:
        worker_queue(eqd, name, "max_active=8", "max_crashes=1000", "history=100000", "retries=2", "backoff=0",
                     f"timeout={TIMEOUT_USEC}us", f"grace={GRACE_USEC}us")
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
    herd.look(c)
    late_for_certain(eqd, c, events, herd)
    herd.end_all(events)
    return shown, herd, starts_of(events)


def late_for_certain(eqd, c, events, herd):
    """A worker that answers when its lease was revoked, in the middle of all the others: refused, and counted."""
    worker_queue(eqd, "late", "timeout=1ms", "grace=1ms")
    w = Worker(eqd, "late")
    task = c.call("submit", "late", b"0")
    run = w.next()
    equal(c.call("wait", [task])[0]["state"], "TIMEOUT")
    w.done(run, b"too late")
    equal(w.refused()[:2], (run.msgid, NO_LEASE))
    equal(w.row()["late"], 1)
    equal("result" in c.call("show", [task])[0], False)
    w.vanish()


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
    """(task id, attempt): when, in the order in which eqd started them; and how many events were lost."""
    events.call("ping")
    return [((tuple(p[0]["id"]), p[0]["attempt"]), p[0]["time_usec"]) for m, p in events.notes if m == "event"], \
        sum(p[0] for m, p in events.notes if m == "lost")


@test(seconds=600)
def nothing_is_lost_whatever_workers_do(eqd):
    print(f"# EQD_SEED={SEED}")
    dice = random.Random(SEED)
    shown, herd, (times, lost) = run(eqd, dice)
    lines, starts = list(herd.lines()), [start for start, _ in times]

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
    n_later = check_intervals(lines, herd.over, {name: queue_id(shown, name) for name in SERIAL + PARALLEL}, dict(times))
    steps = collections.Counter(l.step for l in lines)
    equal(list(foreign_touches(lines)), [], "the lease of another one, or none, was touched")
    print(f"# {n_later} leases after another one, {dict(steps)}, {sum(herd.late.values())} late answers")
    equal((n_later > 0, steps["LIED"] > 0), (True, True))
    equal([t for t in shown if t.get("result", b"").startswith(b"of another")], [], "a lie was taken")

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


def check_intervals(lines, over, ids, started):
    """No lease of a task begins before the one before it was over as its worker saw it. Returns how many there were to compare."""
    ended, leases = {}, collections.defaultdict(list)
    for l in lines:
        if l.step == "GOT":
            leases[l.queue, l.seq].append(l)
        elif l.step in ("ANSWERED", "LIED"):
            ended.setdefault((l.queue, l.seq, l.attempt), l.usec)
    n = 0
    for (queue, seq), of_task in leases.items():
        of_task.sort(key=lambda l: l.attempt)
        for a, b in zip(of_task, of_task[1:]):
            may_end = [ended.get((queue, seq, a.attempt)), over.get(a.worker)]
            if queue in PARALLEL:
                may_end.append(started[(ids[queue], seq), a.attempt] + TIMEOUT_USEC + GRACE_USEC)
            first = min((t for t in may_end if t is not None), default=None)
            equal(first is not None and first <= b.usec, True,
                  f"{queue}/{seq}: attempt {b.attempt} began with worker {b.worker} at {b.usec} while worker {a.worker} had "
                  f"attempt {a.attempt} from {a.usec} on, until {first}")
            n += 1
    return n


def queue_id(shown, name):
    return next(t["id"][0] for t in shown if t["queue"] == name)


if __name__ == "__main__":
    main()
