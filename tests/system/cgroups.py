#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each command in a cgroup of its own: nothing leaves it, nothing is left in it, and it is used again."""

import contextlib
import os
import re
import signal
from pathlib import Path

from eqdtest import Skip, alive, cgroup2, comm, descendants, equal, eventually, is_gone, main, test


def group_of(pid):
    return re.search(r"^0::(.*)$", Path(f"/proc/{pid}/cgroup").read_text(), re.M)[1]


def groups(eqd):
    slots = eqd.cgroup / "slots"
    return {p.name for p in slots.iterdir() if p.is_dir()} if slots.exists() else set()


def processes(eqd):
    """Those in the cgroups of commands that do not just wait."""
    return {int(p) for f in eqd.cgroup.rglob("cgroup.procs") for p in f.read_text().split() if not comm(int(p)).startswith("eqd-")}


def start_tree(eqd, *args):
    """A task with a child in a session of its own; (task, pids)."""
    task = eqd.sh("setsid sleep 1000 & echo $$ $!; wait", *args)
    line = eqd.start_ctl("logs", "-f", task).stdout.readline()
    return task, [int(p) for p in line.split()]


@test(cgroup=True)
def commands_that_run_together_have_different_groups(eqd):
    eqd.ok("queue", "create", "p", "max_active=3")
    tasks = [start_tree(eqd, "-q", "p") for _ in range(3)]
    found = [{group_of(p) for p in pids} for _, pids in tasks]
    equal([len(g) for g in found], [1, 1, 1], str(found))
    equal(len(set.union(*found)), 3)
    for g in set.union(*found):
        equal(re.fullmatch(rf".*/{eqd.cgroup.name}/slots/\d+", g) is not None, True, g)
    equal(len(processes(eqd)), 6)
    for task, pids in tasks:
        eqd.ok("cancel", "--grace", "0", task)
        eqd.ends_as(task, "CANCELED")
        equal([p for p in pids if not is_gone(p)], [])
    equal(processes(eqd), set())


@test(cgroup=True)
def what_a_command_leaves_is_killed_and_its_group_serves_the_next_ones(eqd):
    task = eqd.sh("setsid sh -c 'setsid sleep 1000 & wait' & echo $!; sleep 1000 & exec true")
    eqd.ends_as(task, "DONE")
    equal(is_gone(int(eqd.logs(task))), True)
    equal(processes(eqd), set())
    for _ in range(30):
        eqd.ends_as(eqd.submit("--", "true"), "DONE")
    equal(len(groups(eqd)) <= 4, True, str(groups(eqd))) # one runs, two wait, and one that was just emptied


@test(cgroup=True)
def groups_that_a_command_made_below_its_own_go_with_it(eqd):
    top = f"{eqd.cgroup.parent}$(sed -n 's/^0::.*\\(\\/{eqd.cgroup.name}\\/\\)/\\1/p' /proc/self/cgroup)"
    for leaves in ("", "sleep 1000 &"): # one ends by itself, one has to be killed
        for _ in range(2): # the second in the place of the first
            eqd.ends_as(eqd.sh(f"g={top}; mkdir $g/deep && mkdir $g/deep/er; {leaves} exit $?"), "DONE", exit=0)
        equal([d for d in eqd.cgroup.rglob("deep")], [])


@test(cgroup=True)
def a_canceled_tree_is_gone_and_the_next_command_runs(eqd):
    for how in ([], ["--grace", "0"]):
        task, pids = start_tree(eqd)
        eqd.ok("cancel", *how, task)
        eqd.ends_as(task, "CANCELED")
        equal([p for p in pids if not is_gone(p)], [])
        eqd.ends_as(eqd.submit("--", "true"), "DONE")


@test(cgroup=True)
def a_killed_spawner_leaves_nothing_and_the_next_one_has_groups(eqd):
    family = [p for p in descendants(eqd.pid) if comm(p) == "eqd-spawner"]
    task, pids = start_tree(eqd)
    events = eqd.events(events=["spawner."])
    for how in (signal.SIGSTOP, signal.SIGKILL): # keeper and worker at once
        for p in family:
            os.kill(p, how)
    eqd.ends_as(task, "FAILED", reason="spawn-failed")
    events.note(lambda method, params: method == "event" and params[0]["event"] == "spawner.back")
    eventually(lambda: all(is_gone(p) for p in pids), lambda: f"left: {alive(pids)}")
    _, pids = start_tree(eqd)
    equal(len({group_of(p) for p in pids}), 1)
    equal(f"/{eqd.cgroup.name}/slots/" in group_of(pids[0]), True)
    eqd.ok("cancel", "--grace", "0", "default/2")
    eqd.ends_as("default/2", "CANCELED")


@test(cgroup=True)
def an_eqd_that_ends_takes_its_groups_along(eqd):
    task, pids = start_tree(eqd)
    equal(len(groups(eqd)) >= 1, True)
    eqd.stop()
    equal([p for p in pids if not is_gone(p)], [], task)
    equal(list(eqd.cgroup.iterdir()) and [p for p in eqd.cgroup.iterdir() if p.is_dir()], [])


@contextlib.contextmanager
def small_memory(name, megabytes):
    """A memory cgroup with a limit, of the first version or the second; or the test is skipped."""
    first = Path("/sys/fs/cgroup/memory")
    second = "memory" in (cgroup2() / "cgroup.subtree_control").read_text().split()
    if not second and not os.access(first / "cgroup.procs", os.W_OK):
        raise Skip("there is no memory controller: neither below the cgroup2 hierarchy nor a hierarchy of its own")
    group = (cgroup2() if second else first) / f"{name}-memory"
    group.mkdir()
    try:
        (group / ("memory.max" if second else "memory.limit_in_bytes")).write_text(f"{megabytes}M")
        yield group
    finally:
        eventually(lambda: not (group / "cgroup.procs").read_text(), "a process stays in the memory cgroup")
        group.rmdir()


@test(cgroup=True, root=True)
def a_command_that_takes_all_memory_of_its_cgroup_takes_itself_along_and_nothing_else(eqd):
    """What OOMPolicy=continue lets eqd do: it sees a command that was killed, says so, and goes on."""
    eat = "x = bytearray(300 << 20); print('ate it')"
    with small_memory(eqd.cgroup.name, 48) as group:
        big = eqd.sh(f"echo $$ >{group}/cgroup.procs && echo in && exec python3 -c \"{eat}\"")
        waits = eqd.submit("--", "true")
        eqd.ends_as(big, "FAILED", signal=9)
        equal(eqd.logs(big), "in")
        eqd.ends_as(waits, "DONE", attempt=1)
    equal(eqd.process.poll(), None)
    equal(eqd.connect().call("stat")["spawner_pid"], eqd.spawner_pid)


main()
