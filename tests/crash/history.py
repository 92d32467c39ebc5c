# SPDX-License-Identifier: MIT
"""What clients of an eqd were told, held against what has run. Two queues: `one` runs one task at a time, `some` four; and where it
is wanted, a third one, `brief`, that keeps a short history, so that there is something to compact."""

import collections
import random
import struct
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from eqdtest import Closed, RpcError, equal, eventually

QUEUES = ("one", "some")
BRIEF, HISTORY = "brief", 100 # more than are accepted between two crashes, so that none goes before it is waited for
CLIENTS = 4


class History:
    def __init__(self, eqd, brief=False):
        self.eqd, self.lock = eqd, threading.Lock()
        self.accepted, self.ended = set(), {} # names; name: state
        self.refused = []                     # texts of errors
        self.may_repeat = set()               # what was running at some crash
        self.ran_file = eqd.dir / "work/ran"
        self.ran_file.touch()
        self.looked_at = set()                # of `ended`, what an eqd after that one was asked about
        self.read, self.counts, self.firsts = 0, collections.Counter(), [] # firsts: names in the order of their first runs
        self.attempts = {} # the last one of each name
        for name, options in zip(QUEUES, ([], ["max_active=4"])):
            eqd.ok("queue", "create", name, "history=1000000", "max_crashes=1000", *options)
        self.queues = QUEUES
        if brief:
            self.queues += (BRIEF,)
            eqd.ok("queue", "create", BRIEF, f"history={HISTORY}", "max_crashes=1000")
        self.ids = {eqd.queue(name)["id"]: name for name in self.queues}

    def client(self, number, stop, n_bytes):
        rng = random.Random(number)
        try:
            with self.eqd.connect() as c:
                while not stop.is_set():
                    names = []
                    for _ in range(rng.randrange(1, 6)):
                        queue = rng.choice(self.queues)
                        _, seq = c.call("submit", queue, bytes(n_bytes(rng, queue)),
                                        argv=["/bin/sh", "-c", f"echo $EQD_TASK $EQD_ATTEMPT >>{self.ran_file}"])
                        names.append(f"{queue}/{seq}")
                        with self.lock:
                            self.accepted.add(names[-1])
                    for row, name in zip(c.call("wait", names), names):
                        with self.lock:
                            self.ended[name] = row["state"]
        except RpcError as e:
            with self.lock:
                self.refused.append((e.code, e.text))
        except (Closed, OSError):
            pass

    def load(self, seed, n_bytes=lambda rng, queue: 0):
        """Clients at work, n_bytes says with how large payloads; to be called when they are to end."""
        rng, stop = random.Random(seed), threading.Event()
        clients = [threading.Thread(target=self.client, args=(rng.random(), stop, n_bytes)) for _ in range(CLIENTS)]
        for t in clients:
            t.start()

        def end():
            stop.set()
            for t in clients:
                t.join()
        end.alive = lambda: any(t.is_alive() for t in clients)
        return end

    def until_accepted(self, n_more, end, or_else=lambda: False):
        """False: there are no clients left, or or_else() has become true."""
        enough = len(self.accepted) + n_more
        eventually(lambda: len(self.accepted) >= enough or not end.alive() or or_else(), "tasks are accepted", 100)
        return len(self.accepted) >= enough

    def note_marks(self):
        """After the end of an eqd, before the next one: what it had running, as its store has it (eqd-store(5))."""
        data = (self.eqd.dir / "state/store/running").read_bytes()[128:]
        for queue, seq, _, check, *_ in struct.iter_unpack("=8Q", data):
            if check and queue in self.ids:
                self.may_repeat.add(f"{self.ids[queue]}/{seq}")

    def check(self):
        """When everything has run."""
        with open(self.ran_file) as f:
            f.seek(self.read)
            runs = [line.split() for line in f]
            self.read = f.tell()
        names = [name for name, _ in runs]
        self.firsts += [name for name in dict.fromkeys(names) if name not in self.counts]
        self.counts.update(names)
        for name, attempt in runs: # no two runs have the same: by it a late answer is told from that of the next one
            equal(int(attempt) > self.attempts.get(name, 0), True, f"attempt {attempt} of {name} after {self.attempts.get(name)}")
            self.attempts[name] = int(attempt)
        equal(sorted(self.accepted - self.counts.keys()), [], "accepted and lost")
        repeated = {name for name in names if self.counts[name] > 1}
        equal(sorted(repeated & self.ended.keys()), [], "told as ended and run again")
        equal(sorted(repeated - self.may_repeat), [], "run again, and was not running")
        for queue in {"one", BRIEF}:
            first = [int(name.split("/")[1]) for name in self.firsts if name.startswith(f"{queue}/")]
            equal(first, sorted(first), f"order of the first attempts in {queue}")
        self.check_told(self.ended.keys() - self.looked_at)

    def check_told(self, names):
        """The end that was told is the one that every eqd after it shows, where it is kept."""
        names = sorted(name for name in names if not name.startswith(f"{BRIEF}/"))
        with self.eqd.connect() as c:
            for i in range(0, len(names), 100):
                some = names[i:i + 100]
                equal({name: row["state"] for name, row in zip(some, c.call("show", some))},
                      {name: self.ended[name] for name in some}, "told as ended, and after the restart")
        self.looked_at.update(names)

    def summary(self):
        return (f"{len(self.accepted)} tasks accepted, {len(self.ended)} told as ended, "
                f"{sum(n - 1 for n in self.counts.values())} run again")
