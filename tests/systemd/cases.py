#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the units promise, proven with a real systemd. Inside tests/systemd/boot only; the frame is machine.py."""

import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import signal
import stat
import threading
import time
from pathlib import Path

from eqdtest import Skip, alive, comm, contains, descendants, equal, eventually, is_gone, proc_stat, status_fields
from machine import (BUILD, CONFIG, DROPINS, SOCKET, STATE, STRANGER, WAIT_SECONDS, case, cgroup, cgroup_of, connect, ends_as,
                     fails, installed, is_state, journal, main, main_pid, messages, ok, pids_in, run, says,
                     start_process, submit, systemctl, task, unit)

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
# A command that stays, a child of it, and one that left its session; says when all three are there.
TREE = "sleep 1000 & setsid sleep 1000 & echo ready; wait"


def eqctl(*args, user="alice", **options):
    return ok("eqctl", *args, user=user, **options)


def is_member(path, owner, group, mode):
    s = path.stat()
    got = (pwd.getpwuid(s.st_uid).pw_name, grp.getgrgid(s.st_gid).gr_name, stat.S_IMODE(s.st_mode))
    equal(got, (owner, group, mode), f"owner, group and mode of {path}")


def tree_of(id_):
    """The processes of a task that runs, by its cgroup."""
    says(id_, "ready")
    found = pids_in(Path("/sys/fs/cgroup") / cgroup_of(task(id_)["pid"]).lstrip("/"))
    equal(len(found) >= 3, True, f"processes of {id_}: {alive(found)}")
    return found


def all_gone(pids):
    eventually(lambda: all(is_gone(p) for p in pids), lambda: f"left: {alive(pids)}")


def spawners():
    """(keeper, worker): the keeper is eqd's child, the worker the keeper's."""
    main_process = main_pid()
    found = [p for p in descendants(main_process) if comm(p) == "eqd-spawner"]
    keeper = [p for p in found if proc_stat(p)[1] == main_process]
    worker = [p for p in found if proc_stat(p)[1] in keeper]
    equal((len(keeper), len(worker)), (1, 1), f"spawner processes {alive(found)}")
    return keeper[0], worker[0]


def event(connection, name):
    connection.note(lambda method, params: method == "event" and params[0]["event"] == name)


# ---- installation: the first case, which the others need ----

@case()
def what_the_readme_says_installs_a_service_with_user_group_and_directory():
    text = (Path(__file__).parents[2] / "README.md").read_text().partition("As a service of the machine, as root:\n\n```\n")[2]
    commands = [line.partition("#")[0].strip() for line in text.partition("```")[0].splitlines()]
    equal((commands[0], commands[-2]), ("meson install -C build", "systemctl enable --now eqd.service"))
    commands[0] = f"meson install -C {BUILD} --no-rebuild --quiet"
    for command in commands:
        ok("sh", "-ec", command, seconds=60)
    ok("eqctl", "run", "--", "true", user="alice")
    systemctl("disable", "eqd.service", "eqd.socket")
    eqd = pwd.getpwnam("eqd")
    equal((grp.getgrgid(eqd.pw_gid).gr_name, eqd.pw_shell), ("eqd", "/usr/sbin/nologin"))
    is_member(SOCKET.parent, "root", "root", 0o755)
    ok("usermod", "-aG", "eqd", "bob")
    for name in ("eqd.service", "eqd.socket"):
        equal(unit(name, "LoadState", "NeedDaemonReload"), {"LoadState": "loaded", "NeedDaemonReload": "no"})


@case()
def the_installed_units_have_no_mistake():
    for mode, name in (("system", "eqd.service"), ("system", "eqd.socket"), ("user", "eqd.service"),
                       ("user", "eqd.socket")):
        r = run("systemd-analyze", f"--{mode}", "verify", installed(f"systemd/{mode}/{name}"),
                env={"XDG_RUNTIME_DIR": "/run"})
        wrong = [line for line in (r.out + r.err).splitlines() if "eqd" in line]
        equal((r.rc, wrong), (0, []), f"{mode} {name}: {r}")


def exposure():
    """What `systemd-analyze security` says of the running configuration."""
    out = ok("systemd-analyze", "security", "--no-pager", "eqd.service")
    return float(re.search(r"Overall exposure level for eqd.service: ([0-9.]+)", out)[1])


def is_exposed_at_most(limit):
    score = exposure()
    print(f"# exposure {score}, limit {limit}")
    equal(score <= limit, True, f"exposure {score}, limit {limit}")


@case(start="eqd.service")
def the_service_is_exposed_by_at_most_5():
    is_exposed_at_most(5.0)


# ---- start ----

@case()
def the_service_is_active_only_when_the_spawner_is_ready():
    """The spawner is held up: it is replaced by a script that waits to be told to go on."""
    spawner, gate = installed("eqd/eqd-spawner"), Path("/run/gate")
    real = spawner.with_name("eqd-spawner.real")
    spawner.rename(real)
    os.mkfifo(gate)
    gate.chmod(0o644)
    try:
        spawner.write_text(f"#!/bin/sh\nread -r go <{gate}\nexec {real} \"$@\"\n")
        spawner.chmod(0o755)
        systemctl("start", "--no-block", "eqd.service")
        with open(gate, "w") as f: # waits for the script
            equal(unit("eqd.service", "ActiveState", "SubState"), {"ActiveState": "activating", "SubState": "start"})
            f.write("go\n")
        systemctl("start", "eqd.service")
        is_state("active")
        eqctl("ping")
    finally:
        gate.unlink()
        real.rename(spawner)


@case(start="eqd.service")
def the_status_line_counts_queues_and_tasks():
    equal(unit("eqd.service", "StatusText"), "1 queues, 0 running, 0 pending")
    id_, waiting = submit("--", "sleep", "1000"), submit("--", "true")
    eventually(lambda: unit("eqd.service", "StatusText") == "1 queues, 1 running, 1 pending",
               lambda: unit("eqd.service", "StatusText"))
    contains(ok("systemctl", "status", "--no-pager", "eqd.service"), 'Status: "1 queues, 1 running, 1 pending"')
    eqctl("cancel", id_)
    ends_as(waiting, "DONE")
    eventually(lambda: unit("eqd.service", "StatusText") == "1 queues, 0 running, 0 pending",
               lambda: unit("eqd.service", "StatusText"))


@case()
def the_examples_are_a_configuration():
    examples = installed("examples/eqd.conf").parent
    (CONFIG / "queues.d").mkdir(parents=True)
    for path in examples.glob("*.queue"):
        shutil.copy(path, CONFIG / "queues.d")
    # Commented lines are said to be the defaults: they must at least be right.
    lines = [re.sub(r"^#(\w+=.)", r"\1", line) for line in (examples / "eqd.conf").read_text().splitlines()]
    (CONFIG / "eqd.conf").write_text("\n".join(lines) + "\n")
    systemctl("start", "eqd.service")
    contains(eqctl("queue", "ls"), *(path.stem for path in examples.glob("*.queue")))
    ends_as(submit("-q", "serial", "--", "true"), "DONE")


@case(start="eqd.service")
def eqd_itself_holds_no_capability_and_its_state_is_its_own():
    fields = status_fields(main_pid())
    for name in CAPABILITY_SETS:
        equal(int(fields[name], 16), 0, f"{name} of eqd")
    equal(fields["NoNewPrivs"], "1")
    is_member(STATE, "eqd", "eqd", 0o700)


@case(start="eqd.socket")
def the_first_client_starts_the_service():
    is_state("inactive")
    eqctl("ping")
    is_state("active")


@case(start="eqd.socket")
def clients_that_come_while_it_starts_are_served():
    clients = [start_process("eqctl", "ping", user="alice") for _ in range(20)]
    for c in clients:
        out, err = c.communicate(timeout=WAIT_SECONDS)
        equal(c.returncode, 0, out + err)
    equal(unit("eqd.service", "ActiveState", "NRestarts"), {"ActiveState": "active", "NRestarts": "0"})


@case()
def enabling_the_service_enables_its_socket():
    systemctl("enable", "eqd.service")
    for name in ("eqd.service", "eqd.socket"):
        equal(systemctl("is-enabled", name), "enabled", name)
    for target, name in (("multi-user", "eqd.service"), ("sockets", "eqd.socket")):
        contains(unit(f"{target}.target", "Wants"), name)
    systemctl("disable", "eqd.service")


@case(start="eqd.socket")
def the_socket_is_for_the_group_only():
    is_member(SOCKET, "root", "eqd", 0o660)
    eqctl("ping", user="alice")
    fails(77, "eqctl", "ping", user=STRANGER, says=(str(SOCKET), "group eqd"))


# ---- commands ----

def is_one_slot(cgroups, unit):
    """All processes in one cgroup of those for commands; which one is eqd's business."""
    equal(len(cgroups), 1, str(cgroups))
    equal(re.fullmatch(rf"{re.escape(unit)}/slots/\d+", *cgroups) is not None, True, str(cgroups))


@case(start="eqd.socket")
def a_command_runs_as_its_user_in_its_slot_without_capabilities():
    id_ = submit("-c", "id; grep -E '^(Cap|NoNew)' /proc/self/status; cat /proc/self/cgroup; echo mine >~/made")
    ends_as(id_, "DONE")
    out = eqctl("logs", id_)
    alice = pwd.getpwnam("alice")
    contains(out, f"uid={alice.pw_uid}(alice) gid={alice.pw_gid}(alice)", "(eqd)", "NoNewPrivs:\t1")
    equal(sorted(re.findall(r"^(Cap\w+):\t0{16}$", out, re.M)), sorted(CAPABILITY_SETS))
    is_one_slot(re.findall(r"^0::(.*)$", out, re.M), "/system.slice/eqd.service")
    is_member(Path("/home/alice/made"), "alice", "alice", 0o644)


@case(start="eqd.socket")
def the_cgroups_of_eqd_and_of_its_commands_are_apart():
    id_ = submit("-c", TREE)
    tree = tree_of(id_)
    is_one_slot({cgroup_of(p) for p in tree}, "/system.slice/eqd.service")
    equal({cgroup_of(p) for p in (main_pid(), *spawners())}, {"/system.slice/eqd.service/daemon"})
    eqctl("cancel", id_)
    ends_as(id_, "CANCELED")
    all_gone(tree)


@case(start="eqd.socket")
def tasks_of_another_user_are_out_of_reach():
    id_ = submit("-c", "echo secret; echo ready; sleep 1000")
    says(id_, "ready")
    for args in (["show"], ["why"], ["logs"], ["cancel"], ["kill"], ["hold"], ["retry"]):
        r = fails(77, "eqctl", *args, id_, user="bob", says="belongs to another user")
        equal("secret" in r.out, False)
    equal(eqctl("ls", "-A", "-o", "id", user="bob"), "")
    equal(task(id_)["state"], "RUNNING")
    eqctl("cancel", id_)
    ends_as(id_, "CANCELED")


@case(start="eqd.socket")
def a_timeout_ends_the_whole_tree():
    """It tells who is in it by itself: who looks at it from outside may be too late."""
    id_ = submit("-t", "3s", "--grace", "100ms", "-c", "trap '' TERM; sleep 1000 & child=$!; setsid sleep 1000 & echo $$ $child $!; wait")
    ends_as(id_, "TIMEOUT")
    tree = [int(pid) for pid in eqctl("logs", id_).split()]
    equal(len(tree), 3, f"{tree}")
    all_gone(tree)


@case()
def a_command_that_takes_all_memory_of_the_service_does_not_end_it():
    """systemd ends other services when the kernel kills one of their processes for want of memory."""
    with_unit_lines("MemoryMax=100M\nMemorySwapMax=0\n")
    equal(unit("eqd.service", "OOMPolicy"), "continue")
    if not (cgroup() / "memory.max").exists():
        raise Skip("OOMPolicy=continue is set, but there is no memory controller to try it with")
    first = main_pid()
    big = submit("--", "python3", "-c", "bytearray(400 << 20)")
    ends_as(big, "FAILED", signal=9)
    eventually(lambda: "oom" in messages("-u", "eqd.service").lower(), "systemd has not seen it")
    ends_as(submit("--", "true"), "DONE")
    equal((main_pid(), unit("eqd.service", "ActiveState", "Result", "NRestarts")),
          (first, {"ActiveState": "active", "Result": "success", "NRestarts": "0"}))


@case(start="eqd.socket")
def set_user_id_programs_gain_nothing():
    program = Path("/usr/local/bin/whoever")
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    id_ = submit("--", program, "-u")
    ends_as(id_, "DONE")
    equal(eqctl("logs", id_), str(pwd.getpwnam("alice").pw_uid))


@case(start="eqd.socket")
def commands_are_inside_the_sandbox():
    for what, command in (("LockPersonality=", ["setarch", "-R", "true"]),
                          ("RestrictSUIDSGID=", ["sh", "-c", "touch ~/s && chmod u+s ~/s"])):
        ok(*command, user="alice") # outside she may
        r = run("eqctl", "run", "--", *command, user="alice")
        equal((r.rc != 0, "ermitted" in r.err), (True, True), f"{what}: {r}")


# ---- reload ----

@case(start="eqd.service", config={"queues.d/good.queue": "[Queue]\nMaxActive=2\n"})
def reload_applies_a_good_file_and_refuses_a_bad_one():
    eqctl("queue", "show", "good")
    before = main_pid()
    (CONFIG / "queues.d/good.queue").write_text("[Queue]\nMaxActive=3\n")
    systemctl("reload", "eqd.service")
    contains(eqctl("queue", "show", "good"), "max_active=3")
    bad = CONFIG / "queues.d/bad.queue"
    bad.write_text("[Queue]\n\nMaxActive=many\n")
    (CONFIG / "queues.d/good.queue").write_text("[Queue]\nMaxActive=4\n")
    fails(None, "systemctl", "reload", "eqd.service")
    contains(messages("-u", "eqd.service"), f"{bad}:3: ", "MaxActive")
    contains(eqctl("queue", "show", "good"), "max_active=3")
    fails(66, "eqctl", "queue", "show", "bad", user="alice")
    is_state("active")
    equal(main_pid(), before)


@case(start="eqd.service", config={"queues.d/good.queue": "[Queue]\nMaxActive=2\n"})
def a_hangup_reloads_too():
    """Without an answer: systemd sees RELOADING=1 and READY=1, mistakes go to the journal only."""
    before = main_pid()
    good = CONFIG / "queues.d/good.queue"
    with connect() as c:
        c.call("subscribe", events=["config."])
        good.write_text("[Queue]\nMaxActive=3\n")
        systemctl("kill", "--kill-who=main", "-s", "HUP", "eqd.service")
        event(c, "config.reloaded")
    contains(eqctl("queue", "show", "good"), "max_active=3")
    good.write_text("[Queue]\nMaxActive=many\n")
    systemctl("kill", "--kill-who=main", "-s", "HUP", "eqd.service")
    eventually(lambda: f"{good}:2: " in messages("-u", "eqd.service"), lambda: messages("-u", "eqd.service"))
    eventually(lambda: unit("eqd.service", "ActiveState") == "active", "it is not active again")
    contains(eqctl("queue", "show", "good"), "max_active=3")
    equal(main_pid(), before)


@case(config={"eqd.conf": "[Daemon]\nStopTimeout=soon\n"})
def a_bad_file_keeps_the_service_from_starting_and_is_named():
    fails(None, "systemctl", "start", "eqd.service")
    eventually(lambda: unit("eqd.service", "ActiveState") == "failed", "the unit has not failed")
    equal(unit("eqd.service", "ExecMainStatus", "NRestarts"), {"ExecMainStatus": "78", "NRestarts": "0"})
    eventually(lambda: f"{CONFIG}/eqd.conf:2: " in messages("-u", "eqd.service"), lambda: messages("-u", "eqd.service"))
    run("systemctl", "reset-failed", "eqd.service")


# ---- stop, restart, death ----

@case(start="eqd.service")
def volatile_tasks_outlive_a_restart_and_durable_ones_also_a_stop():
    eqctl("queue", "create", "memory", "durable=no")
    for queue in ("default", "memory"):
        ran = submit("-q", queue, "-c", "echo $EQD_ATTEMPT; [ $EQD_ATTEMPT = 2 ] || exec sleep 1000")
        says(ran, "1")
        waits = submit("-q", queue, "--", "true")
        systemctl("restart", "eqd.service")
        ends_as(ran, "DONE", attempt=2)
        ends_as(waits, "DONE")
    held, gone = submit("--hold", "--", "true"), submit("-q", "memory", "--hold", "--", "true")
    systemctl("stop", "eqd.service")
    systemctl("start", "eqd.service")
    fails(66, "eqctl", "show", gone, user="alice")
    ok("eqctl", "cancel", held, user="alice")


@case(start="eqd.service", config={"eqd.conf": "[Daemon]\nStopTimeout=10s\n",
                                   "queues.d/p.queue": "[Queue]\nMaxActive=2\n"})
def stop_gives_commands_their_grace_and_leaves_nothing():
    polite = submit("-q", "p", "-c", "trap 'echo bye >~/bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    stubborn = submit("-q", "p", "--grace", "10m", "-c", f"trap '' TERM; {TREE}")
    says(polite, "ready")
    tree = tree_of(stubborn)
    began = time.monotonic()
    systemctl("stop", "eqd.service", "eqd.socket")
    took = time.monotonic() - began
    print(f"# stop took {took:.2f} s")
    equal(took > 7.5, True, f"the stop took {took} s: what is left of the grace of stubborn is 8 s, the bound is 10 s")
    equal(unit("eqd.service", "Result"), "success")
    text = messages("-u", "eqd.service")
    equal([word for word in ("did not end in time", "Killing process", "timed out") if word in text], [], text)
    equal(Path("/home/alice/bye").read_text(), "bye\n")
    all_gone(tree)
    equal(cgroup().exists(), False)


@case(start="eqd.socket")
def restart_keeps_the_socket_and_refuses_nobody():
    eqctl("ping")
    inode, entered, first = SOCKET.stat().st_ino, unit("eqd.socket", "ActiveEnterTimestampMonotonic"), main_pid()
    refused, through, n_good = [], threading.Event(), 0

    def knock():
        nonlocal n_good
        while not through.is_set():
            try:
                with connect() as c:
                    c.call("ping")
                n_good += 1
            except (ConnectionRefusedError, FileNotFoundError) as e:
                refused.append(repr(e))
            except Exception: # an eqd that ends closes the connections that it has
                pass
    knocker = threading.Thread(target=knock)
    knocker.start()
    try:
        systemctl("restart", "eqd.service")
        eqctl("ping")
    finally:
        through.set()
        knocker.join()
    equal(refused, [])
    equal(n_good > 0, True, "nobody was answered")
    equal((SOCKET.stat().st_ino, unit("eqd.socket", "ActiveEnterTimestampMonotonic")), (inode, entered))
    equal(main_pid() != first, True, "it was not restarted")
    is_member(SOCKET, "root", "eqd", 0o660)


@case(start="eqd.socket")
def a_stopped_service_comes_back_with_the_next_client():
    eqctl("ping")
    run("systemctl", "stop", "eqd.service")
    is_state("inactive")
    is_state("active", "eqd.socket")
    eqctl("ping")
    is_state("active")


@case(start="eqd.service")
def a_killed_eqd_is_restarted_and_leaves_no_process():
    task_ = submit("-c", f"[ $EQD_ATTEMPT = 2 ] || {{ {TREE}; }}")
    tree = tree_of(task_)
    first, old = main_pid(), [main_pid(), *spawners(), *tree]
    os.kill(first, signal.SIGKILL)
    restarted()
    equal(main_pid() != first, True)
    all_gone(old)
    ends_as(task_, "DONE", attempt=2)


@case(start="eqd.service")
def a_service_that_dies_again_and_again_is_given_up():
    def state():
        return unit("eqd.service", "ActiveState", "NRestarts")
    for n in range(1, 6):
        os.kill(main_pid(), signal.SIGKILL)
        eventually(lambda: state() == {"ActiveState": "active", "NRestarts": str(n)} or
                   state()["ActiveState"] == "failed", state)
    equal(unit("eqd.service", "ActiveState"), "failed", "after five deaths within a minute")
    contains(messages("-u", "eqd.service"), "Start request repeated too quickly")
    run("systemctl", "stop", "eqd.socket")
    systemctl("reset-failed")


@case(start="eqd.service", config={"queues.d/p.queue": "[Queue]\nMaxActive=1\n"})
def a_killed_spawner_worker_is_replaced_and_its_tasks_say_why():
    id_, waiting = submit("-q", "p", "-c", TREE), submit("-q", "p", "--", "id", "-un")
    tree = tree_of(id_)
    first = main_pid()
    with connect() as c:
        c.call("subscribe", events=["spawner."])
        os.kill(spawners()[1], signal.SIGKILL)
        event(c, "spawner.back")
    ends_as(id_, "FAILED", reason="spawn-failed")
    contains(fails(125, "eqctl", "wait", id_, user="alice").err, "spawn")
    all_gone(tree)
    ends_as(waiting, "DONE")
    equal(eqctl("logs", waiting), "alice")
    equal((main_pid(), unit("eqd.service", "NRestarts")), (first, "0"))


@case(start="eqd.service", config={"queues.d/p.queue": "[Queue]\nMaxActive=1\n"})
def after_the_death_of_both_spawner_processes_nothing_runs_as_eqd():
    """The new ones have no capabilities. A command of alice's that waited must not run as anybody else."""
    id_, waiting = submit("-q", "p", "-c", TREE), submit("-q", "p", "-c", "id -un")
    tree = tree_of(id_)
    with connect() as c:
        c.call("subscribe", events=["spawner."])
        for pid in spawners():
            with contextlib.suppress(ProcessLookupError): # the second one dies with the first
                os.kill(pid, signal.SIGKILL)
        event(c, "spawner.back")
    ends_as(id_, "FAILED", reason="spawn-failed")
    all_gone(tree)
    shown = ends_as(waiting, "FAILED", reason="identity")
    equal(eqctl("logs", waiting), "", f"{shown}")
    fails(77, "eqctl", "submit", "--", "true", user="alice", says="uid")
    contains(messages("-u", "eqd.service"), "Restart eqd")
    systemctl("restart", "eqd.service")
    ends_as(submit("--", "true"), "DONE")


# ---- profiles ----

@case(start="eqd.service", dropins=["fixed-user"])
def with_fixed_user_all_commands_are_eqds_and_users_are_refused():
    is_exposed_at_most(2.6)
    equal(ok("eqctl", "run", "-C", "/", "--", "id", "-un"), "eqd")
    fails(77, "eqctl", "submit", "--", "true", user="alice", says="allow_submit")
    id_ = submit("-C", "/", "-c", TREE, user="root")
    tree = tree_of(id_)
    is_one_slot({cgroup_of(p) for p in tree}, "/system.slice/eqd.service")
    equal({status_fields(p)["CapBnd"].strip("0") for p in (main_pid(), *spawners(), *tree)}, {""})
    ok("eqctl", "cancel", id_)
    ends_as(id_, "CANCELED")
    all_gone(tree)
    out = ok("eqctl", "run", "-C", "/", "-c", "touch /etc/x 2>&1; ls -A /home | wc -l; touch /var/lib/eqd/made; id -un")
    contains(out, "Read-only file system")
    equal(out.splitlines()[1:], ["0", "eqd"])
    is_member(STATE / "made", "eqd", "eqd", 0o644)


@case(start="eqd.socket", dropins=["no-commands"])
def with_no_commands_eqd_is_one_process_and_still_knows_its_users():
    eqctl("ping")
    is_exposed_at_most(0.5)
    equal(pids_in(cgroup()), [main_pid()])
    equal(eqctl("stat", "--json").count('"identities":"none"'), 1)
    fails(77, "eqctl", "submit", "--", "true", user="alice", says="commands=no")
    eqctl("queue", "create", "hers")
    fails(77, "eqctl", "queue", "rm", "hers", user="bob") # not the same `nobody`
    systemctl("reload", "eqd.service")
    eqctl("queue", "rm", "hers")
    (CONFIG / "eqd.conf").write_text("[Daemon]\nStopTimeout=soon\n")
    fails(None, "systemctl", "reload", "eqd.service")


@case(start="eqd.socket", dropins=["no-commands"])
def with_no_commands_plugins_and_workers_do_their_work():
    plugin = installed("plugins/zlib.so")
    (CONFIG / "queues.d").mkdir(parents=True, exist_ok=True)
    (CONFIG / "queues.d/pack.queue").write_text(f"[Queue]\nExecutor=plugin\nPlugin={plugin}\nMaxActive=2\n")
    (CONFIG / "queues.d/shout.queue").write_text("[Queue]\nExecutor=worker\nAllowServe=alice\n")
    eqctl("ping")
    packed = submit("-q", "pack", "--payload", "a" * 100)
    shouted = submit("-q", "shout", "--payload", "hello", user="bob")
    equal(task(shouted)["reason"], "no-worker")
    with start_process("eqctl", "worker", "run", "-q", "shout", "--", "tr", "a-z", "A-Z", user="alice") as worker:
        ends_as(shouted, "DONE", result="HELLO")
        worker.terminate()
    ends_as(packed, "DONE")
    systemctl("restart", "eqd.service") # the sandbox lets it keep and find them
    ends_as(submit("-q", "pack", "--payload", "b" * 100), "DONE")
    equal((task(packed)["state"], task(shouted)["result"]), ("DONE", "HELLO"))


@case(start="eqd.service", dropins=["setuid-programs"])
def with_setuid_programs_they_work():
    program = Path("/usr/local/bin/whoever")
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    id_ = submit("--", program, "-u")
    ends_as(id_, "DONE")
    equal(eqctl("logs", id_), "0")
    own = submit("-c", "grep -E '^Cap(Prm|Eff|Inh|Amb)' /proc/self/status")
    ends_as(own, "DONE")
    equal(len(re.findall(r"\t0{16}$", eqctl("logs", own), re.M)), 4)
    roots = ok("eqctl", "run", "--", "grep", "-E", "^Cap(Prm|Eff)|NoNew", "/proc/self/status")
    contains(roots, "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1")


# ---- stalls, signs of life, the end that eqd gives itself ----

# In memory: a disk that others keep busy may not answer for so long, which would be in the status line.
FAST = "[Queue]\nDurable=no\n[Watchdog]\nWatchdogThresh=500ms\n"


def with_unit_lines(lines):
    """eqd.service is started with these lines, but a restart of it finds them gone."""
    DROPINS.mkdir(parents=True)
    (DROPINS / "case.conf").write_text("[Service]\nRestartSec=100ms\n" + lines)
    systemctl("daemon-reload")
    systemctl("start", "eqd.service")
    shutil.rmtree(DROPINS)
    systemctl("daemon-reload")


def block(queue, *attributes):
    """A task without life in a queue of its own, whose process is known, and one that waits for it from then on."""
    eqctl("queue", "create", queue, "expected_runtime=0", *attributes)
    head = submit("-q", queue, "--", "sleep", "1000")
    eventually(lambda: task(head).get("pid"), "its process is not known")
    return head, submit("-q", queue, "--", "true")


def stall_event(connection, name, **fields):
    return connection.note(lambda method, params: method == "event" and params[0]["event"] == name and
                           all(params[0].get(k) == v for k, v in fields.items()))[0]


def restarted(n=1):
    def state():
        return unit("eqd.service", "ActiveState", "NRestarts")
    eventually(lambda: state() == {"ActiveState": "active", "NRestarts": str(n)}, state)


@case(start="eqd.service", config={"eqd.conf": FAST})
def a_stall_is_in_the_status_line_and_in_the_journal_with_fields_and_advice():
    ok("journalctl", "--update-catalog")
    with connect() as c:
        c.call("subscribe", events=["stall."])
        head, waiting = block("letters")
        stall_event(c, "stall.begin", queue="letters")
        eventually(lambda: unit("eqd.service", "StatusText").startswith("STALLED queue letters "),
                   lambda: unit("eqd.service", "StatusText"))
        eqctl("cancel", head)
        stall_event(c, "stall.end", queue="letters")
    ends_as(waiting, "DONE")
    eventually(lambda: unit("eqd.service", "StatusText") == "2 queues, 0 running, 0 pending",
               lambda: unit("eqd.service", "StatusText"))
    query = ["journalctl", "--no-pager", "-u", "eqd.service", "EQD_QUEUE=letters"]

    def told():
        ok("journalctl", "--sync")
        return [json.loads(line) for line in ok(*query, "-o", "json").splitlines()]
    # A thread of eqd's writes to the journal, when it gets to it.
    records = eventually(lambda: (got := told())[-1:] and got[-1]["EQD_EVENT"] == "queue-stall-end" and got, "its end is in the journal")
    equal(records[0]["EQD_EVENT"], "queue-stall")
    first, last = records[0], records[-1]
    equal({k: first[k] for k in ("PRIORITY", "EQD_REASON", "EQD_TASK", "EQD_POOL", "EQD_PENDING", "EQD_INFLIGHT",
                                 "EQD_OLDEST", "EQD_INACTIVE", "EQD_WORKERS", "EQD_IDLE", "EQD_MANAGER", "EQD_MAYDAY")},
          {"PRIORITY": "3", "EQD_REASON": "serial", "EQD_TASK": head, "EQD_POOL": "default", "EQD_PENDING": "1",
           "EQD_INFLIGHT": "1", "EQD_OLDEST": waiting, "EQD_INACTIVE": "1", "EQD_WORKERS": "1", "EQD_IDLE": "0",
           "EQD_MANAGER": "0", "EQD_MAYDAY": "0"})
    equal(int(first["EQD_STALL_USEC"]) >= 500000, True, first["EQD_STALL_USEC"])
    equal((len(first["EQD_EPISODE"]), last["EQD_EPISODE"]), (32, first["EQD_EPISODE"]))
    contains(ok(*query, "-x"), "Subject: eqd: queue-stall", "Tasks wait in queue letters", "Reason: serial",
             f"`eqctl why {waiting}` says", "eqctl dump", "eqctl queue set letters expected_runtime=")


@case(config={"eqd.conf": FAST + "[Commands]\nSlots=2\n"})
def stalls_and_a_standing_journal_and_spawner_are_no_reason_for_a_restart():
    with_unit_lines("WatchdogSec=3s\n")
    pid, journald = main_pid(), main_pid("systemd-journald.service")
    with connect() as c:
        c.call("subscribe", events=["stall."])
        block("letters")
        stall_event(c, "stall.begin", queue="letters")
        for stopped in (spawners()[1], journald):
            os.kill(stopped, signal.SIGSTOP)
        try:
            stall_event(c, "stall.begin", part="eqd-spawner", reason="spawn-failed")
            for _ in range(13): # more than two of the watchdog's limits
                stall_event(c, "stall.repeat", queue="letters")
        finally:
            os.kill(journald, signal.SIGCONT)
            os.kill(spawners()[1], signal.SIGCONT)
        stall_event(c, "stall.end", part="eqd-spawner")
    equal((main_pid(), unit("eqd.service", "NRestarts")), (pid, "0"))


@case()
def a_main_loop_that_stands_still_is_restarted():
    with_unit_lines("WatchdogSec=2s\nEnvironment=EQD_FAULT=loop:20\n") # asked twice a second: not before the lines are gone
    first = main_pid()
    restarted()
    equal(main_pid() != first, True)
    contains(messages("-u", "eqd.service"), "Watchdog timeout (limit 2s)!")
    ends_as(submit("--", "true"), "DONE")


@case(start="eqd.service",
      config={"eqd.conf": "[Watchdog]\nWatchdogThresh=1500ms\nPanicOnStall=2\nPanicScope=queue\n"})
def an_eqd_that_gives_up_says_why_and_is_restarted():
    head, waiting = block("letters", "max_crashes=1")
    restarted()
    [pid] = {int(n) for n in re.findall(rf"in-flight {head} pid (\d+) for ", messages("-u", "eqd.service"))}
    all_gone([pid])
    text = messages("-u", "eqd.service")
    contains(text, "Watchdog request (last status: PANIC workqueue: 2 stall(s) exceeded threshold 2 (queue letters: serial))!",
             "Showing busy workqueues and worker pools:",
             "workqueue: 2 stall(s) exceeded threshold 2")
    equal([r["PRIORITY"] for r in journal() if r.get("EQD_EVENT") == "panic"], ["0"])
    ends_as(head, "DEAD", crashes=1) # else it would do the same to the next eqd
    ends_as(waiting, "DONE", attempt=1)
    ends_as(submit("--", "true"), "DONE")


@case(start="eqd.service", config={"eqd.conf": "[Store]\nSegmentSize=1M\n"})
def a_start_may_take_as_long_as_its_store_needs():
    """TimeoutStartSec= is shorter than the reading of the store, of which each file takes a second."""
    eqctl("queue", "pause", "default", user="root")
    with connect() as c:
        for _ in range(18):
            c.call("submit_many", "default", [{"argv": ["true"], "label": "x" * 200}] * 500)
    systemctl("stop", "eqd.service")
    files = len(list((STATE / "store").glob("log-*")))
    equal(files >= 4, True, f"{files} files")
    with_unit_lines("TimeoutStartSec=3s\nEnvironment=EQD_FAULT=slow:1+\n")
    is_state("active")
    equal(json.loads(eqctl("queue", "show", "--json", "default"))["queued"], 9000)
    systemctl("stop", "eqd.service")


@case(start="eqd.service", config={"eqd.conf": "[Daemon]\nStopTimeout=6s\n"})
def a_stop_may_take_as_long_as_its_setting_says():
    """TimeoutStopSec= of the unit is shorter than what the command needs; eqd asks for more."""
    DROPINS.mkdir(parents=True)
    (DROPINS / "case.conf").write_text("[Service]\nTimeoutStopSec=2s\n")
    systemctl("daemon-reload")
    slow = submit("--grace", "10s", "-c", "trap 'sleep 4; echo through >~/through; exit 0' TERM; echo ready; "
                                          "while :; do sleep 0.05; done")
    says(slow, "ready")
    systemctl("stop", "eqd.service", "eqd.socket")
    equal(unit("eqd.service", "Result"), "success")
    equal(Path("/home/alice/through").read_text(), "through\n")


# ---- journal ----

STARTED, STOPPED = "39f53479d3a045ac8e11786248231fbf", "9d1aaa27d60140bd96365438aad20286"


@case(start="eqd.service")
def the_journal_has_eqds_records_under_its_unit():
    systemctl("stop", "eqd.service", "eqd.socket")
    records = journal("-u", "eqd.service")
    ids = [r.get("MESSAGE_ID") for r in records if r.get("UNIT") == "eqd.service"]
    equal([i for i in ids if i in (STARTED, STOPPED)], [STARTED, STOPPED])
    own = [r for r in records if r.get("SYSLOG_IDENTIFIER") == "eqd"]
    equal([r["MESSAGE"].split()[0] for r in own], ["ready", "got", "stopped:"])
    equal([r["PRIORITY"] for r in own], ["6", "5", "5"])
    for r in own:
        equal((r["_SYSTEMD_UNIT"], r["_TRANSPORT"], r["_CAP_EFFECTIVE"], r["_UID"]),
              ("eqd.service", "journal", "0", str(pwd.getpwnam("eqd").pw_uid)))
        equal([k for k in r if k.startswith("CODE_")], [], "they would name the logger, not who logs")


@case(start="eqd.service")
def events_are_found_by_their_fields_and_explained_by_the_catalog():
    ok("journalctl", "--update-catalog")
    (CONFIG / "queues.d").mkdir(parents=True, exist_ok=True)
    (CONFIG / "queues.d/post.queue").write_text("[Queue]\nMaxActive=2\n")
    systemctl("reload", "eqd.service")
    (CONFIG / "queues.d/post.queue").unlink()
    systemctl("reload", "eqd.service")
    wanted = ["ready", "config-reloaded", "queue-file-gone", "config-reloaded"]
    events = lambda: [r["EQD_EVENT"] for r in journal() if "EQD_EVENT" in r]
    eventually(lambda: events() == wanted, lambda: f"{events()}") # a thread of eqd's writes them, when it gets to it
    query = ["journalctl", "--no-pager", "-u", "eqd.service", "EQD_QUEUE=post"]
    record = json.loads(ok(*query, "-o", "json"))
    equal({k: record[k] for k in ("EQD_EVENT", "PRIORITY", "MESSAGE_ID")},
          {"EQD_EVENT": "queue-file-gone", "PRIORITY": "5", "MESSAGE_ID": "92e80099eea7424590465a48121d4a84"})
    contains(ok(*query, "-x"), "Subject: eqd: queue-file-gone",
             "The file of queue post was taken away.", "run `eqctl reload`")


@case(start="eqd.service", config={"eqd.conf": "[Daemon]\nLogLevel=debug\n"})
def a_journal_that_stands_still_stops_nobody():
    journald = main_pid("systemd-journald.service")
    with connect() as c:
        os.kill(journald, signal.SIGSTOP)
        try:
            while c.call("stat")["log_dropped"] == 0: # each connection is a record
                connect().close()
            c.call("ping")
        finally:
            os.kill(journald, signal.SIGCONT)
        connect().close() # its record tells of those that are missing
        eventually(lambda: re.search(r"\d+ log records were dropped", messages("-t", "eqd")), "the loss is not told of")


# ---- user instance ----

@case()
def a_user_instance_runs_under_the_users_manager():
    if not list(Path("/lib").glob("*/security/pam_systemd.so")):
        raise Skip("libpam-systemd is not installed")
    uid = pwd.getpwnam(STRANGER).pw_uid
    manager = f"user@{uid}.service"
    env = {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}
    systemctl("start", manager)
    try:
        ok("systemctl", "--user", "start", "eqd.socket", user=STRANGER, env=env)
        path = Path(f"/run/user/{uid}/eqd/eqd.sock")
        is_member(path, STRANGER, STRANGER, 0o600)
        ok("eqctl", "ping", user=STRANGER, env=env)
        equal(ok("systemctl", "--user", "is-active", "eqd.service", user=STRANGER, env=env), "active")
        out = ok("eqctl", "run", "-c", "id -un; cat /proc/self/cgroup", user=STRANGER, env=env)
        contains(out, STRANGER, f"user@{uid}.service/app.slice/eqd.service/slots/")
        id_ = ok("eqctl", "submit", "-c", TREE, user=STRANGER, env=env)
        with start_process("eqctl", "logs", "-f", id_, user=STRANGER, env=env) as p:
            equal(p.stdout.readline(), "ready\n")
            p.kill()
        tree = pids_in(Path(f"/sys/fs/cgroup/user.slice/user-{uid}.slice/{manager}/app.slice/eqd.service/slots"))
        equal(len(tree) >= 3, True, f"{alive(tree)}")
        ok("systemctl", "--user", "reload", "eqd.service", user=STRANGER, env=env)
        ok("systemctl", "--user", "stop", "eqd.service", user=STRANGER, env=env)
        all_gone(tree)
        equal(Path(f"/home/{STRANGER}/.local/state/eqd").is_dir(), True)
    finally:
        run("systemctl", "stop", manager, seconds=60)


main()
