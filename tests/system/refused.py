#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A system that creates neither threads nor processes, for as long as the test says: a library before libc refuses them (refuse.c).

No seam of eqd is open: what fails is what the threads, the loop and the spawner of a real eqd ask of libc.
"""

import errno
import os
import shutil

from eqdtest import BUILD, Skip, comm, contains, descendants, equal, eventually, main, test
from pluginkit import CONF, ended, place_plugins, queue_file, state, submit, until, why

FAST = CONF + "WaitingProcesses=0\n[Plugins]\nPluginThreads=1\n[Watchdog]\nWatchdogThresh=1s\n"


def put_before_libc(eqd):
    """Programs of the test's own, as the spawner has to be one that has a libc to put something before."""
    if os.environ.get("SANITIZE", "none") != "none":
        raise Skip("a sanitizer has to be the first library of a process")
    eqd.copy_programs()
    shutil.copy(BUILD / "tests/system/eqd-spawner-shared", eqd.dir / "bin/daemon/spawner/eqd-spawner")
    shutil.copy(BUILD / "tests/system/refuse.so", eqd.dir / "refuse.so")
    place_plugins(eqd)
    for name, more in (("p", "Rescuer=yes"), ("z", "Rescuer=no")): # of plugins
        queue_file(eqd, name, "trial", more, "MaxActive=8")
    eqd.env.update({"LD_PRELOAD": str(eqd.dir / "refuse.so"), "EQD_REFUSE": str(eqd.dir / "refuse")})


def refuse(eqd, error):
    new = eqd.dir / "refuse.new"
    new.write_text(str(error))
    new.rename(eqd.dir / "refuse")


def of_both_pools(c, kind):
    """Waits for that event of both pools, which come in any order; their reasons by pool."""
    told = {}
    while len(told) < 2:
        event = c.note(lambda method, p: method == "event" and p[0]["event"] == kind and p[0].get("pool") in ("default", "plugin"))[0]
        told[event["pool"]] = event.get("reason") # of an end there may be none
    return told


def reserves(eqd):
    return [p for p in descendants(eqd.pid) if comm(p) == "eqd-waiting"]


def status(eqd, *parts):
    return eqd.until_notified(lambda m: all(part in m.get("STATUS", "") for part in parts))


@test(user=True, notify=True, config={"eqd.conf": FAST}, change=put_before_libc)
def who_has_a_rescuer_goes_on_who_has_none_is_told_and_all_recover(eqd):
    c, events = eqd.connect(), eqd.events(events=["stall."])
    eqd.ok("queue", "create", "r", "rescuer=yes")
    eqd.ok("queue", "create", "n")
    eventually(lambda: len(reserves(eqd)) == 1, "one waits")
    equal(ended(c, submit(c, b"x", "z"))["state"], "DONE")
    block = submit(c, b"block", "z") # the one thread that there is
    until(c, block, "RUNNING")

    refuse(eqd, errno.EAGAIN)
    eqd.ok("pool", "set", "plugin", "max_workers=4")
    rescued = [submit(c, b"x", "p") for _ in range(10)]
    long, behind = (eqd.submit("-q", "r", "--", *args) for args in (("sleep", "1000"), ("true",)))
    poor, poorer = eqd.submit("-q", "n", "--", "true"), submit(c, b"x", "z")
    for task in rescued:
        equal((ended(c, task)["state"], ended(c, task)["attempt"]), ("DONE", 1))
    equal((eqd.queue("p")["rescued"], eqd.queue("z")["rescued"]), (10, 0))
    eqd.until_state(long, "RUNNING")
    equal(eqd.queue("r")["rescued"], 1)
    equal(of_both_pools(events, "stall.begin"), dict.fromkeys(("default", "plugin"), "create-failure"))
    status(eqd, "STALLED pool ", "create-failure", "RESCUE queue r (create-failure: EAGAIN); ")
    equal([state(c, t) for t in (poorer, behind)], 2 * ["QUEUED"])
    eventually(lambda: "QUEUED: create-failure" in eqd.ok("why", poor), lambda: eqd.ok("why", poor)) # but for the moment of a try
    contains(why(c, poorer)["detail"], "no further thread can be created now: Resource temporarily unavailable")
    refuse(eqd, errno.ENOMEM) # is not the same
    status(eqd, "RESCUE queue r (create-failure: ENOMEM); ")
    # Each pool hears of it when it tries the next time.
    eventually(lambda: "no further thread can be created now: Cannot allocate memory" in why(c, poorer)["detail"],
               lambda: str(why(c, poorer)))

    (eqd.dir / "refuse").unlink()
    eqd.ends_as(poor, "DONE", attempt=1)
    equal((ended(c, poorer)["state"], ended(c, poorer)["attempt"]), ("DONE", 1))
    of_both_pools(events, "stall.end")
    eqd.ok("kill", long)
    eqd.ends_as(behind, "DONE", attempt=1)
    c.call("cancel", [block], running=True)
    ended(c, block)
    eventually(lambda: len(reserves(eqd)) == 1, "the reserve is there again")
    log = eqd.has_logged("<4>eqd: workqueue: Failed to create a worker process: EAGAIN",
                         "<4>eqd: workqueue: Failed to create a worker thread: EAGAIN",
                         "<4>eqd: queue r: mayday, rescuer active (create-failure: Resource temporarily unavailable)",
                         "<4>eqd: queue p: mayday, rescuer active (create-failure: Resource temporarily unavailable)",
                         "<5>eqd: workqueue: pool default creates workers again after ",
                         "<5>eqd: workqueue: pool plugin creates workers again after ",
                         "<5>eqd: queue r: relieved after ")
    equal(log.count("Failed to create a worker"), 2, "once for each pool, and not with each try")
    eqd.ok("queue", "rm", "r")


main()
