# SPDX-License-Identifier: MIT
"""Ways in which an eqd ends and the next one begins."""

import os
import signal

from eqdtest import STOP_SECONDS, alive, comm, descendants, equal, proc_stat


def spawners(eqd):
    """(keeper, worker): the keeper is eqd's child, the worker the keeper's."""
    found = [p for p in descendants(eqd.pid) if comm(p) == "eqd-spawner"]
    keeper = [p for p in found if proc_stat(p)[1] == eqd.pid]
    worker = [p for p in found if proc_stat(p)[1] in keeper]
    equal((len(keeper), len(worker)), (1, 1), f"spawner processes {alive(found)}")
    return keeper[0], worker[0]


def crash(eqd, *args, **options):
    """kill -9, and the next one, started as eqd.start() says."""
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.expect_end(STOP_SECONDS, -signal.SIGKILL)
    eqd.forget()
    eqd.start(*args, **options)


def orderly(eqd, **options):
    """As systemctl stop and start, the latter as eqd.start() says."""
    kept = eqd.stop_and_keep()
    if kept is not None:
        os.close(kept) # the store has it all; this is what volatile queues had
    eqd.start(**options)


def restart(eqd):
    """As systemctl restart, under a service manager that holds descriptors."""
    kept = eqd.stop_and_keep()
    if kept is None:
        raise AssertionError(f"eqd gave nothing to hold\n{eqd.log_text()}")
    eqd.start(kept=kept)
    os.close(kept)


def array_keeps_its_limit(eqd, *ends):
    eqd.ok("queue", "create", "q", "max_active=20", "max_crashes=100")
    ids = eqd.submit("-q", "q", "--array", "1-6%2", "--", "sleep", "1000").split()
    going = [0, 1]
    for end in ends:
        for i in going:
            eqd.until_state(ids[i], "RUNNING")
        end(eqd)
        for i in going:
            eqd.until_state(ids[i], "RUNNING")
        equal([task["id"] for task in eqd.ls("-s", "WAITING") if task["reason"] == "array"], ids[max(going) + 1:])
        eqd.kill_task_now(ids[going[0]])
        going = [going[1], going[1] + 1]
    eqd.ok("queue", "rm", "--yes", "q")
