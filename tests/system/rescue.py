#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Rescuers of queues of commands: a process that waits for its queue alone, while none can be created."""

import json
import os
import signal
import subprocess

from eqdtest import RpcError, Skip, all_pids, become, comm, contains, descendants, equal, eventually, main, status_fields, test
from workerkit import STATE, Worker, ended, state, submit, worker_queue

NONE_WAIT = "[Commands]\nWaitingProcesses=0\n"
UID = 62000 + os.getpid() % 3000 # nobody else's, nor of this test in another build: the limit counts all processes of a user


def waiting(eqd):
    return [p for p in descendants(eqd.pid) if comm(p) == "eqd-waiting"]


def worker(eqd):
    """The process that forks commands."""
    with eqd.connect() as c:
        return c.call("stat")["spawner_pid"]


def limit(eqd, n):
    """As that user: root may not where it has no CAP_SYS_RESOURCE."""
    subprocess.run(["prlimit", "--pid", str(worker(eqd)), f"--nproc={n}:"], preexec_fn=lambda: become(UID), check=True)


def exhaust(eqd):
    """From now on none can be created: its user has as many as he may."""
    def threads(pid):
        try:
            fields = status_fields(pid)
        except OSError: # it is gone
            return 0
        return int(fields["Threads"]) if fields.get("Uid", "").split()[:1] == [str(UID)] else 0
    n = sum(threads(p) for p in all_pids())
    limit(eqd, n)


def counts(eqd, name):
    q = eqd.queue(name)
    return q["mayday"] >= 1, q["rescued"]


@test(root=True, uid=UID, config={"eqd.conf": NONE_WAIT})
def S10_commands_run_once_each_out_of_the_reserve_while_fork_is_refused(eqd):
    if os.environ.get("SANITIZE", "none") != "none":
        raise Skip("a sanitizer needs processes and threads of its own below the limit")
    eqd.ok("queue", "create", "a", "rescuer=yes", "max_active=256", uid=UID)
    eventually(lambda: len(waiting(eqd)) == 1, "one waits") # it is there, and takes its name a moment later
    exhaust(eqd)
    other = eqd.submit("--", "true", uid=UID)
    tasks = [eqd.submit("-q", "a", "--", "true", uid=UID) for _ in range(20)]
    for task in tasks:
        eqd.ends_as(task, "DONE", attempt=1)
    equal(counts(eqd, "a"), (True, 20))
    # It has none, but for the moment in which that is tried again, after which it is told of nobody.
    eventually(lambda: "QUEUED: create-failure" in eqd.ok("why", other, uid=UID), lambda: eqd.ok("why", other, uid=UID))
    equal(int(eqd.ok("pool", "show", "default", "--json").split('"create_failures":')[1].split(",")[0].strip("}\n ")) > 0, True)
    eqd.has_logged("queue a: mayday, rescuer active (create-failure: Resource temporarily unavailable)",
                   "<4>eqd: workqueue: Failed to create a worker process: EAGAIN")
    limit(eqd, 4096)
    eqd.ends_as(other, "DONE")
    log = eqd.has_logged("<5>eqd: workqueue: pool default creates workers again after ")
    equal(log.count("Failed to create a worker"), 1, "once, and not with each try")
    eqd.ends_as(eqd.submit("-q", "a", "--", "true", uid=UID), "DONE")
    equal(counts(eqd, "a"), (True, 20))
    eventually(lambda: len(waiting(eqd)) == 1, "the reserve is there again")
    eqd.ok("queue", "rm", "a", uid=UID)
    eventually(lambda: not waiting(eqd), "it goes with the queue")


@test(env={"EQD_FAULT": "spawn:1+"}, config={"eqd.conf": NONE_WAIT})
def S11_a_queue_whose_reserve_cannot_be_made_does_not_exist(eqd):
    eqd.fails(75, "queue", "create", "a", "rescuer=yes", says=["rescuer: ", "Resource temporarily unavailable"])
    eqd.fails(75, "queue", "create", "a", "rescuer=shared", says="rescuer: ")
    equal([q["name"] for q in [eqd.queue("default")]], ["default"])
    equal("a" in [line.split()[0] for line in eqd.ok("queue", "ls").splitlines()], False)
    eqd.fails(75, "queue", "set", "default", "rescuer=yes", says="rescuer: ")
    contains(eqd.queue("default")["set"], "rescuer=no")
    eqd.ok("queue", "create", "a")


@test(config={"eqd.conf": NONE_WAIT})
def a_spawner_that_does_not_answer_is_what_the_refusal_says_and_it_can_be_tried_again(eqd):
    spawner = worker(eqd)
    os.kill(spawner, signal.SIGSTOP)
    eqd.fails(75, "queue", "create", "a", "rescuer=yes", says=["rescuer: ", "queue a was not made within a second", "eqd-spawner stands still"])
    os.kill(spawner, signal.SIGCONT)
    eqd.ok("queue", "create", "a", "rescuer=yes")
    eventually(lambda: len(waiting(eqd)) == 1, "one waits, and not the one that was not there in time")
    eqd.ok("queue", "rm", "a")
    eventually(lambda: not waiting(eqd), "it goes with the queue")


@test(env={"EQD_FAULT": "spawn:2+"}, config={"eqd.conf": NONE_WAIT})
def queues_can_share_a_rescuer_and_it_goes_with_the_last_of_them(eqd):
    eqd.ok("queue", "create", "a", "rescuer=shared")
    eqd.ok("queue", "create", "b", "mem_reclaim=shared")
    eventually(lambda: len(waiting(eqd)) == 1, "one waits") # it is there, and takes its name a moment later
    eqd.ends_as(eqd.submit("-q", "b", "--", "true"), "DONE")
    equal((counts(eqd, "b"), eqd.queue("a")["rescued"]), ((True, 1), 0))
    eqd.ok("queue", "set", "a", "rescuer=no")
    eqd.ok("queue", "rm", "b")


@test(config={"eqd.conf": NONE_WAIT + "Slots=1\n[Watchdog]\nRescueFullDelay=50ms\n"})
def with_pool_full_a_command_starts_beside_those_that_fill_the_pool(eqd):
    eqd.ok("queue", "create", "a", "rescuer=yes", "rescue_on=pool-full")
    blocker = eqd.submit("--", "sleep", "1000")
    eqd.until_state(blocker, "RUNNING")
    eqd.ends_as(eqd.submit("-q", "a", "--", "true"), "DONE")
    equal(counts(eqd, "a"), (True, 1))
    eqd.has_logged("queue a: mayday, rescuer active (pool-full)")
    rescued = eqd.submit("-q", "a", "--", "sleep", "1000")
    eqd.until_state(rescued, "RUNNING")
    rows = {row["id"]: row for row in map(json.loads, eqd.ok("dump", "--json").splitlines()) if "id" in row}
    equal((rows[rescued]["rescued"], rows[rescued]["argv"], "rescued" in rows[blocker]), (True, ["sleep", "1000"], False))
    eqd.ok("kill", blocker, rescued)
    eqd.wait(blocker, rescued)
    eqd.ok("queue", "rm", "a") # what it keeps is no leak


@test(config={"eqd.conf": NONE_WAIT})
def a_reserve_that_is_killed_or_loses_the_spawner_is_made_anew(eqd):
    eqd.ok("queue", "create", "--rescuer", "a")
    before = eventually(lambda: waiting(eqd), "one waits")
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(waiting(eqd)) == 1 and waiting(eqd) != before, "another one waits")
    before = waiting(eqd)
    os.kill(worker(eqd), signal.SIGKILL)
    eventually(lambda: len(waiting(eqd)) == 1 and waiting(eqd) != before, "and again")
    eqd.ends_as(eqd.submit("-q", "a", "--", "true"), "DONE")
    eqd.ok("queue", "rm", "a")


@test(config={"eqd.conf": NONE_WAIT, "queues.d/f.queue": "[Queue]\nRescuer=yes\n"})
def queues_from_files_and_those_that_are_kept_have_their_reserve_at_the_start(eqd):
    eqd.ok("queue", "create", "kept", "rescuer=yes")
    eventually(lambda: len(waiting(eqd)) == 2, "two wait")
    eqd.descriptors += 4 # of the queue that was made since
    eqd.stop()
    eqd.start()
    eventually(lambda: len(waiting(eqd)) == 2, "two wait again")
    eqd.configure("queues.d/f.queue", "[Queue]\nRescuer=yes\nExecutor=worker\n")
    eqd.ok("reload") # its reserve is another now
    eventually(lambda: len(waiting(eqd)) == 1, "one waits")
    eqd.configure("queues.d/f.queue", "[Queue]\nRescuer=yes\n")
    eqd.ok("reload")
    eventually(lambda: len(waiting(eqd)) == 2, "two wait again")
    eqd.configure("queues.d/f.queue", "[Queue]\nRescuer=no\n")
    eqd.ok("reload")
    eventually(lambda: len(waiting(eqd)) == 1, "one waits")


@test(root=True, other_users=True)
def only_administrators_and_files_give_rescuers(eqd):
    eqd.fails(77, "queue", "create", "mine", "rescuer=yes", uid=61001, says="administrator")
    eqd.ok("queue", "create", "w", "rescuer=yes", "executor=worker", uid=61001) # takes nothing from anybody
    eqd.ok("queue", "create", "mine", uid=61001)
    eqd.ok("queue", "set", "mine", "rescuer=yes")
    eqd.ok("queue", "set", "mine", "max_active=2", uid=61001)
    eqd.ok("queue", "rm", "mine")


STUCK = {"eqd.conf": "[Watchdog]\nRescueFullDelay=50ms\n"}


@test(config=STUCK)
def a_reserved_worker_goes_on_one_at_a_time_while_the_others_are_stuck(eqd):
    c = worker_queue(eqd, "w", "rescuer=yes", "max_active=8")
    regular, reserve = Worker(eqd, "w", credit=1), Worker(eqd, "w", credit=4, rescue=True)
    tasks = [submit(c, b"%d" % i) for i in range(5)]
    stuck = regular.next() # and says nothing more
    for i in (1, 2):
        run = reserve.next()
        equal(run.payload, b"%d" % i)
        reserve.nothing_comes()
        if i == 1:
            reserve.done(run)
    shown = eqd.queue("w")
    equal((shown["workers"], shown["reserves"], shown["mayday"] >= 1, shown["rescued"]), (1, 1, True, 2))
    eqd.ok("param", "set", "rescue_full_delay=1h") # the regular one may take its time from now on
    eqd.has_logged("queue w: mayday, rescuer active (pool-full)")
    contains(eqd.ok("worker", "ls"), "(reserve)")
    regular.done(stuck)
    second = regular.next() # it does the rest itself
    reserve.done(run)
    for i in (3, 4):
        equal(second.payload, b"%d" % i)
        regular.done(second)
        if i == 3:
            second = regular.next()
    for task in tasks:
        equal(ended(c, task)["state"], "DONE")
    reserve.nothing_comes()
    equal(eqd.queue("w")["rescued"], 2)
    eqd.has_logged("queue w: relieved after")


@test()
def a_reserved_worker_serves_a_queue_that_nobody_else_does_and_none_is_no_rescue(eqd):
    c = worker_queue(eqd, "w", "rescuer=shared", "max_active=8")
    task = submit(c, b"")
    contains(eqd.ok("why", "w/1"), "no-worker")
    reserve = Worker(eqd, "w", rescue=True)
    run = reserve.next()
    eqd.has_logged("queue w: mayday, rescuer active (no-worker)")
    reserve.vanish() # with it: to its place, and there it stays
    eventually(lambda: state(c, task) == "QUEUED", lambda: state(c, task))
    equal(eqd.queue("w").get("reserves", 0), 0)
    again = Worker(eqd, "w", rescue=True)
    run = again.next()
    equal(run.attempt, 2)
    again.done(run)
    equal(ended(c, task)["state"], "DONE")


@test(config=STUCK)
def a_command_of_eqctl_can_be_the_reserve_and_queues_may_share_a_rescuer(eqd):
    c = worker_queue(eqd, "a", "rescuer=shared", "max_active=8")
    worker_queue(eqd, "b", "rescuer=shared", "max_active=8")
    run = eqd.start_ctl("worker", "run", "--rescue", "-q", "a", "-q", "b", "--", "cat")
    tasks = [submit(c, b"%d" % i, q) for i in range(3) for q in "ab"]
    for i, task in enumerate(tasks):
        equal(ended(c, task)["result"], b"%d" % (i // 2))
    equal((eqd.queue("a")["rescued"], eqd.queue("b")["rescued"]), (3, 3))
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    equal(run.returncode, 0)


@test()
def what_a_reserve_may_not_say_is_refused(eqd):
    worker_queue(eqd, "w")
    w = Worker(eqd, "w")
    for asked, says in ((True, "a regular one already"), (False, None)):
        try:
            w.rpc.call("worker_serve", ["w"], rescue=asked)
            equal(says, None)
        except RpcError as e:
            equal((e.code, says in str(e)), (STATE, True), str(e))
    reserve = Worker(eqd, "w", rescue=True)
    reserve.rpc.call("worker_serve", []) # as before
    equal(reserve.row()["rescue"], True)


main()
