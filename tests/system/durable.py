#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Durable queues: what was accepted is there after kill -9, what was told as ended never runs again, in the same order."""

import json
import os
import random
import shutil
import signal

from eqdtest import STOP_SECONDS, Closed, RpcError, contains, equal, eventually, main, proc_stat, test
from ends import array_keeps_its_limit, crash, orderly
from workerkit import Worker, ended, submit, worker_queue


@test()
def what_was_accepted_is_there_after_kill_9_and_runs_in_order(eqd):
    eqd.ok("queue", "create", "q", "description=kept")
    eqd.ok("queue", "pause", "q")
    for i in range(5):
        eqd.sh(f"echo {i} >>work/order", "-q", "q")
    eqd.sh("echo urgent >>work/order", "-q", "q", "--urgent")
    for end in (crash, orderly, crash):
        end(eqd)
        shown = eqd.queue("q")
        equal((shown["state"], shown["queued"], shown["last_seq"]), ("paused", 6, 6))
        contains(str(shown["set"]), "description=kept")
    eqd.ok("queue", "resume", "q")
    eqd.ok("queue", "flush", "q")
    equal((eqd.dir / "work/order").read_text().split(), ["urgent", "0", "1", "2", "3", "4"])
    equal(eqd.submit("-q", "q", "--", "true"), "q/7")


@test()
def submits_of_several_clients_share_a_commit(eqd):
    eqd.ok("queue", "create", "q")
    clients = [eqd.connect() for _ in range(8)]
    admin = eqd.connect()
    for c in clients:
        c.call("submit", "q", b"", argv=["true"], hold=True) # accepted, and nothing of it is left to write when it is answered
    before = admin.call("store_stat")["commits"]
    os.kill(eqd.pid, signal.SIGSTOP) # so that all are there before the first is served
    eventually(lambda: proc_stat(eqd.pid)[0] == "T", "it stands still")
    asked = [c.send("submit", "q", b"", argv=["true"], hold=True) for c in clients]
    os.kill(eqd.pid, signal.SIGCONT)
    equal(sorted(c.reply(n)[1] for c, n in zip(clients, asked)), list(range(9, 17)))
    equal(admin.call("store_stat")["commits"] - before, 1)
    crash(eqd)
    equal(len(eqd.ls("-q", "q")), 16)


@test()
def an_array_keeps_its_limit_over_kill_9(eqd):
    array_keeps_its_limit(eqd, crash, orderly, crash)


@test(config={"eqd.conf": "[Store]\nSegmentSize=1M\n"})
def a_long_start_tells_the_service_manager_that_it_goes_on(eqd):
    """Before the first file of the store and after each, and again while their tasks are taken; nothing of it depends on how long that takes."""
    c = eqd.connect()
    eqd.ok("queue", "pause", "default")
    for _ in range(18): # a quarter of SegmentSize= at most in one message
        c.call("submit_many", "default", [{"argv": ["true"], "label": "x" * 200}] * 500)
    files = len(list((eqd.dir / "state/store").glob("log-*")))
    equal(files >= 3, True, f"{files} files")
    crash(eqd)
    told = eqd.told_before_ready
    steps = [t for t in told if t.get("EXTEND_TIMEOUT_USEC") == "30000000"]
    read = [int(t["STATUS"].split()[3]) for t in steps if t["STATUS"].startswith("Reading the store: ")]
    equal((len(read) >= files, read == sorted(read), read[0], read[-1]), (True, True, 0, 100), f"{told}")
    equal([t["STATUS"] for t in steps[len(read):]],
          ["Taking tasks from the store: 4096 so far", "Taking tasks from the store: 8192 so far"])
    equal(eqd.queue("default")["queued"], 9000)


@test()
def what_ran_runs_again_at_its_place_with_attempt_and_crash_counted(eqd):
    task = eqd.sh("echo $EQD_ATTEMPT >>work/attempts; [ $EQD_ATTEMPT = 2 ] || { echo ready; exec sleep 1000; }")
    eqd.sh("echo next >>work/attempts")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    crash(eqd)
    eqd.ends_as(task, "DONE", attempt=2, crashes=1)
    equal(eqd.ok("ls", "--columns", "try", "--no-headers", task).split(), ["2/2"]) # not two of one
    eqd.ends_as("default/2", "DONE", attempt=1)
    equal((eqd.dir / "work/attempts").read_text().split(), ["1", "2", "next"])


@test()
def an_orderly_stop_counts_no_crash(eqd):
    task = eqd.sh("[ $EQD_ATTEMPT = 2 ] || { echo ready; exec sleep 1000; }")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    orderly(eqd)
    shown = eqd.ends_as(task, "DONE", attempt=2)
    equal(shown.get("crashes", 0), 0)


@test(config={"queues.d/f.queue": "[Queue]\nAtMostOnce=yes\n"})
def at_most_once_ends_what_was_running_as_lost(eqd):
    eqd.ok("queue", "create", "q", "at_most_once=yes", "retries=3")
    begun = eqd.dir / "work/begun"
    begun.touch()
    begun.chmod(0o666)
    for n, end in ((2, crash), (4, orderly)):
        running = [eqd.sh("echo begun >>work/begun; exec sleep 1000", "-q", q) for q in ("q", "f")]
        waits = [eqd.sh("true", "-q", q) for q in ("q", "f")]
        for task in running:
            eqd.until_state(task, "RUNNING")
        eventually(lambda n=n: len(begun.read_text().split()) == n, "both have begun")
        end(eqd)
        for task in waits:
            eqd.ends_as(task, "DONE", attempt=1)
        for task in running:
            eqd.ends_as(task, "FAILED", attempt=1, reason="lost")
    equal(len(begun.read_text().split()), 4)
    eqd.ends_as(eqd.sh("[ $EQD_ATTEMPT = 2 ]", "-q", "q", "--backoff", "10ms"), "DONE", attempt=2)
    task = eqd.submit("-q", "q", "--", "sleep", "1000")
    eqd.until_state(task, "RUNNING")
    os.kill(eqd.connect().call("stat")["spawner_pid"], signal.SIGKILL)
    eqd.ends_as(task, "FAILED", attempt=1, reason="lost")


@test()
def what_a_crash_ended_is_the_newest_of_its_history(eqd):
    eqd.ok("queue", "create", "q", "at_most_once=yes", "history=2")
    for _ in range(2):
        eqd.ends_as(eqd.submit("-q", "q", "--", "true"), "DONE")
    task = eqd.submit("-q", "q", "--", "sleep", "1000")
    eqd.until_state(task, "RUNNING")
    crash(eqd)
    eqd.ends_as(task, "FAILED", attempt=1, reason="lost")
    eqd.fails(66, "show", "q/1", says="history is gone")
    crash(eqd) # that end was written down
    eqd.ends_as(task, "FAILED", attempt=1, reason="lost")


@test()
def history_is_in_the_order_of_the_ends_after_kill_9_too(eqd):
    eqd.ok("queue", "create", "q", "history=3")
    first, second = (eqd.submit("-q", "q", "--hold", "--", "true") for _ in range(2))
    for task in (eqd.submit("-q", "q", "--", "true"), first, second):
        eqd.ctl("release", task)
        eqd.ends_as(task, "DONE")
    crash(eqd)
    eqd.ends_as(eqd.submit("-q", "q", "--", "true"), "DONE")
    eqd.fails(66, "show", "q/3", says="history is gone")
    equal([eqd.show(task)["state"] for task in (first, second, "q/4")], ["DONE"] * 3)


@test()
def at_most_once_ends_what_a_worker_had(eqd):
    c = worker_queue(eqd, "w", "max_active=2", "at_most_once=yes", "retries=3")
    task, kicked, waits = (submit(c, b"x", "w") for _ in range(3))
    w, k = Worker(eqd, "w", credit=1), Worker(eqd, "w", credit=1)
    w.next(), k.next()
    crash(eqd)
    c = eqd.connect()
    for t in (task, kicked):
        equal([c.call("show", [t])[0][f] for f in ("state", "reason")], ["FAILED", "lost"])
    w = Worker(eqd, "w", credit=1)
    equal(w.next().attempt, 1)
    w.vanish()
    equal([ended(c, waits)[f] for f in ("state", "reason")], ["FAILED", "lost"])
    last = submit(c, b"x", "w")
    w = Worker(eqd, "w", credit=1)
    w.next()
    c.call("worker_kick", w.number)
    equal([ended(c, last)[f] for f in ("state", "reason")], ["FAILED", "lost"])


@test(env={"EQD_FAULT": "disk:4"})
def what_the_disk_does_not_take_is_not_begun(eqd):
    """It takes the queues and the task, and not that it starts."""
    c = worker_queue(eqd, "w", "at_most_once=yes")
    task = submit(c, b"x", "w")
    w = Worker(eqd, "w", credit=1)
    w.nothing_comes()
    equal(c.call("show", [task])[0]["state"], "RUNNING")
    equal(w.row()["in_flight"], 1)
    w.vanish()
    eventually(lambda: c.call("show", [task])[0]["state"] == "QUEUED", "it is back at its place")
    equal(c.call("show", [task])[0].get("attempt", 0), 0)
    w = Worker(eqd, "w", credit=1)
    w.nothing_comes()
    crash(eqd) # it was written, if not synced: nobody knows any more that the answer had not come
    equal([eqd.connect().call("show", [task])[0][f] for f in ("state", "reason")], ["FAILED", "lost"])


@test(env={"EQD_FAULT": "mark:1+"})
def without_marks_only_at_most_once_waits_and_it_is_told_once(eqd):
    eqd.ok("queue", "create", "q", "at_most_once=yes")
    waits = [eqd.submit("-q", "q", "--", "true") for _ in range(3)]
    for _ in range(3):
        eqd.ends_as(eqd.submit("--", "true"), "DONE")
    contains(eqd.ok("why", waits[0]), "persist", "at_most_once", "65536")
    contains(eqd.ok("queue", "ls"), "persist")
    equal(eqd.show(waits[0])["state"], "QUEUED")
    equal(eqd.has_logged("as many as can be").count("as many as can be"), 1, eqd.log_text())
    crash(eqd)
    for task in waits:
        eqd.ends_as(task, "DONE", attempt=1)


@test()
def a_task_that_was_running_at_too_many_crashes_is_dead(eqd):
    eqd.ok("queue", "create", "q", "max_crashes=2")
    poison = eqd.submit("-q", "q", "--", "sleep", "1000")
    good = eqd.submit("-q", "q", "--", "true")
    eqd.until_state(poison, "RUNNING")
    crash(eqd)
    eqd.until_state(poison, "RUNNING")
    crash(eqd)
    shown = eqd.show(poison)
    equal((shown["state"], shown["reason"]), ("DEAD", "lost"))
    eqd.ends_as(good, "DONE")
    crash(eqd)
    equal(eqd.show(poison)["state"], "DEAD")
    equal(eqd.show(good)["state"], "DONE")


@test(config={"queues.d/f.queue": "[Queue]\nMaxCrashes=1\n"})
def what_is_too_many_the_file_of_a_queue_says_unless_it_was_set(eqd):
    poison = eqd.submit("-q", "f", "--", "sleep", "1000")
    eqd.until_state(poison, "RUNNING")
    crash(eqd)
    equal(eqd.show(poison)["state"], "DEAD")
    eqd.ok("queue", "set", "f", "max_crashes=2")
    poison = eqd.submit("-q", "f", "--", "sleep", "1000")
    for _ in range(2):
        eqd.until_state(poison, "RUNNING")
        crash(eqd)
    shown = eqd.show(poison)
    equal((shown["state"], shown["crashes"]), ("DEAD", 2))


@test()
def ends_results_and_logs_are_still_there(eqd):
    bad = eqd.sh("echo out; echo err >&2; exit 3")
    eqd.wait(bad)
    held = eqd.submit("--hold", "--", "true")
    eqd.ok("cancel", held)
    before = [eqd.show(bad), eqd.show(held)]
    crash(eqd)
    equal([eqd.show(bad), eqd.show(held)], before)
    contains(eqd.logs(bad), "out")
    eqd.ok("retry", bad)
    eqd.ends_as(bad, "FAILED", exit=3, attempt=2)
    crash(eqd)
    equal(eqd.show(bad)["attempt"], 2)


@test()
def of_a_task_that_has_ended_the_output_of_the_last_attempt_is_still_there(eqd):
    long = eqd.sh("head -c 100000 /dev/zero | tr '\\0' $EQD_ATTEMPT; [ $EQD_ATTEMPT = 2 ]", "-r", "1", "--backoff", "exp:1ms")
    short = eqd.sh("echo $EQD_ATTEMPT; [ $EQD_ATTEMPT = 2 ]", "-r", "1", "--backoff", "exp:1ms")
    eqd.wait(long, short)
    equal(eqd.ctl("logs", "--attempt", "1", short)[1:], ("1\n", ""))
    before = [eqd.ctl("logs", t)[1:] for t in (long, short)]
    equal([len(before[0][0]), before[1]], [65536, ("2\n", "")])
    crash(eqd)
    after = [eqd.ctl("logs", t)[1:] for t in (long, short)]
    equal(after == before, True, f"{[[len(text) for text in texts] for texts in after]} bytes")
    equal(eqd.show(long)["stdout_bytes"], 100000)
    equal(eqd.ctl("logs", "--attempt", "1", short)[1:], ("", "eqctl: what attempt 1 may have written is gone\n"))
    eqd.ok("retry", short)
    eqd.ends_as(short, "DEAD", attempt=3)
    equal(eqd.ctl("logs", "--attempt", "2", short)[1:], ("2\n", ""))


@test()
def holds_delays_retries_and_dependencies_survive(eqd):
    eqd.ok("queue", "create", "q", "max_active=10", "retries=1", "backoff=1h", "backoff_max=1h")
    held = eqd.sh("echo held", "-q", "q", "--hold")
    later = eqd.submit("-q", "q", "--in", "1h", "--", "true")
    after = eqd.sh("echo after", "-q", "q", "--after", f"ok:{held}")
    failed = eqd.sh("exit 1", "-q", "q")
    eqd.until_state(failed, "WAITING")
    released = eqd.submit("-q", "q", "--hold", "--in", "1h", "--", "true")
    eqd.ok("release", released)
    crash(eqd)
    contains(eqd.ok("why", held), "held")
    contains(eqd.ok("why", later), "starts in")
    contains(eqd.ok("why", after), "comes after")
    contains(eqd.ok("why", failed), "attempt 1 failed")
    contains(eqd.ok("why", released), "starts in")
    eqd.ok("release", held)
    eqd.ends_as(after, "DONE")
    for task in (later, failed, released):
        eqd.ok("cancel", task)


# Of a queue: counted since eqd was started, or of a moment, and what the store took for it.
OF_A_QUEUE = {"accepted", "done", "failed", "refused", "cpu_usec", "oldest_usec", "store_bytes", "store_segments", "commit_p50_usec",
              "commit_p99_usec", "detail"}


def all_that_is_shown(eqd, ids):
    """By queue and task; and the times to come of tasks, which are kept by the wall clock and may be told some microseconds off."""
    c, told, due = eqd.connect(), {}, {}
    for q in c.call("queue_list"):
        told[q["name"]] = {k: v for k, v in c.call("queue_show", q["name"]).items() if k not in OF_A_QUEUE}
    for task, row in zip(ids, c.call("show", ids)):
        for when in ("eligible_usec", "expires_usec"):
            due[task, when] = row.pop(when, 0)
        if due[task, "eligible_usec"]:
            row.pop("detail") # how long it is until then
        told[task] = row
    told["order"] = [t["id"] for t in c.call("list", limit=1000)]
    return told, due


@test()
def all_that_is_shown_of_queues_and_tasks_is_the_same_after_kill_9(eqd):
    """Each kind of wait, of option and of end, some of them changed since they were accepted; twice, so also what the first start wrote."""
    eqd.ok("queue", "create", "q", "max_active=4", "retries=1", "backoff=1h", "backoff_max=1h", "description=a b", "rate=100/s")
    eqd.ok("queue", "create", "ends", "max_crashes=1")
    eqd.ok("queue", "create", "paused")
    eqd.ok("queue", "pause", "paused")
    eqd.ok("queue", "pause", "paused") # pauses count
    c = worker_queue(eqd, "w", "retries=2", "backoff=0")
    poison, leased = eqd.submit("-q", "ends", "--", "sleep", "1000"), submit(c, b"x", "w")
    eqd.until_state(poison, "RUNNING")
    Worker(eqd, "w", credit=1).next()
    crash(eqd) # a crash and a lost lease, which are kept with the ends that come of it
    equal(eqd.show(poison)["state"], "DEAD")
    w = Worker(eqd, "w", credit=1)
    w.done(w.next(), b"result")
    ended(eqd.connect(), leased)
    w.vanish()
    held = eqd.submit("-q", "q", "--hold", "-J", "a label", "--nice", "5", "-t", "5s", "--grace", "3s", "-r", "7", "--backoff",
                      "exp:3s:9s", "--unique", "key", "--expire", "2h", "--payload", "input", "--mime", "text/plain", "--", "cat", "a b")
    ids = [poison, "w/1", held]
    for options in (["--after", held], ["--after", f"any:{held}", "--expire", "1h"], ["--in", "1h"], ["--at", "now+2h", "--urgent"], []):
        ids.append(eqd.submit("-q", "q", *options, "--", "false"))
    eqd.until_state(ids[-1], "WAITING")
    canceled, released, changed = (eqd.submit("-q", "q", "--hold", "--in", "1h", "--", "true") for _ in range(3))
    eqd.ok("cancel", canceled)
    eqd.ok("release", released)
    eqd.ok("release", changed)
    eqd.ok("hold", changed)
    ids += [canceled, released, changed, eqd.sh("echo out; echo err >&2; exit 3", "-q", "ends")]
    ids += [eqd.submit("-q", "paused", *options, "--", "true") for options in ([], ["--urgent"], ["--hold", "--urgent"], [])]
    ids += eqd.submit("-q", "paused", "--array", "1-3%2", "--", "echo", "{}").split()
    ids.append(eqd.submit("-q", "paused,q", "--hold", "--", "true"))
    eqd.wait(ids[11])
    before, due = all_that_is_shown(eqd, ids)
    equal((before[poison]["crashes"], before["w/1"]["attempt"]), (1, 2))
    equal(due[held, "expires_usec"] - before[held]["submitted_usec"] >= 7_200_000_000, True, "two hours")
    for end in (crash, crash, orderly):
        end(eqd)
        after, due_then = all_that_is_shown(eqd, ids)
        for what, row in before.items():
            equal(after.get(what), row, what)
        equal(after.keys(), before.keys())
        for what, usec in due.items():
            equal(abs(due_then[what] - usec) <= 1000, True, f"{what}: {due_then[what]}, not {usec}")
    eqd.ok("retry", "w/1")
    w = Worker(eqd, "w", credit=1)
    w.fail(w.next())
    w.done(w.next()) # of three attempts one was lost, and used up no retry
    equal(ended(eqd.connect(), "w/1")["attempt"], 4)
    eqd.ok("cancel", *[t["id"] for t in eqd.ls("-s", "WAITING,QUEUED")])


@test(config={"queues.d/f.queue": "[Queue]\nMaxActive=2\n"})
def what_was_set_of_a_queue_of_a_file_outlives_kill_9_until_the_file_changes(eqd):
    def is_set(origin, value):
        shown = eqd.queue("f")
        equal(shown["origin"], origin)
        contains(shown["set"], f"max_active={value}")
    eqd.ok("queue", "set", "f", "max_active=5")
    for end in (crash, orderly, crash):
        end(eqd)
        is_set("file+override", 5)
    (eqd.dir / "config/queues.d/f.queue").write_text("[Queue]\nMaxActive=3\n")
    crash(eqd)
    is_set("file", 3)


@test()
def removed_and_volatile_queues_do_not_come_back(eqd):
    eqd.ok("queue", "create", "gone")
    eqd.wait(eqd.submit("-q", "gone", "--", "true"))
    eqd.ok("queue", "rm", "gone")
    eqd.ok("queue", "create", "--volatile", "memory")
    contains(str(eqd.queue("memory")["set"]), "durable=no")
    eqd.submit("-q", "memory", "--hold", "--", "true")
    crash(eqd)
    names = [json.loads(line)["name"] for line in eqd.ok("queue", "ls", "--json").splitlines()]
    equal(names, ["default"])
    eqd.ok("queue", "create", "gone")
    equal(eqd.submit("-q", "gone", "--", "true"), "gone/2")


@test()
def durable_can_be_changed_while_there_is_nothing_to_lose(eqd):
    eqd.ok("queue", "create", "q")
    eqd.ok("queue", "set", "q", "durable=no")
    task = eqd.submit("-q", "q", "--hold", "--", "true")
    eqd.fails(1, "queue", "set", "q", "durable=yes", says="durable")
    eqd.ok("cancel", task)
    eqd.fails(1, "queue", "set", "q", "durable=yes", says="history")
    crash(eqd)
    eqd.fails(66, "queue", "show", "q")


@test(config={"eqd.conf": "[Store]\nSegmentSize=1M\n"})
def a_batch_that_no_segment_holds_is_refused(eqd):
    with eqd.connect() as c:
        try:
            c.call("submit", "default", b"x" * 500000, argv=["/bin/true"])
            raise AssertionError("taken")
        except RpcError as e:
            equal(e.code, 10, e.text)
            contains(e.text, "segment_size")
        c.call("submit", "default", b"x" * 100000, argv=["/bin/true"])
    eqd.ends_as("default/2", "DONE") # the first number is burnt


@test(env={"EQD_FAULT": "sync:40+"}, config={"eqd.conf": "[Watchdog]\nWatchdogThresh=1s\n"})
def when_the_disk_fails_nothing_is_promised_any_more(eqd):
    eqd.submit("--", "sleep", "1000")
    waits = eqd.submit("--", "true")
    waiting = eqd.connect()
    msgid = waiting.send("wait", [waits])
    waiting.call("stat") # behind it
    promised = 0
    with eqd.connect() as c:
        try:
            while True:
                c.call("submit", "default", b"", argv=["/bin/true"], hold=True)
                promised += 1
        except Closed:
            pass # not answered: it was not promised
    eqd.fails(75, "submit", "--", "true", says="the store has failed")
    try:
        waiting.reply(msgid)
        raise AssertionError("nobody knows how it ends")
    except RpcError as e:
        equal(e.code, 24, e.text)
        contains(e.text, "the store has failed", "wait again")
    eqd.fails(125, "wait", waits, says="the store has failed")
    equal(eqd.show(waits)["reason"], "persist")
    contains(eqd.ok("why", waits), "mend the disk and restart eqd")
    eqd.fails(75, "queue", "resume", "default", says="restart eqd")
    eqd.ok("queue", "create", "memory", "durable=no")
    eqd.ends_as(eqd.submit("-q", "memory", "--", "true"), "DONE")
    eventually(lambda: "the store has failed" in eqd.log_text(), "it is in the log")
    eventually(lambda: "store has not answered for" in eqd.log_text(), "the stall watch tells it")
    crash(eqd, env={"EQD_FAULT": ""})
    equal(len(eqd.ls("-s", "WAITING")) >= promised, True, f"{promised} were promised")


@test(env={"EQD_FAULT": "sync:40+"}, config={"eqd.conf": "[Watchdog]\nWatchdogThresh=1s\n"})
def what_ran_when_the_disk_failed_does_not_run_again_with_at_most_once(eqd):
    eqd.ok("queue", "create", "q", "at_most_once=yes")
    task = eqd.sh("echo begun >>work/begun; echo ready; exec sleep 1000", "-q", "q")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    with eqd.connect() as c:
        try:
            while True:
                c.call("submit", "default", b"", argv=["/bin/true"], hold=True)
        except Closed:
            pass
    eventually(lambda: "the store has failed" in eqd.log_text(), "it is in the log")
    orderly(eqd, env={"EQD_FAULT": ""}) # nothing can be written of it any more
    eqd.ends_as(task, "FAILED", attempt=1, reason="lost")
    equal((eqd.dir / "work/begun").read_text().split(), ["begun"])


@test()
def tasks_of_workers_go_on_under_another_attempt_and_results_stay(eqd):
    c = worker_queue(eqd, "w", "max_active=3", "retries=1", "backoff=0")
    tasks = [submit(c, b"%d" % i, "w") for i in range(3)]
    w = Worker(eqd, "w", credit=3)
    w.done(w.next(), b"first")
    ended(c, tasks[0])
    equal([w.next().payload, w.next().payload], [b"1", b"2"])
    eqd.connections.remove(w.rpc) # it lives on, and must not be the end of its leases before eqd is
    crash(eqd)
    w.vanish()
    c = eqd.connect()
    equal(c.call("show", ["w/1"])[0]["result"], b"first")
    w = Worker(eqd, "w", credit=3)
    runs = [w.next(), w.next()]
    equal([(r.payload, r.attempt) for r in runs], [(b"1", 2), (b"2", 2)])
    w.fail(runs[0])
    run = w.next()
    equal((run.payload, run.attempt), (b"1", 3), "what was lost used up no retry")
    w.done(run)
    shown = ended(c, "w/2")
    equal((shown["state"], shown.get("crashes", 0)), ("DONE", 0))


@test()
def a_damaged_record_is_named_and_the_rest_is_served(eqd):
    for i in range(20):
        eqd.submit("--hold", "-J", f"label-{i:02}", "--", "true")
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.expect_end(STOP_SECONDS, -signal.SIGKILL)
    eqd.forget()
    log = sorted((eqd.dir / "state/store").glob("log-*"))[0]
    data = bytearray(log.read_bytes())
    at = data.index(b"label-07")
    data[at] ^= 1
    log.write_bytes(data)
    eqd.start()
    eventually(lambda: "are damaged and left out" in eqd.log_text(), "the log names it")
    equal([t["id"] for t in eqd.ls()], [f"default/{i}" for i in range(1, 21) if i != 8])
    equal(len(list((eqd.dir / "state/store").glob("damaged-*"))), 1)


def flip(path, at, bit):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << bit]))


def kill_and_keep(eqd):
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.expect_end(STOP_SECONDS, -signal.SIGKILL)
    eqd.forget()


@test(config={"eqd.conf": "[Store]\nSegmentSize=1M\n"}, seconds=600)
def one_flipped_bit_in_each_kind_of_file_is_named_and_the_rest_is_served(eqd):
    """tests/unit/damage-test.c flips thousands, in a store alone."""
    dice, state, kept = random.Random(int(os.environ.get("EQD_SEED", "1"))), eqd.dir / "state", eqd.dir / "kept"
    with eqd.connect() as c:
        for i in range(9):
            c.call("submit_many", "default", [{"argv": ["true"], "label": f"{i}" * 200, "hold": True}] * 600)
    (state / "lock").write_text("nobody reads this")
    names = lambda: [p.name for p in (state / "store").iterdir()]
    eventually(lambda: any(n.startswith("hint-") for n in names()) and "new-hint" not in names(), names)
    kill_and_keep(eqd)
    shutil.copytree(state, kept)
    files = [p.relative_to(kept) for p in sorted(kept.rglob("*")) if p.is_file()]
    for kind in ("lock", "running", "log-", "hint-"):
        equal(any(p.name.startswith(kind) for p in files), True, f"{kind}: {files}")
    for file in files * 2:
        shutil.rmtree(state)
        shutil.copytree(kept, state)
        data = (kept / file).read_bytes().rstrip(b"\0")
        header = dice.random() < 0.3
        at, bit = dice.randrange(max(1, min(64, len(data)) if header else len(data))), dice.randrange(8)
        flip(state / file, at, bit)
        what = f"{file}, byte {at}, bit {bit}"
        eqd.start()
        ids = {t["id"] for t in eqd.ls()}
        lost = {f"default/{i}" for i in range(1, 5401)} - ids
        equal((len(ids) + len(lost), len(lost) <= 1), (5400, True), what)
        equal(eqd.queue("default")["last_seq"], 5400, what)
        if file.name.startswith("hint-") or lost:
            eqd.has_logged(file.name)
        if file.name == "lock":
            equal(len((state / "lock").read_bytes()), len(data))
        kill_and_keep(eqd)
    eqd.start()


@test()
def a_store_of_a_later_version_is_refused_and_left_alone(eqd):
    eqd.submit("--hold", "--", "true")
    kept = eqd.stop_and_keep()
    os.close(kept)
    log = sorted((eqd.dir / "state/store").glob("log-*"))[0]
    now = log.read_bytes()
    data = bytearray(now)
    data[8] += 2 # and its sum is not right: no bit of ours makes that
    log.write_bytes(data)
    r = eqd.run_eqd("--socket", eqd.socket, "--state", eqd.dir / "state")
    equal(r.rc, 1)
    contains(r.err, "later version")
    equal(log.read_bytes() == bytes(data), True, "it was written to")
    log.write_bytes(now)
    eqd.start()
    equal(len(eqd.ls()), 1)


main()
