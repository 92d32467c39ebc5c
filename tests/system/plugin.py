#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Plugins: tasks that run on threads of eqd, by code that behaves and by code that does not."""

import itertools
import json
import os
import re
import shutil
import signal
import struct
import threading
import time
import zlib
from pathlib import Path

from ends import crash
from eqdtest import STOP_SECONDS, Closed, RpcError, contains, equal, eventually, main, stalls, test
from pluginkit import CONF, FINAL, ended, place_plugins, plugin_queue, plugin_test, queue_file, state, submit, until, why

# ---- ordinary use ----

@plugin_test()
def a_plugin_gets_the_payload_and_its_result_comes_back(eqd):
    c = plugin_queue(eqd)
    for data in (b"hello", b"", bytes(range(256)), b"x" * 65536):
        shown = ended(c, submit(c, data))
        equal((shown["state"], shown.get("result", b""), shown["attempt"]), ("DONE", data, 1))
    equal(eqd.submit("-q", "p", "--payload", "from eqctl"), "p/5")
    equal(ended(c, "p/5")["result"], b"from eqctl")


@plugin_test()
def a_failure_says_why_and_is_tried_again_as_configured(eqd):
    c = plugin_queue(eqd, "Backoff=10ms")
    shown = ended(c, submit(c, b"fail"))
    equal((shown["state"], shown["error"]), ("FAILED", "told to fail"))
    shown = ended(c, submit(c, b"fail", retries=2))
    equal((shown["state"], shown["attempt"]), ("DEAD", 3))
    shown = ended(c, submit(c, b"fail-final", retries=2))
    equal((shown["state"], shown["attempt"]), ("FAILED", 1))


@plugin_test()
def a_retry_keeps_its_place_on_a_serial_queue(eqd):
    c = plugin_queue(eqd, "Backoff=30ms")
    eqd.ok("queue", "pause", "p")
    first = submit(c, b"fail", retries=3)
    rest = [submit(c, b"x") for _ in range(20)]
    eqd.ok("queue", "resume", "p")
    shown = ended(c, first)
    equal(shown["state"], "DEAD")
    for task in rest:
        after = ended(c, task)
        equal(after["state"], "DONE")
        assert after["started_usec"] >= shown["started_usec"], (after, shown)


@plugin_test()
def what_is_given_back_comes_again_and_is_no_failure(eqd):
    c = plugin_queue(eqd)
    shown = ended(c, submit(c, b"give-back"))
    equal((shown["state"], shown["attempt"]), ("DONE", 2))


@plugin_test()
def results_may_come_at_the_end_of_a_batch(eqd):
    c = plugin_queue(eqd)
    eqd.ok("queue", "pause", "p")
    tasks = [submit(c, b"batch") for _ in range(200)]
    eqd.ok("queue", "resume", "p")
    for task in tasks:
        equal(ended(c, task)["state"], "DONE")


@plugin_test()
def a_task_over_several_queues_may_be_a_plugins(eqd):
    c = plugin_queue(eqd)
    eqd.ok("queue", "create", "commands")
    eqd.ok("queue", "pause", "commands")
    before = eqd.submit("-q", "commands", "--", "true")
    batch = [submit(c, b"batch") for _ in range(100)]
    both = submit(c, b"both", also=["commands"])
    rest = [submit(c, b"batch") for _ in range(100)]
    behind = eqd.submit("-q", "commands", "--", "true")
    for task in batch:
        equal(ended(c, task)["state"], "DONE")
    equal((state(c, both), why(c, both)["reason"]), ("QUEUED", "barrier"))
    equal((state(c, rest[0]), why(c, rest[0])["reason"]), ("QUEUED", "barrier"))
    eqd.ok("queue", "resume", "commands")
    shown = ended(c, both)
    equal((shown["state"], shown["result"], shown["attempt"]), ("DONE", b"both", 1))
    for task in (before, *rest, behind):
        equal(ended(c, task)["state"], "DONE")
    failing = submit(c, b"fail", also=["commands"], retries=1, backoff_usec=10000)
    equal((ended(c, failing)["state"], ended(c, failing)["attempt"]), ("DEAD", 2))
    later = submit(c, b"defer", also=["commands"])
    equal((ended(c, later)["state"], ended(c, later)["result"]), ("DONE", b"later"))


@plugin_test()
def T_DRAIN_a_chain_of_tasks_is_run_while_outsiders_are_refused(eqd):
    """Depth 5; then one of 25, which is told once: it has the chance to have no end."""
    c, other, start = plugin_queue(eqd), eqd.connect(), 1
    for depth in (5, 25):
        eqd.ok("queue", "pause", "p")
        submit(c, b"deep p\0" + bytes([depth]))
        msgid = other.send("queue_drain", "p")
        eventually(lambda: eqd.queue("p")["state"] == "draining", "it drains")
        eqd.fails(75, "submit", "-q", "p", "--payload", "x", says="draining")
        eqd.ok("queue", "resume", "p")
        other.reply(msgid)
        tasks = [f"p/{n}" for n in range(start, start + depth + 1)]
        equal([state(c, t) for t in tasks], len(tasks) * ["DONE"])
        start += depth + 1
        equal(eqd.ctl("show", f"p/{start}").rc, 66, "and no more")
    log = eqd.has_logged("<4>eqd: workqueue p: drain_workqueue() isn't complete after 10 tries")
    equal(log.count("drain_workqueue"), 1)


@plugin_test()
def deferred_tasks_end_when_they_are_completed(eqd):
    c = plugin_queue(eqd)
    for payload, result in ((b"defer", b"later"), (b"defer-at-once", b"now")):
        shown = ended(c, submit(c, payload))
        equal((shown["state"], shown["result"]), ("DONE", result))
    for_ever = submit(c, b"defer-for-ever")
    until(c, for_ever, "RUNNING")
    queue_file(eqd, "p", "trial", "PluginConfig=other")
    eqd.ok("reload") # closes the plugin and opens it anew
    shown = ended(c, for_ever)
    equal(shown["state"], "FAILED")
    contains(shown["error"], "closed before it completed it")
    equal(ended(c, submit(c, b"again"))["state"], "DONE")


@plugin_test()
def a_task_may_submit_another_for_its_user(eqd):
    c = plugin_queue(eqd)
    queue_file(eqd, "next")
    eqd.ok("reload")
    equal(ended(c, submit(c, b"chain next\0"))["state"], "DONE")
    shown = ended(c, "next/1")
    equal((shown["state"], shown["result"], shown["uid"]), ("DONE", b"chained", os.geteuid()))
    equal(ended(c, submit(c, b"chain nowhere\0"))["state"], "DONE", "a refusal does not change the task")
    eventually(lambda: "no queue nowhere" in eqd.log_text(), "the refusal is logged")


# ---- cancel, control ----

def blocked(c, payload=b"until-canceled"):
    """A task that runs until it is canceled."""
    task = submit(c, payload)
    until(c, task, "RUNNING")
    return task


@plugin_test()
def cancel_is_0_before_a_task_has_begun_1_while_it_runs_and_minus_1_after_that(eqd):
    c = plugin_queue(eqd)
    first = blocked(c)
    second, third = submit(c, b"x"), submit(c, b"x")
    equal(state(c, second), "QUEUED")
    equal(c.call("cancel", [second, first]), [0, 1])
    equal(state(c, first), "RUNNING")
    equal(c.call("cancel", [first], running=True), [1])
    equal(ended(c, first)["state"], "CANCELED")
    equal(ended(c, third)["state"], "DONE")
    equal(c.call("cancel", [first, second, third]), [-1, -1, -1])


@plugin_test()
def waiting_tasks_say_what_they_wait_for(eqd):
    c = plugin_queue(eqd)
    first, second = blocked(c), submit(c, b"x")
    contains(eqd.ok("why", "p/1"), "the plugin has had it for")
    equal(why(c, second)["reason"], "serial")
    equal([q["running"] for q in c.call("queue_list") if q["name"] == "p"], [1])
    eqd.ok("queue", "pause", "p")
    equal(why(c, second)["reason"], "paused")
    c.call("cancel", [first], running=True)
    ended(c, first)
    equal(state(c, second), "QUEUED")
    eqd.ok("queue", "resume", "p")
    equal(ended(c, second)["state"], "DONE")


@plugin_test()
def hold_expiry_and_urgent_hold_for_tasks_that_were_handed_over(eqd):
    c = plugin_queue(eqd)
    first = blocked(c)
    expires = submit(c, b"x", expire_usec=10_000)
    held, normal, urgent = submit(c, b"held"), submit(c, b"normal"), submit(c, b"urgent", urgent=True)
    eqd.ok("hold", "p/3")
    equal(ended(c, expires)["state"], "EXPIRED")
    equal(state(c, held), "WAITING")
    c.call("cancel", [first], running=True)
    order = [ended(c, t)["started_usec"] for t in (urgent, normal)]
    assert order == sorted(order), order
    eqd.ok("release", "p/3")
    equal(ended(c, held)["state"], "DONE")


@plugin_test()
def drain_flush_stop_and_join_wait_for_what_was_handed_over(eqd):
    c, other = plugin_queue(eqd), eqd.connect()
    for verb in ("queue_flush", "queue_drain"):
        first, second = blocked(c), submit(c, b"x")
        msgid = other.send(verb, "p")
        equal(other.receive(0.05), False, verb)
        c.call("cancel", [first], running=True)
        other.reply(msgid)
        equal(state(c, second), "DONE")
    c.call("queue_stop", "p")
    other.call("queue_join", "p")
    eqd.fails(75, "submit", "-q", "p", "--payload", "x")


@plugin_test()
def max_active_runs_as_many_at_once(eqd):
    c = plugin_queue(eqd, "MaxActive=4")
    tasks = [blocked(c) for _ in range(4)]
    fifth = submit(c, b"x")
    equal(why(c, fifth)["reason"], "max-active")
    c.call("cancel", tasks, running=True)
    for task in (*tasks, fifth):
        assert ended(c, task)["state"] in FINAL


@plugin_test()
def a_rate_bounds_how_often_tasks_begin_however_long_they_run(eqd):
    """A burst of two, then one each second and a half, though nobody hears of a task before its end; and after a reload."""
    c = plugin_queue(eqd, "MaxActive=100", "Rate=2/3s", "RateBurst=2")
    before = time.time_ns() // 1000
    tasks = [blocked(c) for _ in range(2)]
    late = [submit(c, b"until-canceled") for _ in range(3)]
    until(c, late[2], "RUNNING")
    begun = [c.call("show", [t])[0]["started_usec"] for t in late]
    # Their threads may have been late with the first two: what counts is when these were let go, not before they were submitted.
    equal([t - before >= n * 1_490_000 for n, t in enumerate(begun, 1)], [True] * 3, f"{begun} after {before}")
    plugin_queue(eqd, "MaxActive=100", "Rate=1/1h")
    late.append(submit(c, b"until-canceled"))
    late.append(submit(c, b"until-canceled"))
    eventually(lambda: why(c, late[4])["reason"] == "rate", lambda: str(why(c, late[4])))
    equal(state(c, late[4]), "QUEUED")
    plugin_queue(eqd, "MaxActive=100")
    until(c, late[4], "RUNNING")
    c.call("cancel", [*tasks, *late], running=True)
    for task in (*tasks, *late):
        assert ended(c, task)["state"] in FINAL


# ---- pools of threads ----

def pool(c, name):
    return next((p for p in c.call("pool_list") if p["name"] == name), None)


@plugin_test()
def queues_of_different_pools_take_no_thread_from_each_other(eqd):
    eqd.configure("pools.d/slow.pool", "[Pool]\nKind=thread\nMaxWorkers=2\n")
    c = plugin_queue(eqd, "Pool=slow", "MaxActive=8")
    queue_file(eqd, "f", "trial")
    eqd.ok("reload")
    tasks = [blocked(c) for _ in range(2)]
    third = submit(c, b"x")
    eventually(lambda: pool(c, "slow")["busy"] == 2, "two run")
    equal((pool(c, "slow")["slots"], pool(c, "slow")["made"], pool(c, "slow")["kind"]), (2, 2, "thread"))
    equal(ended(c, submit(c, b"x", "f"))["state"], "DONE")
    equal((state(c, third), why(c, third)["reason"]), ("QUEUED", "pool-full"))
    contains(why(c, third)["detail"], "eqctl pool set slow max_workers=N")
    eqd.ok("pool", "set", "slow", "max_workers=3")
    equal(ended(c, third)["state"], "DONE")
    c.call("cancel", tasks, running=True)
    for task in tasks:
        assert ended(c, task)["state"] in FINAL


@plugin_test()
def a_plugins_queue_moves_to_another_pool_and_the_empty_one_goes(eqd):
    c = plugin_queue(eqd)
    eqd.configure("pools.d/other.pool", "[Pool]\nKind=thread\n")
    task = blocked(c)
    waits = [submit(c, b"x") for _ in range(50)]
    queue_file(eqd, "p", "trial", "Pool=other")
    eqd.ok("reload")
    equal((pool(c, "plugin")["busy"], state(c, task)), (1, "RUNNING"))
    c.call("cancel", [task], running=True)
    for t in waits:
        equal(ended(c, t)["state"], "DONE")
    equal(pool(c, "other")["queues"], 1)
    (eqd.dir / "config/pools.d/other.pool").unlink()
    eqd.fails(78, "reload", says="there is no pool \"other\"")
    queue_file(eqd, "p", "trial")
    eqd.ok("reload")
    equal(ended(c, submit(c, b"x"))["state"], "DONE")
    eventually(lambda: pool(c, "other") is None, "pool other goes")


@plugin_test()
def a_call_lingers_for_more_tasks(eqd):
    c = plugin_queue(eqd, "BatchMax=4", "BatchLinger=10s", plugin="trial-plain") # in less than that the four are there
    tasks = [submit(c, b"batch")] # those have their results when all have been taken
    until(c, tasks[0], "RUNNING")
    tasks += [submit(c, b"batch") for _ in range(2)]
    equal([state(c, t) for t in tasks], ["RUNNING", "QUEUED", "QUEUED"])
    tasks.append(submit(c, b"batch"))
    equal([ended(c, t)["state"] for t in tasks], 4 * ["DONE"])


@plugin_test()
def a_dedicated_queue_has_a_thread_of_its_own(eqd):
    eqd.configure("pools.d/one.pool", "[Pool]\nKind=thread\nMaxWorkers=1\n")
    queue_file(eqd, "other", "trial", "Pool=one")
    c = plugin_queue(eqd, "Pool=one", "Dedicated=yes")
    blocks = submit(c, b"block", "other") # the only thread of the pool
    until(c, blocks, "RUNNING")
    equal(ended(c, submit(c, b"x"))["state"], "DONE")
    queue_file(eqd, "p", "trial", "Pool=one") # and is no longer
    eqd.ok("reload")
    waits = submit(c, b"x")
    c.call("cancel", [blocks], running=True)
    equal(ended(c, waits)["state"], "DONE")
    more = itertools.count()

    def is_joined():
        """As one that is on its way out may be when the queue is there again: then it goes with the next that is started."""
        queue_file(eqd, f"more-{next(more)}", "trial", "Pool=one")
        eqd.ok("reload")
        return threads(eqd, "eqw/queue") == []
    eventually(is_joined, lambda: f"{threads(eqd, 'eqw/')}")


@plugin_test()
def a_queue_of_a_plugin_names_a_pool_of_threads(eqd):
    plugin_queue(eqd)
    queue_file(eqd, "p", "trial", "Pool=video")
    eqd.configure("pools.d/video.pool", "[Pool]\nSlots=2\n")
    eqd.fails(78, "reload", says="name a pool with Kind=thread")


# ---- the examples ----

def records(path):
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (n,) = struct.unpack_from(">I", data, at)
        found.append((at, data[at + 4:at + 4 + n]))
        at += 4 + n
    equal(at, len(data))
    return found


@plugin_test(seconds=300)
def records_of_many_producers_are_in_the_file_in_the_order_of_each(eqd):
    producers, each, per_call = 8, 12_500, 500
    file = eqd.dir / "work" / "records"
    plugin_queue(eqd, f"PluginConfig={file}", "BatchMax=1000", plugin="append")
    failures = []

    def produce(number):
        try:
            c = eqd.connect()
            for at in range(0, each, per_call):
                c.call("submit_many", "p", [b"%d %d" % (number, i) for i in range(at, at + per_call)])
        except Exception as e: # pylint: disable=broad-except
            failures.append(e)

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(producers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal(failures, [])
    eqd.ok("queue", "flush", "p", seconds=200)
    found = records(file)
    equal(len(found), producers * each)
    for number in range(producers):
        mine = [int(r.split()[1]) for _, r in found if r.startswith(b"%d " % number)]
        equal(mine, list(range(each)), f"producer {number}")
    shown = eqd.queue("p")
    equal((shown["done"], shown.get("failed", 0)), (producers * each, 0))
    c = eqd.connect()
    last = ended(c, f"p/{producers * each}")
    equal(int(last["result"]), found[-1][0], "the result is the offset of the record")
    (eqd.dir / "config/queues.d/p.queue").unlink()
    eqd.ok("reload")
    eventually(lambda: eqd.ctl("queue", "show", "p").rc == 66, "the queue goes, and its plugin closes the file")


@plugin_test()
def compressed_payloads_are_what_zlib_makes_of_them(eqd):
    c = plugin_queue(eqd, "MaxActive=4", "PluginConfig=level=9", plugin="zlib")
    payloads = [os.urandom(50) * n for n in (0, 1, 100, 2000)] + [b"a" * (1 << 20)]
    for payload, task in [(p, submit(c, p)) for p in payloads]:
        shown = ended(c, task)
        equal(shown["state"], "DONE")
        equal(zlib.decompress(shown["result"]), payload)
    shown = ended(c, submit(c, os.urandom(70_000)))
    equal(shown["state"], "FAILED")
    contains(shown["error"], "larger than a result may be")


# ---- plugins that do not behave ----

@plugin_test()
def a_task_without_a_result_has_failed_and_the_second_of_two_is_refused(eqd):
    c = plugin_queue(eqd)
    shown = ended(c, submit(c, b"silent"))
    equal(shown["state"], "FAILED")
    contains(shown["error"], "without a result")
    shown = ended(c, submit(c, b"twice"))
    equal((shown["state"], shown["result"]), ("DONE", b"1"))
    equal(ended(c, submit(c, b"too-big"))["result"], b"too-big", "the plugin's second try")


@plugin_test()
def a_plugin_that_did_not_say_so_may_not_defer(eqd):
    c = plugin_queue(eqd, plugin="trial-plain")
    equal(ended(c, submit(c, b"defer"))["error"], "may not defer")


@plugin_test()
def a_plugin_that_takes_nothing_is_not_called_for_ever(eqd):
    c = plugin_queue(eqd, "PluginConfig=takes-nothing")
    task = submit(c, b"x")
    eventually(lambda: "took none" in why(c, task)["detail"], lambda: str(why(c, task)))
    equal(why(c, task)["reason"], "plugin")
    queue_file(eqd)
    eqd.ok("reload")
    equal(ended(c, task)["state"], "DONE")


@plugin_test()
def a_plugin_that_cannot_be_opened_leaves_its_tasks_waiting_until_a_reload(eqd):
    c = plugin_queue(eqd, "PluginConfig=open-fails")
    task = submit(c, b"x")
    eventually(lambda: "told to fail" in why(c, task)["detail"], lambda: str(why(c, task)))
    equal(why(c, task)["reason"], "plugin")
    eqd.has_logged("queue p: plugin ", "is not in use: told to fail")
    equal(c.call("cancel", [submit(c, b"y")]), [0])
    queue_file(eqd)
    eqd.ok("reload")
    equal(ended(c, task)["state"], "DONE")


@plugin_test()
def files_with_wrong_plugins_are_refused_with_file_and_line(eqd):
    plugins = eqd.dir / "plugins"
    shutil.copy(plugins / "trial.so", plugins / "open.so")
    (plugins / "open.so").chmod(0o777)
    (plugins / "text.so").write_text("no shared object")
    (plugins / "link.so").symlink_to("trial.so")
    for plugin, says in (("trial-old", "ABI 77"), ("trial-no-symbol", "no symbol eq_plugin_entry"),
                         ("trial-no-execute", "no execute"), ("trial-flags", "flags 0x80"), ("open", "chmod go-w"),
                         ("text", "cannot load"), ("link", "symbolic link"), ("missing", "No such file")):
        queue_file(eqd, "p", plugin)
        eqd.fails(78, "reload", says=["p.queue:3: Plugin: ", says])
    queue_file(eqd, path="relative.so")
    eqd.fails(78, "reload", says=["p.queue:3: Plugin: ", "no absolute path"])
    eqd.configure("queues.d/p.queue", "[Queue]\nExecutor=plugin\n")
    eqd.fails(78, "reload", says=["p.queue", "needs Plugin="])
    eqd.configure("queues.d/p.queue", f"[Queue]\nPlugin={plugins / 'trial.so'}\n")
    eqd.fails(78, "reload", says=["p.queue", "without Executor=plugin"])
    (eqd.dir / "config/queues.d/p.queue").unlink()
    eqd.configure("eqd.conf", f"{CONF}[Queue]\nPlugin={plugins / 'trial.so'}\n")
    eqd.fails(78, "reload", says=["eqd.conf:4: Plugin: only the file of a queue"])
    eqd.configure("eqd.conf", CONF)
    queue_file(eqd)
    (eqd.dir / "config/queues.d/p.queue").chmod(0o666)
    eqd.fails(78, "reload", says=["p.queue:3: Plugin: ", "nobody else may write"])
    eqd.fails(66, "queue", "show", "p")
    (eqd.dir / "config/queues.d/p.queue").chmod(0o644)
    eqd.ok("reload")
    equal(ended(eqd.connect(), eqd.submit("-q", "p", "--payload", "x"))["state"], "DONE")


@plugin_test(root=True)
def an_eqd_that_runs_commands_as_others_takes_no_plugins(eqd):
    eqd.configure("eqd.conf", "")
    queue_file(eqd)
    eqd.fails(78, "reload", says=["p.queue:3: Plugin: not where eqd runs commands as other users"])


@plugin_test()
def clients_cannot_name_plugins(eqd):
    c = plugin_queue(eqd)
    for args in (("create", "q", "executor=plugin"), ("create", "q", "plugin=/x.so"), ("set", "default", "executor=plugin"),
                 ("set", "p", "executor=command"), ("set", "p", "plugin=/x.so"), ("set", "p", "plugin_config=x")):
        eqd.fails(2, "queue", *args, says="file")
    for options, word in (({"argv": ["true"]}, "argv"), ({"timeout_usec": 1000}, "timeout")):
        try:
            submit(c, b"x", **options)
            raise AssertionError(f"{word} was accepted")
        except RpcError as e:
            contains(str(e), word)


# ---- reload, removal, end ----

@plugin_test()
def reloads_under_load_lose_nothing(eqd):
    c, control = plugin_queue(eqd, "MaxActive=2"), eqd.connect()
    tasks = []
    for i in range(20):
        tasks += [submit(c, b"%d" % i) for i in range(50)]
        queue_file(eqd, "p", "trial", "MaxActive=2", f"PluginConfig=round {i}", f"BatchMax={1 + i % 3}")
        control.call("reload")
    for task in tasks:
        equal(ended(c, task)["state"], "DONE")
    equal(eqd.queue("p").get("failed", 0), 0)


@plugin_test()
def the_plugin_of_a_removed_queue_is_closed_before_the_name_is_free(eqd):
    c = plugin_queue(eqd)
    for _ in range(5):
        task = blocked(c)
        pending = submit(c, b"x")
        c.call("queue_rm", "p", yes=True)
        eqd.ok("reload") # its file is still there
        equal(ended(c, submit(c, b"again"))["state"], "DONE")
        for gone in (task, pending):
            try:
                ended(c, gone)
                raise AssertionError("a task of a removed queue is known")
            except RpcError as e:
                contains(str(e), "queue")


@plugin_test()
def a_queue_whose_file_is_gone_runs_what_it_has_and_goes(eqd):
    c = plugin_queue(eqd)
    first, last = blocked(c), submit(c, b"x")
    wait = eqd.connect()
    msgid = wait.send("wait", [last])
    (eqd.dir / "config/queues.d/p.queue").unlink()
    eqd.ok("reload")
    c.call("cancel", [first], running=True)
    equal(wait.reply(msgid)[0]["state"], "DONE")
    eventually(lambda: eqd.ctl("queue", "show", "p").rc == 66, "the queue goes")


@plugin_test()
def tasks_of_a_durable_queue_go_on_with_the_plugin_after_a_crash(eqd):
    c = plugin_queue(eqd, "Durable=yes")
    before, first = ended(c, submit(c, b"before")), blocked(c)
    rest = [submit(c, b"%d" % i) for i in range(100)]
    crash(eqd, ("--user",))
    c = eqd.connect()
    equal(c.call("show", [before["id"]])[0]["state"], "DONE", "what had ended does not run again")
    until(c, first, "RUNNING")
    c.call("cancel", [first], running=True)
    for i, task in enumerate(rest):
        shown = ended(c, task)
        equal((shown["state"], shown["result"]), ("DONE", b"%d" % i))


@plugin_test()
def a_plugin_with_at_most_once_gets_tasks_whose_start_is_on_the_disk(eqd):
    c = plugin_queue(eqd, "Durable=yes", "AtMostOnce=yes", "MaxActive=4", "Backoff=10ms")
    tasks = [submit(c, b"%d" % i) for i in range(60)]
    for i, task in enumerate(tasks):
        shown = ended(c, task)
        equal((shown["state"], shown["result"], shown["attempt"]), ("DONE", b"%d" % i, 1))
    equal([ended(c, submit(c, data, retries=2))["attempt"] for data in (b"fail", b"give-back")], [3, 2])
    running, waits = blocked(c), submit(c, b"x")
    equal(ended(c, waits)["state"], "DONE")
    crash(eqd, ("--user",))
    c = eqd.connect()
    equal([c.call("show", [running])[0][f] for f in ("state", "reason")], ["FAILED", "lost"])
    equal(ended(c, submit(c, b"next"))["state"], "DONE")
    blocked(c) # the frame stops eqd while it runs


def lives(eqd, c, payload, **options):
    """Starts eqd as often as this task kills it. How often that was; the task as it ended."""
    tasks, n = [t["id"] for t in c.call("list", queue="p")], 0
    try:
        submit(c, payload, **options)
    except Closed: # eqd was killed before the answer was on its way
        pass
    while True:
        try:
            eqd.expect_end(120, -signal.SIGKILL)
        except AssertionError:
            break # the task is no more
        n += 1
        equal(n < 8, True, "it is run again and again")
        eqd.close_connections()
        eqd.forget()
        try:
            eqd.start(("--user",))
            there = [t for t in eqd.connect().call("list", queue="p") if t["id"] not in tasks]
            shown = eqd.connect().call("show", [there[0]["id"]])[0]
            if shown["state"] in FINAL:
                return n, shown
        except (AssertionError, Closed, OSError): # it may be killed as soon as the plugin is open
            pass
    raise AssertionError(f"{payload} does not kill eqd\n{eqd.log_text()}")


@plugin_test()
def a_task_whose_plugin_kills_eqd_at_once_ends_as_dead(eqd):
    """Long before the loop hears that it has begun; also after a retry, and after it was given back."""
    eqd.ok("param", "set", "max_crashes=3")
    for payload, before in ((b"die-at-once", 0), (b"die-after-failure", 1), (b"die-after-return", 1)):
        c = plugin_queue(eqd, "Durable=yes", "Retries=9", "Backoff=0")
        n, shown = lives(eqd, c, payload)
        equal((shown["state"], shown["reason"], shown["crashes"]), ("DEAD", "lost", 3), f"{payload} {shown}")
        # What became of the attempt before may not have been on the disk: then it counts as well.
        equal(3 - before <= n <= 3, True, f"{n} times {payload} {shown}")
        equal(shown["attempt"], n + before, f"{payload} {shown}")
        c = eqd.connect()
        equal(ended(c, submit(c, b"next"))["state"], "DONE")


@plugin_test()
def running_tasks_are_asked_to_end_when_eqd_stops(eqd):
    c = plugin_queue(eqd)
    blocked(c)
    submit(c, b"x")
    # The frame stops eqd and wants exit status 0 and nothing left.


@plugin_test(env={"EQD_FAULT": "worker:2+"})
def a_refused_thread_is_a_reason_and_not_an_end(eqd):
    """The first thread makes the others, and none of those can be made."""
    queue_file(eqd)
    eqd.ok("reload")
    c = eqd.connect()
    task = submit(c, b"x")
    eventually(lambda: why(c, task)["reason"] == "create-failure", lambda: str(why(c, task)))
    contains(why(c, task)["detail"], "no thread can be created now: Resource temporarily unavailable")
    equal(c.call("cancel", [task]), [0])
    eqd.process.send_signal(signal.SIGTERM)
    eqd.expect_end(STOP_SECONDS, 1)
    eqd.has_logged("no thread to close plugins with")


# In memory: the store of a machine with other work may not answer for so long, which is told as well.
WATCH = CONF + "[Queue]\nDurable=no\n[Watchdog]\nWatchdogThresh=700ms\nHungTaskTimeoutSecs=1s\n"


def stall(events, kind, **fields):
    return events.note(lambda method, p: method == "event" and p[0]["event"] == kind and
                       all(p[0].get(k) == v for k, v in fields.items()))[0]


@plugin_test()
def W10_tasks_that_were_claimed_behind_one_that_blocks_are_a_stall_of_the_pool(eqd):
    eqd.configure("eqd.conf", WATCH + "[Plugins]\nPluginThreads=1\n")
    c, events = plugin_queue(eqd, "MaxActive=16"), eqd.events(events=["stall."])
    block, *others = [submit(c, payload) for payload in [b"block"] + 15 * [b"x"]]
    told = stall(events, "stall.begin", pool="plugin", queue="p")
    equal((told["reason"], told["stall_usec"] >= 700_000), ("pool-full", True), told)
    eqd.has_logged("BUG: workqueue lockup - pool plugin", "pool-full, queue p with 15 pending")
    c.call("cancel", [block], running=True)
    stall(events, "stall.end", pool="plugin")
    equal([ended(c, t)["state"] for t in others], 15 * ["DONE"])


@plugin_test()
def T_CPU_tasks_that_hog_the_cpu_are_counted_and_told_now_and_then(eqd):
    eqd.ok("param", "set", "workqueue.cpu_intensive_thresh_us=2000")
    c = plugin_queue(eqd, "BatchMax=1")
    eqd.ok("param", "set", "workqueue.cpu_intensive_thresh_us=2000") # the reload has taken it back
    for payload in (b"burn", b"nap"): # 3 ms each, and next to nothing
        for task in [submit(c, payload) for _ in range(40)]:
            ended(c, task)

    def seen():
        header, row = (line.split() for line in eqd.ok("monitor", "-i", "0", "p").splitlines()[:2])
        return dict(zip(header, row))
    # A thread counts when its call has returned, which is after the task has ended for everybody else. On a machine with other
    # work it is not certain of the first one, and what the machine's host does with its CPU may be counted as a nap's.
    eventually(lambda: int(seen()["CPUitsv"]) >= 39, seen)
    equal((int(seen()["CPUitsv"]) <= 44, float(seen()["CPUtime"]) >= 0.1), (True, True), seen())
    wanted = [f"<4>eqd: workqueue: trial:p hogged CPU for >2000us {n} times" for n in (4, 5, 7, 11, 19, 35)]
    eventually(lambda: [line for line in eqd.log_text().splitlines() if "hogged CPU" in line] == wanted, eqd.log_text)


@plugin_test()
def T_CPU_one_that_burns_for_ever_is_told_while_it_runs_and_counted_once(eqd):
    eqd.configure("eqd.conf", CONF + "[Watchdog]\nCpuIntensiveWarningThresh=1\n")
    c = plugin_queue(eqd)
    burns, sleeps = submit(c, b"until-canceled"), submit(c, b"block")
    until(c, burns, "RUNNING")
    told = "<4>eqd: workqueue: trial:p hogged CPU for >10000us"
    eventually(lambda: told in eqd.log_text(), eqd.log_text)
    equal((state(c, burns), eqd.queue("p")["cpu_intensive"]), ("RUNNING", 1))
    for task in burns, sleeps:
        c.call("cancel", [task], running=True)
        ended(c, task)
    last = submit(c, b"x")
    ended(c, last) # behind the call, in which they are counted
    equal((eqd.queue("p")["cpu_intensive"], eqd.log_text().count(told)), (1, 1))


@plugin_test()
def a_touch_is_the_sign_of_life_of_a_plugins_task(eqd):
    eqd.configure("eqd.conf", WATCH)
    c, events = plugin_queue(eqd), eqd.events(events=["stall.", "task.hung"])
    contains(eqd.ok("queue", "show", "p"), "expected_runtime=0s", "hung_task=life")
    touches, block, behind = submit(c, b"until-canceled"), submit(c, b"block"), submit(c, b"x")
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        events.receive(end - time.monotonic())
    equal(stalls(events), [])
    c.call("cancel", [touches], running=True)
    equal(stall(events, "stall.begin", queue="p")["id"], block)
    equal(stall(events, "task.hung", queue="p")["id"], block)
    c.call("cancel", [block], running=True)
    stall(events, "stall.end", queue="p")
    equal(ended(c, behind)["state"], "DONE")


# ---- where they wait ----

def flights(eqd):
    rows = [json.loads(line) for line in eqd.ok("dump", "--json").splitlines()]
    return {row["id"]: row for row in rows if "id" in row}


def name(task):
    return f"p/{task[1]}"


def thread_file(eqd, tid, file):
    return Path(f"/proc/{eqd.pid}/task/{tid}/{file}").read_text().strip()


@plugin_test()
def a_task_shows_the_thread_that_is_at_it_and_where_that_waits_and_those_behind_it_that_they_have_not_begun(eqd):
    fifo = eqd.dir / "fifo"
    os.mkfifo(fifo)
    eqd.configure("eqd.conf", WATCH + "[Plugins]\nPluginThreads=1\n")
    c, events = plugin_queue(eqd, "MaxActive=16"), eqd.events(events=["stall.", "task.hung"])
    block, behind = submit(c, b"fifo " + bytes(fifo)), submit(c, b"x")
    until(c, block, "RUNNING")
    equal(stall(events, "task.hung", queue="p")["id"], block)
    row, claimed = flights(eqd)[name(block)], flights(eqd)[name(behind)]
    tid = row["tid"]
    contains(thread_file(eqd, tid, "comm"), "eqw/plugin:")
    equal(row["process"], "S", str(row))
    equal(row.get("system_call"), int(thread_file(eqd, tid, "syscall").split()[0]), str(row))
    equal(row.get("wchan", "0"), thread_file(eqd, tid, "wchan") or "0", str(row))
    equal([field in row for field in ("run_usec", "claimed_usec", "pid", "cpu_usec", "rescued")], [True] + 4 * [False], str(row))
    equal([field in claimed for field in ("run_usec", "claimed_usec", "tid")], [False, True, False], str(claimed))
    table = eqd.ok("dump").split("\n\n")[2]
    equal(re.search(rf"^{name(block)} +plugin +\d+ +[0-9.]+s +- +{tid} +S", table, re.M) is not None, True, table)
    equal(re.search(rf"^{name(behind)} +plugin +\d+ +- +- +- +claimed [0-9.]+m?s", table, re.M) is not None, True, table)
    at = f"S in {row['wchan']}, system call {row['system_call']}" if "wchan" in row else "S"
    eqd.has_logged(f"INFO: task p/#{block[1]}:{tid} blocked for more than 1 seconds, state {at}")
    fifo.write_bytes(b"x")
    equal([ended(c, t)["state"] for t in (block, behind)], ["DONE", "DONE"])


@plugin_test()
def the_dump_of_a_stuck_pool_says_where_threads_wait_and_how_much_they_have_claimed(eqd):
    fifo = eqd.dir / "fifo"
    os.mkfifo(fifo)
    eqd.configure("eqd.conf", WATCH + "[Plugins]\nPluginThreads=1\n")
    c, events = plugin_queue(eqd, "MaxActive=16"), eqd.events(events=["stall."])
    block, *others = [submit(c, payload) for payload in [b"fifo " + bytes(fifo)] + 5 * [b"x"]]
    stall(events, "stall.begin", pool="plugin", queue="p")
    row = flights(eqd)[name(block)]
    log = eqd.has_logged("<6>eqd: queue p: pending=0 claimed=5 in-flight=1 max_active=16",
                         f"<6>eqd: in-flight {name(block)} thread {row['tid']} for ")
    equal(re.search(rf"in-flight {name(block)} thread {row['tid']} for \ds, state S", log) is not None, True, log)
    equal(log.count("<6>eqd: in-flight "), 1, "what has not begun waits nowhere")
    fifo.write_bytes(b"x")
    equal([ended(c, t)["state"] for t in others], 5 * ["DONE"])


# ---- rescuers: a thread that waits for its queue alone ----

def threads(eqd, prefix="eqw/R-"):
    names = []
    for thread in Path(f"/proc/{eqd.pid}/task").iterdir():
        try:
            names.append((thread / "comm").read_text().strip())
        except OSError: # it has just ended
            pass
    return sorted(name for name in names if name.startswith(prefix))


def has_rescuers(eqd, names):
    """A thread gives itself its name, and ends by itself, a moment later."""
    eventually(lambda: threads(eqd) == names, lambda: f"{threads(eqd)}, not {names}")


def block_z(eqd, c):
    """The one thread that there is."""
    equal(ended(c, submit(c, b"x", "z"))["state"], "DONE")
    block = submit(c, b"block", "z")
    until(c, block, "RUNNING")
    return block


def monitored(eqd, name):
    header, row = (line.split() for line in eqd.ok("monitor", "-i", "0", name).splitlines()[:2])
    return dict(zip(header, row))


def one_thread_test(fault):
    """The seam of threads counts what makes those of the pool, the one that there is, and what comes then."""
    return test(user=True, config={"eqd.conf": CONF + "[Plugins]\nPluginThreads=1\n"}, change=place_plugins,
                env={"EQD_FAULT": fault})


@one_thread_test("worker:4+") # the third is the rescuer
def S1_tasks_are_rescued_one_by_one_while_no_thread_can_be_made(eqd):
    with eqd.connect() as first:
        equal(ended(first, submit(first, b"x", "z"))["state"], "DONE") # so that its thread is the first
    c = plugin_queue(eqd, "Rescuer=yes", "MaxActive=8", "RescueOn=create-failure,pool-full")
    has_rescuers(eqd, ["eqw/R-p"])
    eqd.ok("pool", "set", "plugin", "max_workers=4")
    eqd.ok("queue", "set", "z", "max_active=8")
    block = block_z(eqd, c)
    behind = submit(c, b"x", "z")
    tasks = [submit(c, b"x") for _ in range(20)]
    for task in tasks:
        equal(ended(c, task)["attempt"], 1)
    q = eqd.queue("p")
    equal((q["mayday"] >= 1, q["rescued"]), (True, 20), str(q))
    eqd.has_logged("queue p: mayday, rescuer active (create-failure: Resource temporarily unavailable)",
                   "<4>eqd: workqueue: Failed to create a worker thread: EAGAIN")
    shown = why(c, behind)
    equal((shown["reason"], "no further thread" in shown["detail"]), ("create-failure", True), str(shown))
    pool = c.call("pool_show", "plugin")
    equal((pool["mayday"], pool["rescued"], pool["reason"]), (q["mayday"], 20, "create-failure"), str(pool))
    equal((monitored(eqd, "p")["mayday"], monitored(eqd, "p")["rescued"]), (str(q["mayday"]), "20"))
    equal(monitored(eqd, "p")["CMW/RPR"].isdigit(), True)
    # One that blocks the rescuer: it is shown as rescued at once, and those behind it can be canceled.
    held, last = submit(c, b"block"), submit(c, b"x")
    until(c, held, "RUNNING")
    eventually(lambda: eqd.queue("p")["rescued"] == 21, "it counts while it runs")
    tables = eqd.ok("dump").split("\n\n")
    contains(tables[1], "MAYDAY  RESCUED")
    rows = flights(eqd)
    equal((rows[name(held)]["rescued"], "rescued" in rows[f"z/{block[1]}"]), (True, False), str(rows))
    equal(thread_file(eqd, rows[name(held)]["tid"], "comm"), "eqw/R-p")
    equal(re.search(rf"^{name(held)} .* rescued [RS]", tables[2], re.M) is not None, True, tables[2])
    equal(c.call("pool_show", "plugin")["rescuing"], 1)
    equal(c.call("cancel", [last]), [0])
    c.call("cancel", [held], running=True)
    ended(c, held)
    c.call("cancel", [block], running=True)
    equal(ended(c, behind)["state"], "DONE")
    equal(state(c, last), "CANCELED")


@one_thread_test("worker:3+")
def S11_a_queue_whose_rescuer_cannot_be_made_does_not_exist(eqd):
    c = eqd.connect()
    equal(ended(c, submit(c, b"x", "z"))["state"], "DONE")
    queue_file(eqd, "p", "trial", "Rescuer=yes")
    eqd.fails(75, "reload", says=["the thread that is to wait for queue p", "Resource temporarily unavailable"])
    equal("p" in [line.split()[0] for line in eqd.ok("queue", "ls").splitlines()], False)
    eqd.fails(75, "queue", "set", "z", "rescuer=shared", says="rescuer: the thread")
    contains(eqd.queue("z")["set"], "rescuer=no")
    has_rescuers(eqd, [])


@plugin_test()
def a_full_pool_of_threads_is_a_reason_to_call_and_queues_can_share_the_rescuer(eqd):
    eqd.configure("eqd.conf", CONF + "[Plugins]\nPluginThreads=1\n[Watchdog]\nRescueFullDelay=50ms\n")
    queue_file(eqd, "r", "trial", "Rescuer=shared")
    c = plugin_queue(eqd, "Rescuer=shared")
    has_rescuers(eqd, ["eqw/R-shared"])
    block = block_z(eqd, c)
    equal(ended(c, submit(c, b"x"))["state"], "DONE")
    equal(ended(c, submit(c, b"x", "r"))["state"], "DONE")
    eqd.has_logged("queue p: mayday, rescuer active (pool-full)")
    equal((eqd.queue("p")["rescued"], eqd.queue("r")["rescued"], eqd.queue("z")["rescued"]), (1, 1, 0))
    eqd.ok("queue", "set", "p", "rescuer=no")
    has_rescuers(eqd, ["eqw/R-shared"])
    eqd.ok("queue", "set", "r", "rescuer=yes")
    has_rescuers(eqd, ["eqw/R-r"])
    c.call("cancel", [block], running=True)
    ended(c, block)


def nice_of(eqd, name):
    """None: there is no such thread, or not yet."""
    for thread in Path(f"/proc/{eqd.pid}/task").iterdir():
        try:
            if (thread / "comm").read_text().strip() == name:
                return int((thread / "stat").read_text().rsplit(")", 1)[1].split()[16])
        except OSError: # it has just ended
            pass
    return None


@plugin_test()
def a_rescuer_has_the_nice_level_of_the_settings(eqd):
    own = os.getpriority(os.PRIO_PROCESS, eqd.pid)
    eqd.configure("eqd.conf", CONF + f"[Watchdog]\nRescuerNice={min(own + 3, 19)}\n")
    plugin_queue(eqd, "Rescuer=yes")
    eventually(lambda: nice_of(eqd, "eqw/R-p") == min(own + 3, 19), lambda: str(nice_of(eqd, "eqw/R-p")))
    eqd.ok("queue", "set", "p", "rescuer=no")
    eqd.configure("eqd.conf", CONF + "[Watchdog]\nRescuerNice=-20\n")
    eqd.ok("reload")
    eqd.ok("queue", "set", "p", "rescuer=yes")
    eventually(lambda: nice_of(eqd, "eqw/R-p") == own, lambda: str(nice_of(eqd, "eqw/R-p"))) # a right that eqd has not


if __name__ == "__main__":
    main()
