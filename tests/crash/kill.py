#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kill -9 at any moment under the load of several clients; what they were told is held against what has run.

Nothing that was accepted is lost, nothing that was told as ended runs again, and first attempts keep the order.
EQD_SEED chooses other moments; EQD_LONG=1 makes thousands of them.
"""

import os
import random
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from eqdtest import LONG, Closed, equal, eventually, main, test

KILLS = 3000 if LONG else 200


class History:
    """What clients were told."""

    def __init__(self):
        self.lock = threading.Lock()
        self.accepted, self.ended = set(), {}

    def client(self, eqd, number, stop):
        rng = random.Random(number)
        try:
            with eqd.connect() as c:
                while not stop.is_set():
                    ids = []
                    for _ in range(rng.randrange(1, 6)):
                        _, seq = c.call("submit", "q", b"", argv=["/bin/sh", "-c", f"echo $EQD_TASK >>{eqd.dir}/work/ran"])
                        ids.append(seq)
                        with self.lock:
                            self.accepted.add(seq)
                    for row in c.call("wait", [f"q/{s}" for s in ids]):
                        with self.lock:
                            self.ended[row["id"][1]] = row["state"]
        except (Closed, OSError):
            pass


@test(seconds=6000 if LONG else 500)
def kill_9_at_any_moment_loses_nothing_and_repeats_nothing_that_was_told(eqd):
    eqd.ok("queue", "create", "q", "history=1000000", "max_crashes=1000")
    (eqd.dir / "work/ran").touch()
    rng, history = random.Random(int(os.environ.get("EQD_SEED", "1"))), History()
    for _ in range(KILLS):
        stop = threading.Event()
        clients = [threading.Thread(target=history.client, args=(eqd, rng.random(), stop)) for _ in range(4)]
        for t in clients:
            t.start()
        enough = len(history.accepted) + rng.randrange(1, 25)
        eventually(lambda: len(history.accepted) >= enough, "tasks are accepted")
        os.kill(eqd.pid, signal.SIGKILL)
        stop.set()
        for t in clients:
            t.join()
        eqd.connections = []
        eqd.expect_end(20, -signal.SIGKILL)
        eqd.forget()
        eqd.start()
        eqd.ok("queue", "flush", "q")
        ran = (eqd.dir / "work/ran").read_text().split()
        counts = {}
        for name in ran:
            counts[int(name.split("/")[1])] = counts.get(int(name.split("/")[1]), 0) + 1
        lost = [s for s in history.accepted if counts.get(s, 0) == 0]
        equal(lost, [], "accepted and lost")
        again = [s for s in history.ended if counts[s] != 1] # accepted and ended within one life of eqd
        equal(again, [], "told as ended and run again")
    first = list(dict.fromkeys(int(name.split("/")[1]) for name in ran))
    equal(first, sorted(first), "order of the first attempts")
    print(f"# {KILLS} kills, {len(history.accepted)} tasks accepted, {len(history.ended)} told as ended, "
          f"{sum(counts.values()) - len(counts)} run again")


main()
