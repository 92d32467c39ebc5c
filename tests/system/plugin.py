#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Plugins: tasks that run on threads of eqd, by code that behaves and by code that does not."""

import os
import shutil
import signal
import struct
import threading
import zlib

from eqdtest import BUILD, RpcError, contains, equal, eventually, main, test

# A user instance takes plugins that its own user owns. As root it could run commands as others, and takes none before that is off.
CONF = "[Commands]\nIdentity=own\n"
FINAL = ("DONE", "FAILED", "CANCELED", "EXPIRED", "DEAD")


def place_plugins(eqd):
    """Copies, whose directories are nobody else's. And a first queue, with which eqd makes what it keeps for all of them."""
    plugins = eqd.dir / "plugins"
    plugins.mkdir(mode=0o755)
    for built in (*(BUILD / "tests/plugins").glob("*.so"), *(BUILD / "client/examples/plugins").glob("*.so")):
        shutil.copy(built, plugins / built.name)
        (plugins / built.name).chmod(0o755)
    queue_file(eqd, "z", "trial-plain")


def queue_file(eqd, name="p", plugin="trial", *more, path=None):
    lines = ["[Queue]", "Executor=plugin", f"Plugin={path or eqd.dir / 'plugins' / (plugin + '.so')}", *more, ""]
    eqd.configure(f"queues.d/{name}.queue", "\n".join(lines))


def plugin_test(**options):
    return test(user=True, config={"eqd.conf": CONF}, change=place_plugins, **options)


def plugin_queue(eqd, *more, plugin="trial", name="p"):
    queue_file(eqd, name, plugin, *more)
    eqd.ok("reload")
    return eqd.connect()


def submit(c, payload, queue="p", **options):
    return c.call("submit", queue, payload, **options)


def ended(c, task):
    return c.call("wait", [task])[0]


def state(c, task):
    return c.call("show", [task])[0]["state"]


def why(c, task):
    return c.call("why", [task])[0]


def until(c, task, wanted):
    eventually(lambda: state(c, task) == wanted, lambda: f"{task} is {state(c, task)}, not {wanted}", seconds=60)


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
    contains(eqd.log_text(), "queue p: plugin ", "is not in use: told to fail")
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
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.expect_end(20, -signal.SIGKILL)
    eqd.forget()
    eqd.start(("--user",))
    c = eqd.connect()
    equal(c.call("show", [before["id"]])[0]["state"], "DONE", "what had ended does not run again")
    until(c, first, "RUNNING")
    c.call("cancel", [first], running=True)
    for i, task in enumerate(rest):
        shown = ended(c, task)
        equal((shown["state"], shown["result"]), ("DONE", b"%d" % i))


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
    eqd.expect_end(20, 1)
    contains(eqd.log_text(), "no thread to close plugins with")


if __name__ == "__main__":
    main()
