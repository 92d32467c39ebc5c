#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The stall watch of a running eqd: what subscribers, the log, the status line and the service manager get."""

import json
import os
import re
import select
import signal
import time

from eqdtest import WAIT_SECONDS, Path, contains, equal, eventually, main, proc_stat, stalls, test

# A second here is what a minute is in life: thresholds are small. How late eqd detects at most is shown with a clock of its own
# (tests/unit/stall-test.c); here each report is waited for, and must not come before its threshold.
# In memory: a disk that others keep busy does not answer for longer than that, and is told. But for those that are about the disk.
VOLATILE = "[Queue]\nDurable=no\n"
DISK = "[Watchdog]\nWatchdogThresh=1s\n"
FAST = VOLATILE + DISK
LIFELESS = "expected_runtime=0"


def stall(connection, kind="stall.begin", seconds=WAIT_SECONDS, **fields):
    """The next event of that kind with these fields."""
    def wanted(method, params):
        return method == "event" and params[0]["event"] == kind and \
            all(params[0].get(k) == v for k, v in fields.items())
    return connection.note(wanted, seconds)[0]


def nothing(connection, seconds):
    """No stall event comes for so long: the one wait here that cannot end early."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.receive(end - time.monotonic())
    equal(stalls(connection), [])


def blocker(eqd, queue, *attributes, **options):
    """A task that stands in the way in a queue of its own; it shows no life unless the attributes say so."""
    eqd.ok("queue", "create", queue, *(attributes or [LIFELESS]))
    task = eqd.submit("-q", queue, "--", "sleep", "1000", **options)
    eqd.until_state(task, "RUNNING")
    return task


def at_least(value, low, what):
    equal(value >= low, True, f"{what} is {value}, less than {low}")


@test(config={"eqd.conf": FAST + "[Commands]\nSlots=1\n"}, notify=True)
def a_full_pool_of_lifeless_tasks_is_told_everywhere_and_so_is_its_end(eqd):
    c = eqd.events(events=["stall."])
    eqd.ok("pool", "set", "default", "nice=19")
    task = blocker(eqd, "block")
    began = time.monotonic()
    waiting = eqd.submit("-q", "default", "--", "true")
    first = stall(c, pool="default")
    at_least(time.monotonic() - began, 0.99, "seconds to the report")
    equal((first["queue"], first["reason"]), ("default", "slots"))
    at_least(first["stall_usec"], 1_000_000, "stall_usec")
    status = eqd.until_notified(lambda m: "STALLED" in m.get("STATUS", ""))
    equal(re.fullmatch(r"STALLED pool default [1-9]s \(queue default: slots, 1 pending, oldest #1 [1-9]s\); "
                       "2 queues, 1 running, 1 pending", status["STATUS"]) is not None, True, status)
    equal(status["X_EQD_STALLED"], "1")
    at_least(stall(c, "stall.repeat", pool="default")["stall_usec"], 2_000_000, "stall_usec of the repetition")
    stat = json.loads(eqd.ok("stat", "--json"))
    equal((stat["stalls"], stat["stalled"]), (1, 1))
    eqd.ok("cancel", task)
    end = stall(c, "stall.end", pool="default")
    equal(end["stall_usec"] > 2_000_000, True, end)
    eqd.ends_as(waiting, "DONE")
    eqd.until_notified(lambda m: m.get("STATUS") == "2 queues, 0 running, 0 pending")
    log = eqd.has_logged(f"<2>eqd: BUG: workqueue lockup - pool default flags=0x0 nice=19 stuck for {first['stall_usec'] // 1_000_000}s! "
                         "(slots, queue default with 1 pending)",
                         "<6>eqd: pool default: workers=1 busy=1 queues that could start a task=1",
                         "<5>eqd: workqueue lockup over - pool default was stuck for")
    equal(log.count("no forward progress"), 0, "the pool's report speaks for its queues")
    equal(log.count("Showing busy workqueues and worker pools:"), 1, "once, and not again with each report")
    contains(log, f"<6>eqd: in-flight {task} pid ")
    equal(re.findall(r"<6>eqd: pool (\w+): ", log), ["default"], "the others have nothing to do")


@test(config={"eqd.conf": FAST + "[Commands]\nSlots=300\n"}, seconds=300)
def each_of_200_stalls_is_told_in_time_and_once(eqd):
    """They begin at odd moments, over each other."""
    c = eqd.events(events=["stall.begin"])
    r = eqd.connect()
    began, told = {}, {}
    for i in range(200):
        r.call("queue_create", f"q{i}", set=[LIFELESS])
        began[f"q{i}"] = time.time()
        for _ in range(2):
            r.call("submit", f"q{i}", b"", argv=["/bin/sleep", "1000"])
        c.receive(0.001 * (i * 7 % 31))
    while len(told) < 200:
        event = c.note(lambda method, params: method == "event" and "part" not in params[0])[0]
        equal(event["queue"] in told, False, f"{event} came twice")
        told[event["queue"]] = event["time_usec"] / 1e6 - began[event["queue"]]
    latency = sorted(told.values())
    print(f"# told after: median {latency[100]:.3f} s, p99 {latency[197]:.3f} s, worst {latency[199]:.3f} s")
    at_least(latency[0], 0.999, "the earliest")
    equal(json.loads(eqd.ok("stat", "--json"))["stalls"], 200)
    equal(sorted(set(told)), sorted(began))


@test(config={"eqd.conf": FAST})
def a_serial_queue_behind_a_lifeless_head_names_it(eqd):
    c = eqd.events(events=["stall."])
    task = blocker(eqd, "line")
    for _ in range(5):
        eqd.submit("-q", "line", "--", "true")
    for _ in range(3): # the pool goes on with others
        eqd.ok("run", "--", "true")
    first = stall(c, queue="line")
    equal((first["reason"], first["id"][1]), ("serial", int(task.partition("/")[2])))
    shown = eqd.queue("line")
    equal((shown["stalls"], shown["queued"]), (1, 5))
    at_least(shown["stalled_usec"], 1_000_000, "stalled_usec")
    row = next(line for line in eqd.ok("queue", "ls").splitlines() if line.startswith("line "))
    equal(re.search(rf" STALLED [0-9.]+s, serial: {task} is running", row) is not None, True, row)
    why = eqd.ok("why", "line/2")
    equal(re.search(rf"serial: {task} is running, .*; the queue is stalled for [0-9.]+s, see eqctl dump$", why) is not None, True, why)
    eqd.has_logged(f"<3>eqd: workqueue line: no forward progress for {first['stall_usec'] // 1_000_000}s (serial, oldest in-flight #1 for ")
    eqd.ok("cancel", task)
    stall(c, "stall.end", queue="line")
    equal("stalled_usec" in eqd.queue("line"), False)


@test(config={"eqd.conf": VOLATILE + "[Watchdog]\nWatchdogThresh=200ms\n[Commands]\nSlots=1\n"})
def a_long_command_with_38_waiting_is_no_stall_and_neither_are_paused_and_future_tasks(eqd):
    c = eqd.events(events=["stall."])
    long = blocker(eqd, "convert", "max_active=1")
    for _ in range(38):
        eqd.submit("-q", "convert", "--", "true")
    eqd.submit("--", "true") # the pool is full, too
    eqd.ok("queue", "create", "paused", LIFELESS)
    eqd.ok("queue", "pause", "paused")
    eqd.submit("-q", "paused", "--", "true")
    eqd.submit("--in", "1h", "--", "true")
    eqd.submit("--hold", "--", "true")
    nothing(c, 3)
    equal(eqd.queue("convert")["queued"], 38)
    eqd.kill_task_now(long)


@test(config={"eqd.conf": VOLATILE + "[Watchdog]\nWatchdogThresh=2s\n"})
def W6_tasks_that_wait_for_their_rate_are_no_stall_and_are_not_rescued(eqd):
    c = eqd.events(events=["stall."])
    eqd.ok("queue", "create", "drip", "rate=1/1h", "max_active=100", "rescuer=yes", LIFELESS)
    before = time.time_ns() // 1000
    tasks = [eqd.submit("-q", "drip", "--", "true") for _ in range(6)]
    first = eqd.ends_as(tasks[0], "DONE")
    nothing(c, 8)
    why = json.loads(eqd.ok("why", "--json", tasks[1]))
    equal((why["reason"], before - 100_000 < why["until_usec"] - 3600 * 1_000_000 < first["started_usec"] + 100_000), ("rate", True), why)
    contains(eqd.ok("why", tasks[5]), "drip/6 is QUEUED: rate: queue drip starts 1/h at most, and the next one in ", "; 4 tasks come before it")
    shown = eqd.queue("drip")
    equal([shown[k] for k in ("queued", "mayday", "rescued", "reason")], [5, 0, 0, "rate"])
    equal({"rate=1/h", "rate_burst=1"} <= set(shown["set"]), True, shown)
    eqd.ok("queue", "create", "drop", "rate=1/5s", "max_active=100", LIFELESS)
    before = time.time_ns() // 1000 # the first may start late, and its place in the rate is taken before
    eqd.ends_as(eqd.submit("-q", "drop", "--", "true"), "DONE")
    second = eqd.ends_as(eqd.submit("-q", "drop", "--urgent", "--", "true"), "DONE")
    equal(second["started_usec"] - before >= 4_990_000, True, "urgent, and not before five seconds; wall clock")
    eqd.ok("queue", "set", "drip", "rate=infinity")
    for task in tasks[1:]:
        eqd.ends_as(task, "DONE")
    nothing(c, 0)
    eqd.fails(2, "queue", "set", "drip", "rate=fast", says='rate: "fast" is no rate; 1..1000000 in 1ms..31d, such as 10/s, 100/m, 1/10s')
    eqd.ok("queue", "set", "drip", "rescuer=no")


@test(config={"eqd.conf": VOLATILE + "[Watchdog]\nWatchdogThresh=2s\n"})
def cpu_time_is_a_sign_of_life(eqd):
    """A child does the work: the shell itself waits. In two seconds it gets some CPU time on any machine."""
    eqd.ok("queue", "create", "busy", LIFELESS)
    task = eqd.sh("while :; do :; done & echo $!; wait", "-q", "busy")
    eqd.until_state(task, "RUNNING")
    eqd.submit("-q", "busy", "--", "true")
    c = eqd.events(events=["stall."])
    nothing(c, 5)
    worker = int(eventually(lambda: eqd.logs(task), "the task has not said its child's number"))
    os.kill(worker, signal.SIGSTOP)
    equal(stall(c, queue="busy")["reason"], "serial")
    os.kill(worker, signal.SIGCONT)
    stall(c, "stall.end", queue="busy")
    eqd.kill_task_now(task)


@test(config={"eqd.conf": FAST})
def a_runtime_beyond_what_was_expected_is_a_stall(eqd):
    c = eqd.events(events=["stall."])
    began = time.monotonic()
    blocker(eqd, "q", "expected_runtime=1500ms")
    eqd.submit("-q", "q", "--", "true")
    stall(c, queue="q")
    at_least(time.monotonic() - began, 2.4, "seconds to the report")


@test(config={"eqd.conf": VOLATILE + "[Watchdog]\nWatchdogThresh=0\n"})
def thresholds_change_while_eqd_runs(eqd):
    c = eqd.events(events=["stall."])
    blocker(eqd, "q")
    eqd.submit("-q", "q", "--", "true")
    equal("stall_thresh=0s" in eqd.ok("queue", "show", "q"), True)
    nothing(c, 1.5)
    eqd.configure("eqd.conf", "[Watchdog]\nWatchdogThresh=500ms\n")
    eqd.ok("reload")
    stall(c, queue="q")
    eqd.ok("queue", "set", "q", "stall_thresh=0")
    stall(c, "stall.end", queue="q")
    eqd.ok("queue", "set", "q", "stall_thresh=")
    equal("stall_thresh=500ms" in eqd.ok("queue", "show", "q"), True)
    stall(c, queue="q")
    eqd.ok("param", "set", "watchdog_thresh=0")
    stall(c, "stall.end", queue="q")
    began = time.monotonic()
    eqd.ok("param", "set", "workqueue.watchdog_thresh=1s")
    at_least(stall(c, queue="q") and time.monotonic() - began, 0.99, "seconds to the report")


@test(config={"eqd.conf": VOLATILE + "[Watchdog]\nWatchdogThresh=0\n"})
def a_pool_has_a_threshold_of_its_own(eqd):
    """W5: switched on while it stands still; no sooner than the threshold from then."""
    c = eqd.events(events=["stall."])
    eqd.ok("pool", "create", "small", "slots=1")
    blocker(eqd, "block", LIFELESS, "pool=small")
    eqd.ok("queue", "create", "q", "pool=small")
    eqd.submit("-q", "q", "--", "true")
    nothing(c, 1)
    began = time.monotonic()
    eqd.ok("pool", "set", "small", "stall_thresh=700ms")
    equal(stall(c, pool="small")["reason"], "slots")
    at_least(time.monotonic() - began, 0.69, "seconds to the report")
    eqd.ok("pool", "set", "small", "stall_thresh=")
    stall(c, "stall.end", pool="small")


@test(config={"eqd.conf": FAST})
def an_eqd_that_was_stopped_blames_nobody_for_it(eqd):
    c = eqd.events(events=["stall."])
    eqd.ok("queue", "create", "q", "stall_thresh=3s", LIFELESS)
    eqd.submit("-q", "q", "--", "sleep", "1000")
    eqd.submit("-q", "q", "--", "true")
    nothing(c, 1) # the watch has seen that it waits
    os.kill(eqd.pid, signal.SIGSTOP)
    eventually(lambda: proc_stat(eqd.pid)[0] == "T", "eqd is not stopped")
    select.select([], [], [], 3.5) # what is waited for is time itself
    os.kill(eqd.pid, signal.SIGCONT)
    eventually(lambda: "clock-jump: eqd or the machine stood still for" in eqd.log_text(), eqd.log_text)
    equal("no forward progress" in eqd.log_text(), False)
    at_least(stall(c, queue="q")["stall_usec"], 6_000_000, "stall_usec: the time counts on")


@test(config={"eqd.conf": FAST}, other_users=True)
def touch_puts_off_reports_and_is_for_administrators(eqd):
    blocker(eqd, "q", LIFELESS, "stall_thresh=5s")
    c = eqd.events(events=["stall."])
    eqd.submit("-q", "q", "--", "true")
    end = time.monotonic() + 6
    while time.monotonic() < end:
        nothing(c, 0.5)
        eqd.ok("touch")
    at_least(stall(c, queue="q")["stall_usec"], 10_000_000, "stall_usec")
    if os.geteuid() == 0:
        eqd.fails(77, "touch", uid=61001)


@test(config={"eqd.conf": VOLATILE + "[Watchdog]\nHungTaskTimeoutSecs=1\nHungTaskWarnings=2\n"})
def hung_tasks_are_told_as_often_as_they_may_be(eqd):
    eqd.ok("queue", "create", "q", "hung_task=wall", "max_active=5")
    c = eqd.events(events=["task.hung"])
    tasks = [eqd.submit("-q", "q", "--", "sleep", "1000") for _ in range(5)]
    first = stall(c, "task.hung")
    equal((first["queue"], first["uid"] if "uid" in first else os.geteuid()), ("q", os.geteuid()))
    stall(c, "task.hung")
    eventually(lambda: "HungTaskWarnings is used up" in eqd.log_text(), eqd.log_text)
    pids = [eqd.show(t)["pid"] for t in tasks[:2]] # of the last one it may not be known yet
    found = re.findall(r"INFO: task q/#(\d):(\d+) blocked for more than 1 seconds", eqd.log_text())
    equal([(int(seq), int(pid)) for seq, pid in found], [(1, pids[0]), (2, pids[1])])


@test(config={"eqd.conf": FAST + "[Commands]\nSlots=1\n"}, notify=True, env={"WATCHDOG_USEC": "1000000"})
def stalls_of_tasks_and_of_the_spawner_do_not_stop_the_signs_of_life(eqd):
    c = eqd.events(events=["stall."])
    blocker(eqd, "block")
    eqd.submit("--", "true")
    stall(c, pool="default")
    os.kill(eqd.spawner_pid, signal.SIGSTOP)
    try:
        equal(stall(c, part="eqd-spawner")["reason"], "spawn-failed")
        eqd.until_notified(lambda m: m.get("STATUS", "").startswith("STALLED eqd-spawner"))
        while eqd.notified(0): # what came meanwhile
            pass
        began = time.monotonic()
        for _ in range(5):
            eqd.until_notified(lambda m: m == {"WATCHDOG": "1"}, 5)
        at_least(time.monotonic() - began, 1.5, "seconds for five WATCHDOG=1")
    finally:
        os.kill(eqd.spawner_pid, signal.SIGCONT)
    stall(c, "stall.end", part="eqd-spawner")
    eqd.has_logged("eqd-spawner has not answered for 1s (spawn-failed)", "eqd-spawner answers again after")


def disk_stands_still(eqd):
    """With EQD_FAULT=disk: the event that tells of it."""
    c, r, told = eqd.events(events=["stall."]), eqd.connect(), None
    while told is None: # each is promised by a sync of its own, until one of them does not come back
        msgid = r.send("submit", "default", b"", argv=["/bin/true"], hold=True)
        while msgid not in r.replies and told is None:
            r.receive(0.05)
            c.receive(0)
            told = next((p[0] for _, p in c.notes if p[0].get("part") == "store"), None)
    return told


@test(config={"eqd.conf": DISK}, notify=True, env={"WATCHDOG_USEC": "1000000", "EQD_FAULT": "disk:3"})
def W9_a_disk_that_does_not_answer_is_told_and_no_reason_for_a_restart(eqd):
    equal(disk_stands_still(eqd)["reason"], "persist")
    eqd.until_notified(lambda m: m.get("STATUS", "").startswith("STALLED store"))
    for _ in range(5):
        eqd.until_notified(lambda m: m == {"WATCHDOG": "1"}, 5)
    eqd.ok("queue", "ls")
    eqd.has_logged("store has not answered for 1s (persist)")
    eqd.kill()


@test(config={"eqd.conf": FAST}, notify=True, env={"WATCHDOG_USEC": "1000000", "EQD_FAULT": "loop:24"})
def a_loop_that_stands_still_gives_no_sign_of_life_and_is_told(eqd):
    while (message := eqd.notified(3)) is not None:
        equal(message.keys() <= {"WATCHDOG", "STATUS", "X_EQD_STALLED"}, True, message)
    eventually(lambda: "<2>eqd: the main loop of eqd has not moved for 1s (state S, " in eqd.log_text(), eqd.log_text)
    eqd.kill()


def panics(eqd, want):
    """The datagram of the panic, and that eqd ends itself when nobody does it."""
    told = eqd.until_notified(lambda m: m.get("WATCHDOG") == "trigger")
    contains(told["STATUS"], want)
    eqd.has_logged("<6>eqd: Showing busy workqueues and worker pools:", "<6>eqd: pool default: workers=",
                   "<6>eqd: in-flight block/1 pid ", f"<0>eqd: workqueue: {want}")
    eqd.expect_end(WAIT_SECONDS, -signal.SIGABRT)


@test(config={"eqd.conf": FAST + "PanicOnStall=3\nPanicTimeout=500ms\n[Commands]\nSlots=1\n"}, notify=True)
def the_third_report_makes_eqd_give_up(eqd):
    blocker(eqd, "block")
    began = time.monotonic()
    eqd.submit("--", "true")
    panics(eqd, "3 stall(s) exceeded threshold 3 (queue default: slots)")
    at_least(time.monotonic() - began, 3.0, "seconds to the end")


@test(config={"eqd.conf": FAST + "PanicOnStallTime=2s\nPanicTimeout=500ms\nPanicScope=queue\n"}, notify=True)
def a_queue_that_is_stalled_for_too_long_makes_eqd_give_up(eqd):
    blocker(eqd, "block")
    eqd.submit("-q", "block", "--", "true")
    panics(eqd, "stall lasted 2s, exceeding threshold 2s (queue block: serial)")


@test(config={"eqd.conf": DISK + "PanicOnStallTime=3s\nPanicTimeout=500ms\nPanicScope=queue\n"}, notify=True,
      env={"EQD_FAULT": "disk:3"})
def a_disk_that_does_not_answer_does_not_put_off_the_end(eqd):
    """The store is synced before, if it can be; the wait has a bound."""
    disk_stands_still(eqd)
    blocker(eqd, "block", LIFELESS, "durable=no")
    eqd.submit("-q", "block", "--", "true")
    told = eqd.until_notified(lambda m: m.get("WATCHDOG") == "trigger")
    contains(told["STATUS"], "stall lasted ", "(queue block: serial)")
    eqd.has_logged("<3>eqd: the store was not synced before the restart: the disk does not answer")
    eqd.expect_end(WAIT_SECONDS, -signal.SIGABRT)


@test(eqd=False)
def without_its_threads_eqd_does_not_start_and_says_so(place):
    (place.dir / "config").mkdir()
    for nth in (1, 2): # the log's, the watch's
        r = place.run_eqd("--socket", place.socket, env={"EQD_FAULT": f"thread:{nth}"})
        equal((r.rc, "cannot start: no thread can be created" in r.err), (1, True), f"{r}")


@test(config={"eqd.conf": FAST}, env={"EQD_FAULT": "spawn:1+"})
def when_no_process_can_be_made_the_pool_is_stalled_and_says_why(eqd):
    c = eqd.events(events=["stall."])
    eqd.submit("--", "true")
    equal(stall(c, pool="default")["reason"], "create-failure")


@test(config={"eqd.conf": FAST})
def dump_shows_pools_busy_queues_and_what_runs_and_where(eqd):
    c = eqd.events(events=["stall."])
    task = blocker(eqd, "q")
    eqd.submit("-q", "q", "--", "true")
    stall(c, queue="q")
    pid = eqd.show(task)["pid"]
    out = eqd.ok("dump")
    tables = out.split("\n\n")
    equal(len(tables), 3, out)
    contains(tables[0], "BUSY/SLOTS", "default  command")
    equal(re.search(r"^q +open +1/1 +1 ", tables[1], re.M) is not None, True, out)
    equal("default" in tables[1], False, "queues with nothing in them are left out")
    equal(re.search(rf"^{task} +default +0 +[0-9.]+s .* {pid} +S.* sleep 1000$", tables[2], re.M) is not None, True, out)
    rows = [json.loads(line) for line in eqd.ok("dump", "--json").splitlines()]
    equal([(r.get("kind"), r.get("name"), r.get("pid")) for r in rows],
          [("command", "default", None), ("thread", "plugin", None), ("remote", "remote", None), (None, "q", None),
           (None, None, pid)])
    equal((rows[0]["busy"], "slots" in rows[0], rows[1]["slots"], "slots" in rows[2]), (1, True, 16, False))
    equal((rows[4]["id"], rows[4]["process"], rows[4]["argv"]), (task, "S", ["sleep", "1000"]))
    at_least(rows[4]["run_usec"], 1_000_000, "run_usec")
    eqd.fails(2, "dump", "--columns", "id", says="no option --columns") # of which table?


@test(config={"eqd.conf": FAST})
def monitor_has_the_columns_of_the_kernel(eqd):
    eqd.ok("queue", "create", "mail", LIFELESS)
    eqd.ok("queue", "create", "other")
    eqd.ok("run", "-q", "mail", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done")
    task = eqd.submit("-q", "mail", "--", "sleep", "1000")
    eqd.until_state(task, "RUNNING")
    c = eqd.events(events=["stall."])
    eqd.submit("-q", "mail", "--", "true")
    stall(c, queue="mail")
    head, row = (line.split() for line in eqd.ok("monitor", "-i", "0", "m*").splitlines())
    equal(head, ["NAME", "total", "infl", "CPUtime", "CPUitsv", "CMW/RPR", "mayday", "rescued", "pend", "inact", "oldest",
                 "stall"])
    equal((row[:3], row[4:10]), (["mail", "1", "1"], ["-", "-", "0", "0", "1", "0"]))
    equal(row[11].endswith("s"), True, row)
    equal(eqd.queue("mail")["cpu_usec"] > 0, True)
    twice = eqd.ok("monitor", "-i", "10ms", "-n", "2", "--json", "o*")
    equal([json.loads(line)["name"] for line in twice.splitlines()], ["other", "other"])


@test(root=True, other_users=True)
def dump_shows_a_users_own_tasks_only(eqd):
    task = eqd.submit("--", "sleep", "1000", uid=61001)
    eqd.until_state(task, "RUNNING")
    for uid, n in ((61001, 1), (61002, 0), (0, 1)):
        out = eqd.ok("dump", "--json", uid=uid)
        equal(out.count('"id":"'), n, f"{uid}: {out}")


@test(config={"eqd.conf": FAST})
def events_prints_stalls_for_people(eqd):
    blocker(eqd, "q")
    eqd.submit("-q", "q", "--", "true")
    out = eqd.ok("events", "-f", "-n", "1", "-q", "q")
    equal(re.search(r"  stall\.(begin|repeat)  q/1  pool default  serial  for \d+(\.\d+)?s  queue q: serial$", out) is not None,
          True, out)


@test(config={"eqd.conf": FAST}, root=True, other_users=True)
def hung_tasks_are_told_to_their_owner_only(eqd):
    eqd.configure("eqd.conf", "[Watchdog]\nHungTaskTimeoutSecs=300ms\n[Queue]\nHungTask=wall\n")
    eqd.ok("reload")
    mine, other = eqd.events(uid=61001, events=["task."]), eqd.events(uid=61002, events=["task."])
    eqd.submit("--", "sleep", "1000", uid=61001)
    stall(mine, "task.hung")
    nothing(other, 0.5)


main()
