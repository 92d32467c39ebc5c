#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Configuration: read at start, read again on request, all of it or nothing."""

import json
import os
import signal
import time

from ends import orderly
from eqdtest import contains, equal, eventually, main, test


def attribute(eqd, queue, name):
    values = [s.partition("=")[2] for s in eqd.queue(queue)["set"] if s.startswith(name + "=")]
    equal(len(values), 1, f"{name} of {queue}")
    return values[0]


GOOD = "[Queue]\nMaxActive=3\nDescription=from a file\n"


@test(config={"queues.d/encode.queue": GOOD})
def queues_of_files_are_there_at_start(eqd):
    equal(attribute(eqd, "encode", "max_active"), "3")
    equal(attribute(eqd, "encode", "description"), "from a file")
    equal(eqd.queue("encode")["origin"], "file")
    equal(eqd.queue("default")["origin"], "runtime")


@test()
def a_new_file_makes_a_queue(eqd):
    eqd.configure("queues.d/encode.queue", GOOD)
    eqd.fails(66, "queue", "show", "encode")
    eqd.ok("reload")
    equal(attribute(eqd, "encode", "max_active"), "3")


@test(config={"queues.d/encode.queue": GOOD})
def a_changed_file_changes_the_queue_and_keeps_its_tasks(eqd):
    eqd.ok("queue", "pause", "encode")
    task = eqd.submit("-q", "encode", "--", "true")
    eqd.configure("queues.d/encode.queue", GOOD.replace("3", "7"))
    eqd.ok("reload")
    equal(attribute(eqd, "encode", "max_active"), "7")
    eqd.ok("queue", "resume", "encode")
    eqd.ends_as(task, "DONE")


@test(config={"queues.d/encode.queue": GOOD})
def a_bad_file_changes_nothing_and_is_named_with_its_line(eqd):
    for name, text, line in (("queues.d/encode.queue", "[Queue]\nMaxActive=9\nMaxActive=none\n", 3),
                             ("queues.d/other.queue", "[Queue]\nNoSuchKey=1\n", 2),
                             ("queues.d/other.queue", "[Queue\n", 1),
                             ("eqd.conf", "[Daemon]\n\nLogLevel=loud\n", 3)):
        before = {f: f.read_text() for f in (eqd.dir / "config").rglob("*") if f.is_file()}
        eqd.configure(name, text)
        eqd.fails(78, "reload", says=[f"{name.rpartition('/')[2]}:{line}", "hint: that is the first mistake; `eqd --check` names all of them"])
        equal(attribute(eqd, "encode", "max_active"), "3")
        eqd.fails(66, "queue", "show", "other")
        (eqd.dir / "config" / name).unlink()
        for path, old in before.items():
            path.write_text(old)
    eqd.ok("reload")


@test(config={"queues.d/encode.queue": GOOD})
def a_check_names_all_mistakes_and_changes_nothing(eqd):
    r = eqd.run_eqd("--check")
    equal((r.rc, r.out, r.err), (0, f"{eqd.dir}/config: no mistakes\n", ""))
    eqd.configure("eqd.conf", "[Daemon]\nLogLevel=loud\n[Commands]\nSlots=many\n")
    eqd.configure("queues.d/encode.queue", "[Queue]\nMaxActive=none\n")
    r = eqd.run_eqd("--check")
    equal((r.rc, r.out), (78, ""))
    equal([line.split(": ")[1].rpartition("/")[2] for line in r.err.splitlines()], ["eqd.conf:2", "eqd.conf:4", "encode.queue:2", "config"])
    contains(r.err, "mistakes: 3")
    equal((eqd.dir / "state2").exists(), False)
    equal(attribute(eqd, "encode", "max_active"), "3")
    equal(eqd.run_eqd("--check", "--config", "/nonexistent").out,
          "/nonexistent: No such file or directory; all settings are the built-in ones\n")


@test(config={"queues.d/encode.queue": GOOD})
def what_was_set_by_hand_lasts_until_the_file_changes(eqd):
    eqd.ok("queue", "set", "encode", "max_active=5")
    equal(eqd.queue("encode")["origin"], "file+override")
    eqd.ok("reload")
    equal(attribute(eqd, "encode", "max_active"), "5")
    eqd.configure("queues.d/encode.queue", GOOD.replace("3", "4"))
    eqd.ok("reload")
    equal(attribute(eqd, "encode", "max_active"), "4")
    equal(eqd.queue("encode")["origin"], "file")


@test()
def changed_defaults_reach_every_queue_where_nothing_else_was_set(eqd):
    eqd.ok("queue", "create", "mine", "history=5")
    eqd.configure("eqd.conf", "[Queue]\nMaxActive=4\nHistory=50\n")
    eqd.ok("reload")
    for queue, history in (("default", "50"), ("mine", "5")):
        equal(attribute(eqd, queue, "max_active"), "4")
        equal(attribute(eqd, queue, "history"), history)
    eqd.configure("eqd.conf", "")
    eqd.ok("reload")
    equal(attribute(eqd, "default", "max_active"), "1")


@test()
def what_needs_a_restart_keeps_its_value_until_then_and_is_said(eqd):
    values = lambda: [json.loads(eqd.ok("param", "get", "--json", f"commands.{name}"))["value"] for name in ("slots", "root_tasks", "cgroup")]
    told = lambda: [line for line in eqd.log_text().splitlines() if "takes effect when eqd is restarted" in line]
    eqd.configure("eqd.conf", "[Commands]\nSlots=99\nRootTasks=refuse\nCgroup=off\n")
    r = eqd.ctl("reload")
    equal((r.rc, r.out), (0, ""))
    equal([line.split()[1] for line in r.err.splitlines() if "takes effect when eqd is restarted" in line], ["commands.root_tasks", "commands.cgroup"])
    equal(values(), ["99", "reduced", "auto"])
    eventually(lambda: len(told()) == 2, eqd.log_text)
    equal(sorted(json.loads(eqd.ok("reload", "--json"))["waits"]), ["commands.cgroup", "commands.root_tasks"]) # it goes on waiting
    contains("\n".join(told()), "<5>eqd: root_tasks of [Commands] ", "<5>eqd: cgroup of [Commands] ")
    orderly(eqd)
    equal(values(), ["99", "refuse", "off"])
    for _ in range(2): # nothing has changed since the start
        r = eqd.ctl("reload", "--json")
        equal((r.rc, json.loads(r.out), r.err), (0, {"waits": []}, ""))
    eventually(lambda: eqd.log_text().count("configuration loaded again") == 2, eqd.log_text) # all of the first is there
    equal(told(), [])


@test(config={"queues.d/encode.queue": GOOD})
def a_removed_file_drains_its_queue(eqd):
    events = eqd.events(events=["queue.removed"])
    os.mkfifo(eqd.dir / "work/gate")
    running = eqd.sh(": <work/gate", "-q", "encode")
    eqd.until_state(running, "RUNNING")
    (eqd.dir / "config/queues.d/encode.queue").unlink()
    eqd.ok("reload")
    r = eqd.ctl("submit", "-q", "encode", "--", "true")
    equal(r.rc, 66, str(r))
    contains(r.err, "being removed")
    equal(eqd.show(running)["state"], "RUNNING")
    (eqd.dir / "work/gate").write_text("")
    removed = events.note(lambda method, params: method == "event")[0]
    equal(removed["queue"], "encode")
    eqd.fails(66, "queue", "show", "encode")


@test(config={"queues.d/encode.queue": "[Queue]\nDurable=no\n"}, seconds=400)
def a_removed_file_runs_all_of_a_long_queue(eqd):
    events = eqd.events(events=["queue.removed"])
    os.mkfifo(eqd.dir / "work/gate")
    first = eqd.sh(": <work/gate", "-q", "encode")
    eqd.until_state(first, "RUNNING")
    eqd.ok("submit", "-q", "encode", "--each", "-", "--", "sh", "-c", "echo >>work/done", input=2000 * "x\n")
    (eqd.dir / "config/queues.d/encode.queue").unlink()
    eqd.ok("reload")
    (eqd.dir / "work/gate").write_text("")
    equal(events.note(lambda method, params: method == "event", seconds=300)[0]["queue"], "encode")
    equal(len((eqd.dir / "work/done").read_text().split("\n")) - 1, 2000)


@test(config={"queues.d/encode.queue": "[Queue]\nDurable=no\n"})
def queue_rm_cancels_what_a_removed_file_left_to_be_run(eqd):
    running, waits = (eqd.submit("-q", "encode", "--", "sleep", "1000") for _ in range(2))
    eqd.until_state(running, "RUNNING")
    (eqd.dir / "config/queues.d/encode.queue").unlink()
    eqd.ok("reload")
    events = eqd.events(events=["task.finished"])
    eqd.ok("queue", "rm", "--yes", "encode")
    ended = [events.note(lambda method, params: method == "event")[0] for _ in range(2)]
    equal({e["state"] for e in ended}, {"CANCELED"}, str(waits))


@test(config={"queues.d/encode.queue": GOOD})
def queue_rm_says_that_a_file_makes_the_queue_again(eqd):
    eqd.ok("queue", "create", "own")
    r = eqd.ctl("queue", "rm", "own", "encode")
    equal((r.rc, r.err), (0, "eqctl: encode came from a file: while queues.d/encode.queue is there, the next reload or start of eqd makes it again\n"))
    eqd.fails(66, "queue", "show", "encode")
    eqd.ok("reload")
    equal(attribute(eqd, "encode", "max_active"), "3")
    equal(eqd.ctl("--quiet", "queue", "rm", "encode").err, "")


@test()
def SIGHUP_reloads_as_well_and_survives_a_bad_file(eqd):
    events = eqd.events(events=["config."])
    eqd.configure("queues.d/encode.queue", GOOD)
    os.kill(eqd.pid, signal.SIGHUP)
    events.note(lambda method, params: method == "event" and params[0]["event"] == "config.reloaded")
    equal(attribute(eqd, "encode", "max_active"), "3")
    eqd.configure("queues.d/encode.queue", "nonsense\n")
    os.kill(eqd.pid, signal.SIGHUP)
    eqd.fails(78, "reload", says="encode.queue:1")
    equal(attribute(eqd, "encode", "max_active"), "3")


def monotonic_usec():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@test(config={"queues.d/encode.queue": GOOD}, notify=True)
def SIGHUP_tells_the_service_manager_when_it_begins_and_that_it_is_ready_again(eqd):
    """systemd takes a READY=1 as the end of the reload only if MONOTONIC_USEC is not before the signal that it sent. It is told
    the end also when the files are bad: the old configuration is in force, and nothing would ever end the wait."""
    for text, queues in ((GOOD, 3), ("nonsense\n", 3)):
        eqd.configure("queues.d/other.queue", text)
        before = monotonic_usec()
        os.kill(eqd.pid, signal.SIGHUP)
        told = [eqd.until_notified(lambda m: "RELOADING" in m or "READY" in m) for _ in range(2)]
        equal([(m.get("RELOADING"), m.get("READY")) for m in told], [("1", None), (None, "1")])
        began = int(told[0]["MONOTONIC_USEC"])
        equal(before <= began <= monotonic_usec(), True, f"MONOTONIC_USEC={began} after a signal at {before}")
        equal(told[0]["STATUS"], "Reloading")
        equal(told[1]["STATUS"], f"{queues} queues, 0 running, 0 pending")
    eqd.has_logged("configuration not loaded")


@test(config={"eqd.conf": "[Watchdog]\nWatchdogThresh=30s\nPanicOnStallTime=10s\n"})
def a_panic_before_a_stall_can_be_known_is_told_when_it_is_loaded(eqd):
    told = "<4>eqd: PanicOnStallTime=10s is less than WatchdogThresh=30s and acts as that"
    equal(eqd.has_logged(told).count(told), 1)
    for nth, (thresh, n) in enumerate(((60, 1), (5, 2)), 1):
        eqd.configure("eqd.conf", f"[Watchdog]\nWatchdogThresh=30s\nPanicOnStallTime={thresh}\n")
        eqd.ok("reload")
        eventually(lambda nth=nth: eqd.log_text().count("configuration loaded again") == nth, eqd.log_text)
        equal(eqd.log_text().count("acts as that"), n)


@test(config={"eqd.conf": "[Watchdog]\nMaydayIntervalMs=250\nCreateCooldownMs=2s\nHungTaskWarnings=-1\n",
              "pools.d/t.pool": "[Pool]\nKind=thread\nCreateCooldownMs=40\n"})
def the_kernels_names_are_taken_from_files_too(eqd):
    for name, value in (("mayday_interval", "250ms"), ("create_cooldown", "2s"), ("hung_task_warnings", "infinity")):
        contains(eqd.ok("param", "get", name), value)
    contains(eqd.ok("pool", "show", "t"), "create_cooldown=40ms")
    eqd.ok("pool", "set", "t", "create_cooldown_ms=70")
    contains(eqd.ok("pool", "show", "t"), "create_cooldown=70ms")
    eqd.configure("eqd.conf", "[Watchdog]\nMaydayIntervalMs=0\n")
    eqd.fails(78, "reload", says=["eqd.conf:2: MaydayIntervalMs: ", "1ms"])


@test(eqd=False)
def eqd_does_not_start_with_a_bad_file_and_names_it(place):
    (place.dir / "config/queues.d").mkdir(parents=True)
    (place.dir / "config/queues.d/bad.queue").write_text("[Queue]\nMaxActive=0\n")
    r = place.run_eqd("--socket", place.socket)
    equal(r.rc, 78, str(r))
    contains(r.err, "bad.queue:2", "MaxActive")


main()
