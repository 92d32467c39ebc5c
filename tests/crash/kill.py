#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kill -9 at any moment under the load of several clients; what they were told is held against what has run.

Nothing that was accepted is lost, nothing that was told as ended runs again or is shown otherwise, first attempts keep the order of their
queue, and only what the store says was running runs again. Payloads are up to 300 KiB and segments small, so that segments are made and
go, with hints and compaction at work at the kills; and some of them hit an eqd that reads its store. EQD_SEED chooses other moments;
EQD_LONG=1 makes thousands of them.
"""

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from eqdtest import LONG, equal, main, test
from history import BRIEF, History

KILLS = 3000 if LONG else 200
LARGEST = 300 * 1024


def n_bytes(rng, queue):
    """What stays is small, or a start would be nothing but reading; what goes is large."""
    if queue == BRIEF:
        return rng.randrange(LARGEST + 1)
    return rng.choice((0, 0, rng.randrange(4096), rng.randrange(LARGEST + 1 if rng.random() < 0.05 else 100)))


class Seen:
    """What was at work at the kills."""

    def __init__(self):
        self.moved = self.hints = self.replays = self.starts = 0

    def look(self, eqd):
        with eqd.connect() as c:
            stat = c.call("store_stat")
        self.moved += stat["moved_records"]
        self.hints += stat["hints"]
        return stat


def has_store_open(pid):
    with contextlib.suppress(OSError): # a descriptor is closed while it is looked at
        return any("/store" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    return False


def kill_a_start(eqd, seen, seconds):
    """After so long, or when it is ready, whatever comes first: what it was at is looked at while it stands still."""
    path = eqd.dir / "notify-start"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, open(eqd.dir / "log-start", "wb") as log:
        notify.bind(str(path))
        with subprocess.Popen([eqd.eqd, "--socket", eqd.socket, "--state", eqd.dir / "state", "--config", eqd.dir / "config"],
                              env=eqd.environment(NOTIFY_SOCKET=str(path)), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                              cwd=eqd.dir) as p:
            told, end = b"", time.monotonic() + seconds
            while b"READY=1" not in told and select.select([notify], [], [], max(0, end - time.monotonic()))[0]:
                told += notify.recv(4096) # first how far it has come with its store
            p.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, p.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            while select.select([notify], [], [], 0)[0]:
                told += notify.recv(4096)
            seen.starts += 1
            seen.replays += has_store_open(p.pid) and b"READY=1" not in told
            p.kill()
        equal(p.returncode, -signal.SIGKILL, (eqd.dir / "log-start").read_text())


def kill_it(eqd, end):
    os.kill(eqd.pid, signal.SIGKILL)
    end()
    eqd.connections = []
    eqd.expect_end(120, -signal.SIGKILL)
    eqd.forget()


@test(config={"eqd.conf": "[Store]\nSegmentSize=2M\n"}, seconds=9000 if LONG else 850)
def kill_9_at_any_moment_loses_nothing_and_repeats_nothing_that_was_told(eqd):
    rng, history, seen = random.Random(int(os.environ.get("EQD_SEED", "1"))), History(eqd, brief=True), Seen()
    usual = 0.05 # seconds of a start
    for i in range(KILLS):
        end = history.load(rng.random(), n_bytes)
        if not history.until_accepted(rng.randrange(1, 25), end):
            raise AssertionError(f"clients gave up: {history.refused}")
        seen.look(eqd)
        kill_it(eqd, end)
        history.note_marks()
        for _ in range(rng.randrange(1, 3) if i % 4 == 0 else 0):
            kill_a_start(eqd, seen, rng.uniform(0, usual))
            history.note_marks()
        begin = time.monotonic()
        eqd.start()
        usual = time.monotonic() - begin
        for queue in history.queues:
            eqd.ok("queue", "flush", queue)
        history.check()
    history.check_told(history.ended) # also by the last one, of all
    oldest = seen.look(eqd)["oldest_segment"]
    print(f"# {KILLS} kills, {history.summary()}; {oldest - 1} segments gone, {seen.moved} records moved, {seen.hints} hints made; "
          f"{seen.replays} of {seen.starts} starts killed with the store open and not ready")
    if not history.may_repeat or not history.refused == []:
        raise AssertionError(f"nothing was running at any kill, or clients were refused: {history.refused}")
    if min(oldest - 10, seen.moved - 100, seen.hints - 10, seen.replays - 5) < 0:
        raise AssertionError("compaction, hints or starts were hardly there to be killed")


main()
