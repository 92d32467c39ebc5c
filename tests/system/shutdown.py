#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""SIGTERM: running commands get TERM, then KILL, within a bound; then nothing of eqd is left."""

import os
import signal
import subprocess
import time

from eqdtest import (STOP_SECONDS, Closed, RpcError, alive, contains, descendants, equal, eventually, is_gone, main, marked, test)

SHORT = {"eqd.conf": "[Daemon]\nStopTimeout=2s\n"}
LONG = {"eqd.conf": "[Daemon]\nStopTimeout=10m\n"} # beyond every bound here: who waited for it would be seen

OBEYS = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done"
IGNORES = "trap '' TERM; echo ready; while :; do sleep 0.01; done"


def running(eqd, script, *args):
    """Submits a script that says ready when it has got so far."""
    task = eqd.sh(f"{script}", *args)
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    return task


@test(config=LONG)
def an_idle_eqd_leaves_at_once(eqd):
    eqd.stop()
    equal((eqd.dir / "s").exists(), False)


@test(config=LONG)
def SIGINT_is_the_same(eqd):
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGINT)
    eqd.expect_end(STOP_SECONDS, 0)


@test()
def commands_that_obey_TERM_may_clean_up(eqd):
    running(eqd, "trap 'echo bye >work/bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    eqd.stop()
    equal((eqd.dir / "work/bye").read_text(), "bye\n")


@test(config=SHORT)
def commands_that_ignore_TERM_are_killed_within_the_bound(eqd):
    running(eqd, IGNORES, "--grace", "10m")
    start = time.monotonic()
    eqd.stop()
    seconds = time.monotonic() - start
    if seconds < 1:
        raise AssertionError(f"took {seconds:.1f} s with StopTimeout=2s")


@test(config=LONG, notify=True)
def while_commands_end_eqd_asks_for_time_again_and_again(eqd):
    """For as long as it takes: the command ends when the service manager was asked often enough."""
    gate = eqd.dir / "work/gate"
    os.mkfifo(gate)
    running(eqd, f"trap 'read -r go <{gate}; exit 0' TERM; echo ready; while :; do sleep 0.01; done", "--grace", "10m")
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGTERM)
    eqd.until_notified(lambda m: m.get("STOPPING") == "1")
    for _ in range(3): # each is good for twice the time to the next
        equal(eqd.until_notified(lambda m: "EXTEND_TIMEOUT_USEC" in m), {"EXTEND_TIMEOUT_USEC": "10000000"})
    gate.write_text("go\n")
    eqd.expect_end(STOP_SECONDS, 0)


@test(config=SHORT)
def whole_trees_go_with_their_leader(eqd):
    running(eqd, "trap '' TERM; (trap '' TERM; setsid sh -c \"trap '' TERM; sleep 1000\" & sleep 1000) & echo ready; "
                 "while :; do sleep 0.01; done")
    family = descendants(eqd.pid)
    eqd.stop()
    equal(alive(family), [])


@test(config=SHORT)
def a_stopped_command_is_killed_too(eqd):
    task = eqd.submit("--", "sleep", "1000")
    pid = eqd.until_state(task, "RUNNING")["pid"]
    os.kill(pid, signal.SIGSTOP)
    eqd.stop()
    equal(is_gone(pid), True)


@test()
def queued_tasks_do_not_start_while_it_stops(eqd):
    running(eqd, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    for _ in range(20):
        eqd.sh("echo started >>work/started")
    eqd.stop()
    equal((eqd.dir / "work/started").exists(), False)


@test()
def clients_are_told_and_new_tasks_refused(eqd):
    c = eqd.connect()
    running(eqd, "trap 'read x <work/gate; exit 0' TERM; mkfifo work/gate; echo ready; while :; do sleep 0.01; done")
    waiting = c.send("wait", ["default/1"])
    c.call("ping")
    os.kill(eqd.pid, signal.SIGTERM)
    eventually(lambda: "stopping" in eqd.log_text().lower(), "eqd does not say that it stops")
    try:
        c.call("submit", "default", b"", argv=["true"])
        raise AssertionError("a task was taken by an eqd that stops")
    except RpcError as e:
        equal(e.code, 21, e.text)
    except Closed:
        pass
    (eqd.dir / "work/gate").write_text("\n")
    try:
        equal(c.reply(waiting)[0]["state"], "CANCELED")
    except Closed:
        pass
    eqd.close_connections()
    eqd.expect_end(STOP_SECONDS, 0)
    eventually(lambda: not marked(eqd.dir), lambda: f"left: {alive(marked(eqd.dir))}")


def said(n_ended, n_killed, n_on_disk, n_handed, n_lost):
    return (f"stopped: commands that ended by SIGTERM {n_ended}, by SIGKILL {n_killed}; of tasks that have not ended are kept on disk "
            f"{n_on_disk}, for the service manager to keep {n_handed}, lost {n_lost}")


@test()
def the_end_says_in_numbers_what_became_of_what_was_there(eqd):
    eqd.ok("queue", "create", "p", "max_active=3")
    eqd.ok("queue", "create", "--volatile", "v")
    for script, args in ((OBEYS, []), (OBEYS, []), (IGNORES, ["--grace", "100ms"])):
        running(eqd, script, "-q", "p", *args)
    waits = [eqd.submit("-q", "p", "--", "true") for _ in range(4)]
    volatile = [eqd.submit("-q", "v", "--hold", "--", "true") for _ in range(2)]
    kept = eqd.stop_and_keep()
    eqd.has_logged(said(2, 1, 7, 2, 0), "tasks that had not ended were given to the service manager, for the next eqd: 2")
    eqd.start(kept=kept)
    os.close(kept)
    equal({t["id"] for t in eqd.ls("-s", "RUNNING,QUEUED,WAITING")}, {f"p/{n}" for n in range(1, 8)} | set(volatile), str(waits))


@test()
def an_idle_eqd_says_that_nothing_is_left(eqd):
    eqd.stop()
    eqd.has_logged(said(0, 0, 0, 0, 0))


@test(config=LONG)
def a_stubborn_command_has_its_own_grace_only_and_is_told_as_killed(eqd):
    running(eqd, IGNORES, "--grace", "100ms")
    eqd.stop()
    eqd.has_logged(said(0, 1, 1, 0, 0))


@test(config={"eqd.conf": "[Daemon]\nStopTimeout=0\n"})
def commands_for_which_there_is_no_time_are_killed_and_told(eqd):
    running(eqd, IGNORES)
    eqd.stop()
    eqd.has_logged("commands did not end in time and are killed: 1", said(0, 1, 1, 0, 0))


@test(eqd=False)
def without_a_service_manager_volatile_tasks_are_told_as_lost(place):
    with open(place.dir / "log", "wb") as log:
        eqd = subprocess.Popen([place.eqd, "--socket", place.socket, "--state", place.dir / "state", "--config", place.dir / "config"],
                               env=place.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        place.ctl("ping", "--wait", "60s")
        equal(place.ctl("queue", "create", "--volatile", "v").rc, 0)
        for queue, n in (("v", 3), ("default", 2)):
            for _ in range(n):
                equal(place.ctl("submit", "-q", queue, "--hold", "--", "true").rc, 0)
        eqd.terminate()
        equal(eqd.wait(STOP_SECONDS), 0)
    finally:
        eqd.kill()
        eqd.wait()
    contains((place.dir / "log").read_text(), said(0, 0, 2, 0, 3))


@test(config=LONG)
def many_running_commands_stop_together(eqd):
    """Each has five seconds: one after the other they would take longer than eqd may."""
    eqd.ok("queue", "create", "p", "max_active=40")
    eqd.sh("trap '' TERM; : >work/ready$EQD_ARRAY_INDEX; exec sleep 1000", "-q", "p", "--array", "1-40", "--grace", "5s")
    eventually(lambda: len(list((eqd.dir / "work").iterdir())) == 40, "all of them ignore the signal")
    eqd.stop()


main()
