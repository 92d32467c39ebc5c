#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kill -9 at any moment under the load of several clients; what they were told is held against what has run.

Nothing that was accepted is lost, nothing that was told as ended runs again or is shown otherwise, first attempts keep the order of their
queue, and only what the store says was running runs again. EQD_SEED chooses other moments; EQD_LONG=1 makes thousands of them.
"""

import os
import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from eqdtest import LONG, main, test
from history import QUEUES, History

KILLS = 3000 if LONG else 200


@test(seconds=9000 if LONG else 850)
def kill_9_at_any_moment_loses_nothing_and_repeats_nothing_that_was_told(eqd):
    rng, history = random.Random(int(os.environ.get("EQD_SEED", "1"))), History(eqd)
    for _ in range(KILLS):
        end = history.load(rng.random())
        if not history.until_accepted(rng.randrange(1, 25), end):
            raise AssertionError(f"clients gave up: {history.refused}")
        os.kill(eqd.pid, signal.SIGKILL)
        end()
        eqd.connections = []
        eqd.expect_end(20, -signal.SIGKILL)
        eqd.forget()
        history.note_marks()
        eqd.start()
        for queue in QUEUES:
            eqd.ok("queue", "flush", queue)
        history.check()
    history.check_told(history.ended) # also by the last one, of all
    print(f"# {KILLS} kills, {history.summary()}")
    if not history.may_repeat or not history.refused == []:
        raise AssertionError(f"nothing was running at any kill, or clients were refused: {history.refused}")


main()
