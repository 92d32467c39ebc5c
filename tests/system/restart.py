#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""An orderly restart under a service manager that holds descriptors: queues and tasks go on where they were."""

import json
import os
import select
import signal

from eqdtest import contains, equal, eventually, main, test
from ends import array_keeps_its_limit, crash, restart
from workerkit import Worker, ended, submit, worker_queue


VOLATILE = {"eqd.conf": "[Queue]\nDurable=no\n"} # else the store has them, see durable.py


@test(config=VOLATILE)
def queued_tasks_and_their_order_survive(eqd):
    eqd.ok("queue", "create", "q", "description=kept")
    eqd.ok("queue", "pause", "q")
    for i in range(5):
        eqd.sh(f"echo {i} >>work/order", "-q", "q")
    eqd.sh("echo urgent >>work/order", "-q", "q", "--urgent")
    restart(eqd)
    shown = eqd.queue("q")
    equal((shown["state"], shown["queued"], shown["last_seq"]), ("paused", 6, 6))
    contains(str(shown["set"]), "description=kept")
    eqd.ok("queue", "resume", "q")
    eqd.ok("queue", "flush", "q")
    equal((eqd.dir / "work/order").read_text().split(), ["urgent", "0", "1", "2", "3", "4"])
    equal(eqd.submit("-q", "q", "--", "true"), "q/7")


@test(config=VOLATILE)
def an_array_keeps_its_limit(eqd):
    array_keeps_its_limit(eqd, restart, restart)


def rate_survives(eqd):
    eqd.ok("queue", "create", "q", "rate=1/1h", "rate_burst=2")
    eqd.ok("queue", "set", "q", "rate=2/1h")
    for _ in range(6):
        eqd.submit("-q", "q", "--", "true")
    eqd.ok("wait", "q/1", "q/2")
    equal([json.loads(eqd.ok("why", "--json", f"q/{n}"))["reason"] for n in (3, 6)], ["rate"] * 2)
    restart(eqd)
    eqd.ok("wait", "q/3", "q/4")
    equal({"rate=2/h", "rate_burst=2"} <= set(eqd.queue("q")["set"]), True)
    equal([json.loads(eqd.ok("why", "--json", f"q/{n}"))["reason"] for n in (5, 6)], ["rate"] * 2)


@test(config=VOLATILE)
def the_rate_of_a_volatile_queue_survives_and_its_burst_begins_anew(eqd):
    rate_survives(eqd)


@test()
def the_rate_of_a_durable_queue_survives_and_its_burst_begins_anew(eqd):
    rate_survives(eqd)


@test(config=VOLATILE)
def what_ran_is_stopped_and_runs_again_before_the_others(eqd):
    task = eqd.sh("echo $EQD_ATTEMPT >>work/attempts; [ $EQD_ATTEMPT = 2 ] || { echo ready; exec sleep 1000; }")
    eqd.sh("echo next >>work/attempts")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    restart(eqd)
    eqd.ends_as(task, "DONE", attempt=2)
    eqd.ends_as("default/2", "DONE", attempt=1)
    equal((eqd.dir / "work/attempts").read_text().split(), ["1", "2", "next"])


@test(config=VOLATILE)
def what_has_ended_is_still_there(eqd):
    task = eqd.sh("echo out; echo err >&2; exit 3")
    eqd.wait(task)
    before = eqd.show(task)
    restart(eqd)
    equal(eqd.show(task), before)
    contains(eqd.logs(task), "out")
    eqd.ok("retry", task)
    eqd.ends_as(task, "FAILED", exit=3, attempt=2)


@test(config=VOLATILE)
def holds_delays_and_dependencies_survive(eqd):
    held = eqd.sh("echo held", "--hold")
    later = eqd.submit("--in", "1h", "--", "true")
    after = eqd.sh("echo after", "--after", f"ok:{held}")
    restart(eqd)
    contains(eqd.ok("why", held), "held")
    contains(eqd.ok("why", later), "starts in")
    contains(eqd.ok("why", after), "comes after")
    eqd.ok("release", held)
    eqd.ends_as(after, "DONE")
    eqd.ok("cancel", later)


@test(config=VOLATILE)
def ids_of_removed_queues_stay_stale_and_numbers_go_on(eqd):
    eqd.ok("queue", "create", "gone")
    eqd.wait(eqd.submit("-q", "gone", "--", "true"))
    with eqd.connect() as c:
        stale = c.call("show", ["gone/1"])[0]["id"]
    eqd.ok("queue", "rm", "gone")
    restart(eqd)
    eqd.ok("queue", "create", "other")
    eqd.ok("queue", "create", "gone")
    equal(eqd.submit("-q", "gone", "--", "true"), "gone/2")
    with eqd.connect() as c:
        try:
            c.call("why", [stale])
            raise AssertionError("a stale id was answered")
        except Exception as e:
            equal(getattr(e, "code", None), 6, str(e))


@test(config=VOLATILE)
def eqctl_that_waits_goes_on_over_the_restart(eqd):
    task = eqd.sh("[ $EQD_ATTEMPT = 2 ] || exec sleep 1000; exit 7")
    eqd.until_state(task, "RUNNING")
    waiting = eqd.start_ctl("wait", task)
    with eqd.connect() as c:
        eventually(lambda: c.call("stat")["clients"] == 2, "eqctl has connected")
        c.call("ping") # a turn of the loop later: its request has been read
    restart(eqd)
    out = waiting.communicate(timeout=60)
    equal(waiting.returncode, 7, f"what the task ended with; eqctl said {out}")


@test()
def eqctl_that_prints_events_goes_on_over_kill_9_and_says_so(eqd):
    watching = eqd.start_ctl("events", "-f", "--json", "-q", "default")
    with eqd.connect() as c:
        eventually(lambda: c.call("stat")["clients"] == 2, "eqctl has connected")
        def told():
            eqd.wait(eqd.submit("--", "true"))
            return select.select([watching.stdout], [], [], 0.1)[0]
        eventually(told, "it has subscribed")
    crash(eqd)
    equal(watching.stderr.readline(), b"eqctl: lost the connection to eqd; trying again for 30 s\n")
    equal(watching.stderr.readline(), b"eqctl: connected again; what happened in between is missing\n")
    task = eqd.submit("--", "true")
    seq = int(task.split("/")[1])
    while f"default/{seq}" not in (line := watching.stdout.readline().decode()):
        equal(bool(line), True, "it has ended")
    watching.send_signal(signal.SIGTERM)
    watching.communicate(timeout=60)


@test()
def eqctl_that_waits_goes_on_over_kill_9(eqd):
    """For a task, and for a queue."""
    task = eqd.sh("[ $EQD_ATTEMPT = 2 ] || exec sleep 1000; exit 7")
    eqd.until_state(task, "RUNNING")
    waiting = [eqd.start_ctl("wait", task), eqd.start_ctl("wait", "-q", "default")]
    with eqd.connect() as c:
        eventually(lambda: c.call("stat")["clients"] == 3, "both have connected")
        c.call("ping")
    crash(eqd)
    for p in waiting:
        out = p.communicate(timeout=60)
        equal(p.returncode, 7 if p is waiting[0] else 0, f"eqctl said {out}")


@test()
def a_worker_of_eqctl_serves_again_after_kill_9(eqd):
    c = worker_queue(eqd, "w", "max_crashes=10")
    worker = eqd.start_ctl("worker", "run", "-q", "w", "-j", "2", "--", "sh", "-c", "[ $EQD_ATTEMPT = 2 ] || exec sleep 1000; cat")
    task = submit(c, b"payload", "w")
    eqd.until_state("w/1", "RUNNING")
    crash(eqd)
    shown = ended(eqd.connect(), "w/1")
    equal((shown["state"], shown["result"], shown["attempt"]), ("DONE", b"payload", 2))
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=60)
    equal(worker.returncode, 0)


def tasks_of_workers_survive(eqd, queue):
    c = eqd.connect()
    tasks = [submit(c, b"%d" % i, queue) for i in range(4)]
    w = Worker(eqd, queue, credit=2)
    w.done(w.next(), b"result")
    ended(c, tasks[0])
    equal(w.next().payload, b"1") # it has that one when eqd stops, and does not answer
    eqd.connections.remove(w.rpc) # which are closed before the stop
    restart(eqd)
    w.vanish()
    c = eqd.connect()
    equal((c.call("show", [f"{queue}/1"])[0]["result"], eqd.queue(queue)["workers"]), (b"result", 0))
    equal(c.call("why", [f"{queue}/2"])[0]["reason"], "no-worker")
    w = Worker(eqd, queue, credit=2)
    for want in ((b"1", 2), (b"2", 1), (b"3", 1)):
        run = w.next()
        equal((run.payload, run.attempt), want)
        w.done(run)
    shown = ended(c, f"{queue}/2")
    equal((shown["state"], shown.get("crashes", 0)), ("DONE", 0), "that eqd stops is no crash")


@test(config=VOLATILE)
def tasks_of_workers_go_on(eqd):
    worker_queue(eqd, "w", "grace=0", "allow_serve=1234")
    tasks_of_workers_survive(eqd, "w")
    contains(str(eqd.queue("w")["set"]), "executor=worker", "allow_serve=1234")


@test(config={**VOLATILE, "queues.d/jobs.queue": "[Queue]\nExecutor=worker\nGrace=0\n"})
def tasks_of_workers_go_on_where_a_file_makes_the_queue(eqd):
    tasks_of_workers_survive(eqd, "jobs")
    submit(eqd.connect(), b"", "jobs")
    eqd.configure("queues.d/jobs.queue", "[Queue]\nExecutor=command\n")
    restart(eqd)
    eventually(lambda: "keeps that; drain it" in eqd.log_text(), "eqd says that the file is not followed yet")
    w = Worker(eqd, "jobs")
    run = w.next()
    w.done(run)
    ended(eqd.connect(), run.id)
    eqd.ok("reload")
    eqd.ends_as(eqd.submit("-q", "jobs", "--", "true"), "DONE")


@test(config=VOLATILE)
def wait_for_running_goes_on_over_a_restart(eqd):
    eqd.ok("queue", "pause", "default")
    task = eqd.submit("--", "sleep", "1000")
    waiting = eqd.start_ctl("wait", "--for", "running", task)
    with eqd.connect() as c:
        eventually(lambda: c.call("stat")["clients"] == 2, "eqctl has connected")
    restart(eqd)
    eqd.ok("queue", "resume", "default")
    equal(waiting.wait(timeout=60), 0)
    equal(eqd.show(task)["state"], "RUNNING")


@test(config=VOLATILE)
def a_descriptor_that_is_no_such_file_is_said_and_eqd_starts(eqd):
    kept = eqd.stop_and_keep()
    os.truncate(kept, 20)
    eqd.start(kept=kept)
    os.close(kept)
    eventually(lambda: "cannot be read to its end" in eqd.log_text(), "eqd does not say that the file is no good")
    eqd.ends_as(eqd.submit("--", "true"), "DONE")


@test(config=VOLATILE)
def after_a_crash_nothing_old_runs_again(eqd):
    """What was kept is for one restart: it is given back as soon as it is taken over."""
    eqd.submit("--hold", "--", "true")
    restart(eqd)
    crash(eqd)
    equal(eqd.ls(), [])


main()
