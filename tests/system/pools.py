#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Pools: from files and by hand, their bounds, and queues that move."""

import os
import signal

from eqdtest import USER_A, contains, equal, eventually, main, test

VIDEO = "[Pool]\nSlots=2\nDescription=encoders\n"


def pool(eqd, name):
    return next((p for p in eqd.connect().call("pool_list") if p["name"] == name), None)


def sleepers(eqd, queue, n):
    tasks = [eqd.submit("-q", queue, "--", "sleep", "1000") for _ in range(n)]
    for task in tasks:
        eqd.until_state(task, "RUNNING")
    return tasks


def why(eqd, task):
    return eqd.connect().call("why", [task])[0]


@test(config={"pools.d/video.pool": VIDEO, "queues.d/a.queue": "[Queue]\nPool=video\nMaxActive=9\n",
              "queues.d/b.queue": "[Queue]\nPool=video\nMaxActive=9\n"})
def the_pool_of_a_file_bounds_what_runs_over_its_queues(eqd):
    tasks = sleepers(eqd, "a", 2)
    waits = eqd.submit("-q", "b", "--", "true")
    contains(eqd.ok("why", waits), "slots", "all slots of pool video are taken, 2 in all")
    eqd.ends_as(eqd.submit("--", "true"), "DONE")
    video = pool(eqd, "video")
    equal((video["slots"], video["busy"], video["queues"], video["started"], video["origin"]), (2, 2, 2, 2, "file"))
    eqd.ok("cancel", tasks[0])
    eqd.ends_as(waits, "DONE")
    eqd.ok("cancel", tasks[1])


@test()
def slots_are_set_while_tasks_run_and_stop_none(eqd):
    eqd.ok("pool", "create", "p", "slots=1")
    eqd.ok("queue", "create", "q", "max_active=9", "pool=p")
    first = sleepers(eqd, "q", 1)
    waits = [eqd.submit("-q", "q", "--", "sleep", "1000") for _ in range(2)]
    eqd.ok("pool", "set", "p", "slots=3")
    for task in waits:
        eqd.until_state(task, "RUNNING")
    eqd.ok("pool", "set", "p", "slots=1")
    equal(pool(eqd, "p")["busy"], 3)
    last = eqd.submit("-q", "q", "--", "true")
    eqd.ok("cancel", *first, waits[0])
    eqd.wait(first[0], waits[0])
    equal(eqd.show(last)["state"], "QUEUED")
    eqd.ok("cancel", waits[1])
    eqd.ends_as(last, "DONE")
    contains(eqd.ok("pool", "ls"), "BUSY/SLOTS", "default", "runtime")
    contains(eqd.ok("pool", "show", "p"), "slots=1\n", "nice=0\n", "started=4\n")


@test()
def a_serial_queue_that_moves_keeps_its_order(eqd):
    eqd.ok("pool", "create", "p")
    eqd.ok("queue", "create", "q")
    running = sleepers(eqd, "q", 1)[0]
    order = eqd.dir / "order"
    tasks = [eqd.submit("-q", "q", "-c", f"echo {i} >> {order}") for i in range(5)]
    eqd.ok("queue", "set", "q", "pool=p")
    equal(why(eqd, tasks[0])["reason"], "serial")
    equal((pool(eqd, "p")["busy"], pool(eqd, "default")["busy"]), (0, 1))
    eqd.ok("cancel", running)
    eqd.wait(*tasks)
    equal(order.read_text().split(), ["0", "1", "2", "3", "4"])
    equal(pool(eqd, "p")["started"], 5)


@test(config={"pools.d/video.pool": VIDEO})
def a_reload_makes_changes_and_removes_pools_and_what_runs_ends_by_itself(eqd):
    eqd.ok("queue", "create", "q", "max_active=9", "pool=video")
    tasks = sleepers(eqd, "q", 2)
    eqd.configure("pools.d/video.pool", VIDEO.replace("2", "3"))
    eqd.configure("pools.d/audio.pool", "[Pool]\nSlots=1\n")
    eqd.ok("reload")
    equal((pool(eqd, "video")["slots"], pool(eqd, "audio")["slots"]), (3, 1))
    eqd.ok("pool", "set", "video", "slots=5")
    eqd.ok("reload")
    equal((pool(eqd, "video")["slots"], pool(eqd, "video")["origin"]), (5, "file+override"))
    (eqd.dir / "config/pools.d/video.pool").unlink()
    eqd.ok("reload")
    equal((pool(eqd, "video")["busy"], pool(eqd, "video")["removing"]), (2, True))
    eqd.fails(66, "pool", "show", "video")
    eqd.ends_as(eqd.submit("-q", "q", "--", "true"), "DONE")
    equal(pool(eqd, "default")["started"], 1)
    eqd.ok("cancel", *tasks)
    eqd.wait(*tasks)
    eventually(lambda: pool(eqd, "video") is None, "pool video goes")
    eqd.configure("pools.d/video.pool", VIDEO)
    eqd.ok("reload")
    eqd.ends_as(eqd.submit("-q", "q", "--", "true"), "DONE")
    equal(pool(eqd, "video")["started"], 1)


@test(config={"pools.d/video.pool": VIDEO})
def a_mistake_about_a_pool_names_file_and_line_and_changes_nothing(eqd):
    for name, text, line in (("pools.d/video.pool", "[Pool]\nSlots=9\nSlots=none\n", 3),
                             ("pools.d/other.pool", "[Pool]\nNoSuchKey=1\n", 2),
                             ("queues.d/q.queue", "[Queue]\n\nPool=nosuch\n", 3),
                             ("eqd.conf", "[Queue]\nPool=nosuch\n", 2)):
        eqd.configure(name, text)
        eqd.fails(78, "reload", says=f"{name.rpartition('/')[2]}:{line}")
        equal(pool(eqd, "video")["slots"], 2)
        (eqd.dir / "config" / name).unlink()
        eqd.configure("pools.d/video.pool", VIDEO)
    for text, says in (("Kind=thread", "stays so"), ("Kind=thread\nMinWorkers=20", "more than max_workers")):
        eqd.configure("pools.d/video.pool", f"[Pool]\n{text}\n")
        eqd.fails(78, "reload", says=says)
    eqd.configure("pools.d/video.pool", VIDEO)
    eqd.configure("queues.d/q.queue", "[Queue]\nPool=plugin\n")
    eqd.fails(78, "reload", says="name a pool with Kind=command")
    (eqd.dir / "config/queues.d/q.queue").unlink()
    eqd.configure("pools.d/video.pool", "[Pool]\nSlots=65536\n")
    eqd.fails(78, "reload", says="65792; at most 65536")


@test()
def bad_arguments_are_refused_and_say_what_to_do(eqd):
    eqd.ok("pool", "create", "p", "slots=1")
    eqd.fails(1, "pool", "create", "p", says="eqctl pool set changes it")
    eqd.ok("pool", "create", "--if-not-exists", "p", "slots=2")
    equal(pool(eqd, "p")["slots"], 2)
    for text, says in (("slots=0", "1..65536 slots"), ("slots=x", "is no number"), ("nise=1", "did you mean nice"),
                       ("kind=thread", "stays so"), ("min_workers=17", "more than max_workers, which is 16")):
        eqd.fails(2, "pool", "set", "p", text, says=says)
    eqd.fails(2, "pool", "set", "p", "slots", says="eqd.pool(5)")
    eqd.fails(66, "pool", "set", "nosuch", "slots=1", says="eqctl pool ls")
    eqd.fails(66, "queue", "create", "q", "pool=nosuch", says="no pool nosuch")
    eqd.fails(1, "pool", "rm", "default", says="always there")
    eqd.ok("queue", "create", "q", "pool=p")
    eqd.fails(1, "pool", "rm", "p", says="pool=default")
    eqd.ok("queue", "rm", "q")
    eqd.ok("pool", "rm", "p")
    eqd.fails(66, "pool", "show", "p")
    for name in ("default", "plugin"):
        eqd.fails(1, "pool", "rm", name, says="always there")
    eqd.ok("pool", "create", "t", "kind=thread", "max_workers=2")
    eqd.fails(2, "queue", "create", "q", "pool=t", says="kind=command")
    eqd.fails(2, "pool", "create", "plugin2", "kind=threads", says="thread")
    eqd.ok("pool", "rm", "t")
    eventually(lambda: pool(eqd, "t") is None, "pool t goes")


@test(config={"pools.d/t.pool": "[Pool]\nKind=thread\nMaxWorkers=3\n"})
def a_pool_of_threads_is_there_from_the_start_and_after_the_next_one(eqd):
    for _ in range(2):
        contains(eqd.ok("pool", "show", "t"), "kind=thread", "max_workers=3")
        eqd.stop()
        eqd.start()
    eqd.ok("reload")


@test(config={"pools.d/nice.pool": "[Pool]\nNice=17\n", "queues.d/n.queue": "[Queue]\nPool=nice\n"})
def commands_of_a_pool_have_its_nice_level_unless_they_ask_for_another(eqd):
    own = os.nice(0)
    script = "cut -d' ' -f19 /proc/self/stat"
    for args, want in ((("-q", "n"), 17), (("-q", "n", "--nice", "19"), 19), ((), own)):
        task = eqd.submit(*args, "-c", script)
        eqd.ends_as(task, "DONE")
        equal(int(eqd.logs(task)), want, str(args))


@test()
def tasks_of_many_pools_run_at_once_in_cgroups_or_groups_of_their_own(eqd):
    tasks = []
    for i in range(4):
        eqd.ok("pool", "create", f"p{i}", "slots=2")
        eqd.ok("queue", "create", f"q{i}", "max_active=2", f"pool=p{i}")
        tasks += sleepers(eqd, f"q{i}", 2)
    eqd.ok("cancel", tasks[0])
    eqd.ends_as(tasks[0], "CANCELED")
    for task in tasks[1:]: # its end was the end of nobody else
        equal(eqd.show(task)["state"], "RUNNING")
    eqd.ok("cancel", *tasks[1:])
    eqd.wait(*tasks)


@test()
def after_a_crash_of_the_spawner_every_pool_goes_on(eqd):
    eqd.ok("pool", "create", "p")
    eqd.ok("queue", "create", "q", "pool=p")
    for queue in ("default", "q"):
        eqd.ends_as(eqd.submit("-q", queue, "--", "true"), "DONE")
    events = eqd.events(events=["spawner."])
    os.kill(eqd.connect().call("stat")["spawner_pid"], signal.SIGKILL)
    events.note(lambda method, params: method == "event" and params[0]["event"] == "spawner.back")
    for queue in ("default", "q"):
        eqd.ends_as(eqd.submit("-q", queue, "--", "true"), "DONE")


@test(root=True, other_users=True)
def everybody_may_look_and_administrators_change(eqd):
    eqd.ok("pool", "create", "p")
    eqd.ok("pool", "ls", uid=USER_A)
    eqd.ok("pool", "show", "p", uid=USER_A)
    for args in (("create", "mine"), ("set", "p", "slots=1"), ("rm", "p")):
        eqd.fails(77, "pool", *args, uid=USER_A)
    equal(eqd.ok("param", "get", "commands.slots", uid=USER_A), "256")
    eqd.fails(77, "param", "set", "commands.slots=1", uid=USER_A)
    equal(pool(eqd, "p")["slots"], 256)


@test()
def parameters_are_listed_read_and_set_until_a_reload(eqd):
    contains(eqd.ok("param", "ls"), "limits.tasks_per_user", "queue.max_active", "SETTABLE")
    eqd.ok("param", "set", "commands.slots=1", "queue.max_active=4")
    equal(eqd.ok("param", "get", "slots", "MaxActive").split(), ["1", "4"])
    task = sleepers(eqd, "default", 1)[0]
    waits = eqd.submit("--", "true")
    equal(why(eqd, waits)["reason"], "slots")
    eqd.ok("param", "set", "slots=2")
    eqd.ends_as(waits, "DONE")
    eqd.fails(66, "param", "get", "nosuch", says="eqctl param ls")
    eqd.fails(2, "param", "set", "slots", says="NAME=VALUE")
    eqd.fails(2, "param", "set", "slots=0", says="1..65536 slots")
    eqd.fails(1, "param", "set", "socket_mode=0600", says="restart eqd")
    eqd.ok("reload")
    equal(eqd.ok("param", "get", "slots", "queue.max_active").split(), ["256", "1"])
    eqd.ok("cancel", task)
    eqd.wait(task)


main()
