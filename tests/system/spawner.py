#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The spawner dies: what ran ends as FAILED with reason spawn-failed, what waits goes on, nothing is left behind."""

import json
import os
import signal

from ends import spawners
from eqdtest import USER_A, alive, comm, contains, descendants, equal, eventually, is_gone, main, proc_stat, test


def waiting_processes(eqd):
    return [p for p in descendants(eqd.pid) if comm(p) == "eqd-waiting"]


def kill_both(eqd):
    """At once: neither can do anything about the other's death."""
    both = spawners(eqd)
    for p in both:
        os.kill(p, signal.SIGSTOP)
        eventually(lambda p=p: proc_stat(p)[0] == "T", "it is stopped")
    for p in both:
        os.kill(p, signal.SIGKILL)


def run_and_kill(eqd, victim):
    """Two tasks run, one of them with a child in a session of its own; one waits. Then the spawner's process dies."""
    eqd.ok("queue", "create", "p", "max_active=2")
    tree = eqd.sh("setsid sleep 1000 & sleep 1000 & echo ready; wait", "-q", "p")
    equal(eqd.start_ctl("logs", "-f", tree).stdout.readline(), b"ready\n")
    plain = eqd.submit("-q", "p", "--", "sleep", "1000")
    eqd.until_state(plain, "RUNNING")
    waiting = eqd.submit("-q", "p", "--", "echo", "went on")
    processes = [p for p in descendants(eqd.pid) if comm(p) in ("sh", "sleep", "setsid")]
    equal(len(processes) >= 4, True, str(alive(processes)))
    events = eqd.events(events=["spawner."])
    os.kill(victim, signal.SIGKILL)
    events.note(lambda method, params: method == "event" and params[0]["event"] == "spawner.lost")
    for task in (tree, plain):
        shown = eqd.ends_as(task, "FAILED", reason="spawn-failed")
        equal(eqd.ctl("wait", task).rc, 125, str(shown))
    events.note(lambda method, params: method == "event" and params[0]["event"] == "spawner.back")
    eqd.ends_as(waiting, "DONE")
    equal(eqd.logs(waiting), "went on")
    eventually(lambda: all(is_gone(p) for p in processes), lambda: f"left: {alive(processes)}")
    equal(victim in spawners(eqd), False)


@test()
def the_worker_dies(eqd):
    run_and_kill(eqd, spawners(eqd)[1])
    eqd.has_logged("spawner")


@test()
def the_keeper_dies(eqd):
    run_and_kill(eqd, spawners(eqd)[0])


@test(root=True, other_users=True, config={"queues.d/q.queue": "[Queue]\nMaxActive=1\n"})
def a_command_that_waited_for_the_dead_spawner_does_not_run_as_eqd(eqd):
    """It did: the new keeper has no capabilities, was not asked to become its user, and so ran it as its own."""
    first = eqd.submit("-q", "q", "--", "sleep", "1000", uid=USER_A)
    waiting = eqd.submit("-q", "q", "-c", "id -u", uid=USER_A)
    eqd.until_state(first, "RUNNING")
    events = eqd.events(events=["spawner."])
    os.kill(spawners(eqd)[0], signal.SIGKILL)
    events.note(lambda method, params: method == "event" and params[0]["event"] == "spawner.back")
    shown = eqd.ends_as(waiting, "FAILED", reason="identity")
    contains(shown["error"], str(USER_A), "restarted")
    equal(eqd.logs(waiting), "")


@test()
def both_processes_of_the_spawner_die_at_once_and_nothing_is_left(eqd):
    task = eqd.sh("setsid sh -c 'setsid sleep 1000 & sleep 1000 & wait' & (sleep 1000; true) & echo ready; wait")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    family = eventually(lambda: [p for p in descendants(eqd.pid) if comm(p) == "sleep"][2:] and descendants(eqd.pid),
                        "three sleep")
    events = eqd.events(events=["spawner."])
    kill_both(eqd)
    events.note(lambda method, params: method == "event" and params[0]["event"] == "spawner.back")
    eqd.ends_as(task, "FAILED", reason="spawn-failed")
    eventually(lambda: all(proc_stat(p) is None for p in family), lambda: f"left: {alive(family)}") # zombies neither
    eqd.ends_as(eqd.submit("--", "true"), "DONE")


@test(root=True, other_users=True)
def what_eqd_may_not_kill_when_both_have_died_is_named_and_reaped_when_it_ends(eqd):
    task = eqd.sh("setsid sleep 1000 & echo $!; wait", uid=USER_A)
    stray = int(eqd.start_ctl("logs", "-f", task).stdout.readline())
    events = eqd.events(events=["spawner."])
    kill_both(eqd)
    events.note(lambda method, params: method == "event" and params[0]["event"] == "spawner.back")
    eventually(lambda: "processes of commands live on without eqd, 1 in all" in eqd.log_text(), eqd.log_text)
    equal(is_gone(stray), False)
    os.kill(stray, signal.SIGKILL)
    eventually(lambda: proc_stat(stray) is None, "it is reaped")


@test(root=True, other_users=True)
def an_eqd_that_lost_the_rights_to_run_others_commands_says_so_everywhere(eqd):
    equal(eqd.ctl("ping").err, "")
    with eqd.connect() as c:
        equal(c.call("stat")["identities"], "any")
        events = eqd.events(events=["spawner."])
        os.kill(spawners(eqd)[0], signal.SIGKILL)
        events.note(lambda method, params: method == "event" and params[0]["event"] == "spawner.back")
        equal(c.call("stat")["identities"], "lost")
    r = eqd.ctl("ping")
    equal((r.rc, r.out), (0, ""))
    contains(r.err, "only commands of uid 0", "restart eqd")
    eqd.has_logged("only commands of uid 0 run", "Restart eqd")
    eqd.fails(77, "submit", "--", "true", uid=USER_A, says=("until it is restarted", str(USER_A)))
    eqd.ends_as(eqd.submit("--", "true"), "DONE")


@test(eqd=False)
def an_eqd_whose_spawner_never_runs_fails(place):
    place.copy_programs()
    (place.dir / "bin/daemon/spawner/eqd-spawner").write_text("#!/bin/sh\nexit 1\n")
    r = place.run_eqd("--socket", place.socket)
    equal(r.rc, 1, r.err)
    contains(r.err, "cannot start", "eqd-spawner")


@test()
def the_worker_dies_again_and_again(eqd):
    for _ in range(5):
        task = eqd.submit("--", "sleep", "1000")
        eqd.until_state(task, "RUNNING")
        os.kill(spawners(eqd)[1], signal.SIGKILL)
        eqd.ends_as(task, "FAILED", reason="spawn-failed")
        eqd.ends_as(eqd.submit("--", "true"), "DONE")


@test()
def a_task_with_retries_runs_again_after_the_spawner_died(eqd):
    task = eqd.sh("echo x >>work/runs; [ $(wc -l <work/runs) -ge 2 ] || sleep 1000", "-r", "3", "--backoff", "exp:1ms")
    eqd.until_state(task, "RUNNING")
    runs = eqd.dir / "work/runs"
    eventually(lambda: runs.exists() and runs.read_text() == "x\n", "the task has not begun") # the file is made before it is written
    os.kill(spawners(eqd)[1], signal.SIGKILL)
    eqd.ends_as(task, "DONE", attempt=2, crashes=1)


@test()
def the_spawner_ends_with_an_eqd_that_is_killed_and_so_do_its_tasks(eqd):
    task = eqd.sh("setsid sleep 1000 & echo ready; wait")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    family = descendants(eqd.pid)
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.process.wait()
    eventually(lambda: all(is_gone(p) for p in family), lambda: f"left: {alive(family)}")


@test()
def a_stopped_worker_of_the_spawner_does_not_stop_eqd(eqd):
    worker = spawners(eqd)[1]
    os.kill(worker, signal.SIGSTOP)
    task = eqd.submit("--", "true")
    with eqd.connect() as c:
        for _ in range(50):
            equal(c.call("ping"), None)
    os.kill(worker, signal.SIGCONT)
    eqd.ends_as(task, "DONE")


@test()
def a_stopped_worker_outlives_no_eqd_and_neither_do_its_tasks(eqd):
    task = eqd.sh("setsid sleep 1000 & echo ready; wait")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    family = descendants(eqd.pid)
    os.kill(spawners(eqd)[1], signal.SIGSTOP)
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.process.wait()
    try:
        eventually(lambda: all(is_gone(p) for p in family), lambda: f"left: {alive(family)}")
    finally:
        for p in alive(family): # what the claim is about must not outlive the test either
            os.kill(p if isinstance(p, int) else int(str(p).split()[0]), signal.SIGKILL)


@test(env={"EQD_FAULT": "spawn:3+"})
def commands_start_while_no_process_can_be_created_as_long_as_some_wait(eqd):
    eventually(lambda: len(waiting_processes(eqd)) == 2, "two wait")
    for _ in range(2):
        eqd.ends_as(eqd.submit("--", "true"), "DONE")
    third = eqd.submit("--", "true")
    eventually(lambda: json.loads(eqd.ok("why", "--json", third))["reason"] == "create-failure",
               lambda: eqd.ok("why", third))
    eqd.ok("cancel", third)


@test(config={"eqd.conf": "[Commands]\nWaitingProcesses=0\n"})
def without_waiting_processes_every_command_gets_one_made(eqd):
    for _ in range(3):
        eqd.ends_as(eqd.submit("--", "true"), "DONE")
    equal(waiting_processes(eqd), [])


@test(config={"eqd.conf": "[Commands]\nWaitingProcesses=5\n"})
def as_many_processes_wait_as_are_asked_for_and_killed_ones_are_made_up_for(eqd):
    before = set(eventually(lambda: len(waiting_processes(eqd)) == 5 and waiting_processes(eqd), "five wait"))
    for p in before:
        os.kill(p, signal.SIGKILL)
    for _ in range(3): # some may be dying while they get the command: it is as if they had not been there
        eqd.ends_as(eqd.submit("--", "true"), "DONE", attempt=1)
    eventually(lambda: len(waiting_processes(eqd)) == 5, "five wait again")
    equal(before & set(waiting_processes(eqd)), set())


@test()
def what_waits_is_no_task_s_stray_and_no_task_s_child_is_spared_for_it(eqd):
    eqd.ends_as(eqd.submit("--", "true"), "DONE")
    before = eventually(lambda: len(waiting_processes(eqd)) == 2 and waiting_processes(eqd), "two wait")
    task = eqd.sh("setsid sleep 1000 & echo $!; exec true") # dies with the task
    shown = eqd.ends_as(task, "DONE")
    stray = int(eqd.logs(task))
    eventually(lambda: is_gone(stray), lambda: f"left: {alive([stray])}")
    equal(sum(is_gone(p) for p in before) <= 1, True, str(shown)) # the one that became the task


@test()
def a_task_without_a_working_directory_starts_in_the_root(eqd):
    with eqd.connect() as c:
        task = c.call("submit", "default", b"", argv=["pwd"])
        c.call("wait", [task])
        equal(c.call("logs", task)["chunks"], [[1, b"/\n"]])


main()
