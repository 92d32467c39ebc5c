#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kill -9 at any moment, and what a worker was told is kept: no task whose answer was confirmed to it is handed out again, nor one that
it answered before it left. EQD_SEED chooses other moments; EQD_LONG=1 makes thousands of them.
"""

import collections
import os
import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from eqdtest import Closed, LONG, equal, main, test
from workerkit import Worker

KILLS = 2000 if LONG else 40
TASKS = 50 # more, for each life


class Life:
    """One worker until eqd is killed: which attempts it answered, and what it was told of them."""

    def __init__(self, eqd, rng):
        self.eqd, self.rng, self.told, self.answered = eqd, rng, set(), []
        self.w = Worker(eqd, "kept", credit=rng.randrange(1, 30), confirm=True)

    def take_notes(self):
        notes, self.w.rpc.notes = self.w.rpc.notes, collections.deque()
        for method, params in notes:
            equal(method, "run_confirmed")
            self.told.update(task[1] for task, _ in params[0])

    def answer(self, n_messages):
        """Answers what comes, well or not; ends after so many messages."""
        for _ in range(n_messages):
            if not self.w.rpc.requests:
                self.w.rpc.receive()
            if self.w.rpc.requests:
                run = self.w.next()
                self.answered.append(run.id[1])
                (self.w.done if self.rng.random() < 0.9 else self.w.fail)(run)

    def leave(self):
        leave = self.w.rpc.send("worker_leave")
        while leave not in self.w.rpc.replies:
            self.w.rpc.receive()
            while self.w.rpc.requests:
                run = self.w.next()
                self.answered.append(run.id[1])
                self.w.done(run)
        self.told.update(self.answered)

    def kill(self):
        os.kill(self.eqd.pid, signal.SIGKILL)
        try:
            while self.w.rpc.receive(): # what was sent before counts
                pass
        except Closed:
            pass
        self.take_notes()


def handed_out_again(eqd, n):
    """All that is pending, run by another worker."""
    w, ran = Worker(eqd, "kept", credit=100), []
    while len(ran) < n:
        run = w.next()
        ran.append(run.id[1])
        w.done(run)
    w.rpc.call("worker_leave")
    return set(ran)


@test(seconds=9000 if LONG else 600)
def what_was_confirmed_to_a_worker_never_runs_again_after_kill_9(eqd):
    rng, n_told, n_again = random.Random(int(os.environ.get("EQD_SEED", "1"))), 0, 0
    eqd.ok("queue", "create", "kept", "executor=worker", "max_active=100", "history=1000000")
    for _ in range(KILLS):
        with eqd.connect() as c:
            c.call("submit_many", "kept", [{"payload": b"x"} for _ in range(TASKS)])
        life = Life(eqd, rng)
        life.answer(rng.randrange(2, 2 * TASKS // 3))
        if rng.random() < 0.3:
            life.leave()
        life.kill()
        eqd.connections = []
        eqd.expect_end(120, -signal.SIGKILL)
        eqd.forget()
        eqd.start()
        again = handed_out_again(eqd, eqd.queue("kept")["queued"])
        equal(sorted(again & life.told), [], "confirmed, and handed out again")
        n_told, n_again = n_told + len(life.told), n_again + len(again & set(life.answered))
    print(f"# {KILLS} kills, {n_told} answers were confirmed; {n_again} that were not came again")
    equal(n_told > 0, True)


main()
