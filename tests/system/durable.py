#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Durable queues: what was accepted is there after kill -9, what was told as ended never runs again, in the same order."""

import json
import os
import signal

from eqdtest import Closed, RpcError, contains, equal, eventually, main, test


def crash(eqd):
    """kill -9, and the next one."""
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.expect_end(20, -signal.SIGKILL)
    eqd.forget()
    eqd.start()


def orderly(eqd):
    kept = eqd.stop_and_keep()
    if kept is not None:
        os.close(kept) # the store has it all; this is what volatile queues had
    eqd.start()


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
def what_ran_runs_again_at_its_place_with_attempt_and_crash_counted(eqd):
    task = eqd.sh("echo $EQD_ATTEMPT >>work/attempts; [ $EQD_ATTEMPT = 2 ] || { echo ready; exec sleep 1000; }")
    eqd.sh("echo next >>work/attempts")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    crash(eqd)
    eqd.ends_as(task, "DONE", attempt=2, crashes=1)
    eqd.ends_as("default/2", "DONE", attempt=1)
    equal((eqd.dir / "work/attempts").read_text().split(), ["1", "2", "next"])


@test()
def an_orderly_stop_counts_no_crash(eqd):
    task = eqd.sh("[ $EQD_ATTEMPT = 2 ] || { echo ready; exec sleep 1000; }")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    orderly(eqd)
    shown = eqd.ends_as(task, "DONE", attempt=2)
    equal(shown.get("crashes", 0), 0)


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


@test()
def removed_and_volatile_queues_do_not_come_back(eqd):
    eqd.ok("queue", "create", "gone")
    eqd.wait(eqd.submit("-q", "gone", "--", "true"))
    eqd.ok("queue", "rm", "gone")
    eqd.ok("queue", "create", "memory", "durable=no")
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


@test(env={"EQD_FAULT": "sync:40+"})
def when_the_disk_fails_nothing_is_promised_any_more(eqd):
    promised = 0
    with eqd.connect() as c:
        try:
            while True:
                c.call("submit", "default", b"", argv=["/bin/true"], hold=True)
                promised += 1
        except Closed:
            pass # not answered: it was not promised
    eqd.fails(75, "submit", "--", "true", says="the store has failed")
    eqd.ok("queue", "create", "memory", "durable=no")
    eqd.ends_as(eqd.submit("-q", "memory", "--", "true"), "DONE")
    eventually(lambda: "the store has failed" in eqd.log_text(), "it is in the log")
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.expect_end(20, -signal.SIGKILL)
    eqd.forget()
    eqd.start(env={"EQD_FAULT": ""})
    equal(len(eqd.ls("-s", "WAITING")) >= promised, True, f"{promised} were promised")


@test()
def a_damaged_record_is_named_and_the_rest_is_served(eqd):
    for i in range(20):
        eqd.submit("--hold", "-J", f"label-{i:02}", "--", "true")
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.expect_end(20, -signal.SIGKILL)
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


@test()
def a_store_of_a_later_version_is_refused_and_left_alone(eqd):
    eqd.submit("--hold", "--", "true")
    kept = eqd.stop_and_keep()
    os.close(kept)
    log = sorted((eqd.dir / "state/store").glob("log-*"))[0]
    data = bytearray(log.read_bytes())
    data[8] = 2
    log.write_bytes(data)
    r = eqd.run_eqd("--socket", eqd.socket, "--state", eqd.dir / "state")
    equal(r.rc, 1)
    contains(r.err, "later version")
    equal(log.read_bytes() == bytes(data), True, "it was written to")
    data[8] = 1
    log.write_bytes(data)
    eqd.start()
    equal(len(eqd.ls()), 1)


main()
