#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Who a task runs as, and who may see what. Needs root, who alone can become several users."""

import grp
import os
import shutil
import subprocess
from pathlib import Path

from eqdtest import (USER_A, USER_B, RpcError, Skip, command_line, contains, descendants, equal, in_child, main,
                     status_fields, test)

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def as_a(eqd, *args, **options):
    return eqd.ok(*args, uid=USER_A, **options)


def no_capabilities(text, what, own=False):
    """own: of an eqd without privilege, which can no more empty the bounding set than any other user can."""
    for line in text.splitlines():
        name, _, value = line.partition(":\t")
        if name in CAPABILITY_SETS and not (own and name == "CapBnd"):
            equal(int(value, 16), 0, f"{name} of {what}")
    contains(text, *CAPABILITY_SETS)


@test(root=True, other_users=True)
def a_task_runs_as_its_submitter_with_all_his_groups(eqd):
    r = eqd.ctl("run", "-c", "id -u; id -g; id -G", uid=USER_A, groups=[USER_A, USER_B, 7])
    equal(r.rc, 0, r.err)
    uid, gid, groups = r.out.splitlines()
    equal((uid, gid), (str(USER_A), str(USER_A)))
    equal(set(groups.split()), {str(USER_A), str(USER_B), "7"})


@test(root=True, other_users=True)
def all_four_user_ids_are_the_submitters(eqd):
    r = eqd.ctl("run", "--", "grep", "-E", "^(Uid|Gid):", "/proc/self/status", uid=USER_A)
    equal(r.out.split(), ["Uid:", *[str(USER_A)] * 4, "Gid:", *[str(USER_A)] * 4])


@test(root=True, other_users=True)
def a_task_has_no_capability_in_any_set(eqd):
    no_capabilities(eqd.ctl("run", "--", "cat", "/proc/self/status", uid=USER_A).out, "a user's task")
    no_capabilities(eqd.ctl("run", "--", "cat", "/proc/self/status").out, "root's task")


@test(root=True, other_users=True)
def a_task_cannot_read_what_its_user_cannot(eqd):
    r = eqd.ctl("run", "--", "cat", "/etc/shadow", uid=USER_A)
    equal(r.rc, 1)
    contains(r.err, "ermission denied")
    secret = eqd.dir / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    os.chown(secret, USER_B, USER_B)
    equal(eqd.ctl("run", "--", "cat", secret, uid=USER_A).rc, 1)
    equal(eqd.ctl("run", "--", "cat", secret, uid=USER_B).rc, 0)


def becomes(eqd):
    """Who a task of USER_A is in a program that root owns and that is set-user-ID; and whether no_new_privs is set in it."""
    program = eqd.dir / "whoever"
    shutil.copy(shutil.which("id"), program)
    program.chmod(0o4755)
    r = subprocess.run([program, "-u"], user=USER_A, capture_output=True, text=True, check=True)
    if r.stdout != "0\n":
        raise Skip(f"set-user-ID programs are without effect in {eqd.dir}")
    if status_fields("self")["NoNewPrivs"] == "1":
        raise Skip("they are without effect in all that this test starts")
    told = as_a(eqd, "run", "-c", f"{program} -u; grep NoNewPrivs /proc/self/status").split()
    return int(told[0]), told[2]


@test(root=True, other_users=True)
def a_set_user_id_program_gains_nothing_in_a_task_however_eqd_was_started(eqd):
    equal(becomes(eqd), (USER_A, "1"))


@test(root=True, other_users=True, config={"eqd.conf": "[Commands]\nSetuidPrograms=yes\n"})
def set_user_id_programs_work_where_the_configuration_says_so(eqd):
    equal(becomes(eqd), (0, "0"))
    r = eqd.ctl("run", "--", "grep", "-E", "^Cap(Eff|Amb|Bnd):", "/proc/self/status", uid=USER_A)
    equal([int(line.split()[1], 16) for line in r.out.splitlines()], [0] * 3)


@test(root=True, other_users=True)
def a_task_of_root_is_shown_as_reduced_and_is(eqd):
    shown = eqd.wait(eqd.sh("id -u"))
    equal(shown.get("reduced"), True)
    secret = eqd.dir / "work/secret"
    secret.write_text("x")
    os.chown(secret, USER_A, USER_A)
    secret.chmod(0o600)
    equal(eqd.ctl("run", "--", "cat", secret).rc, 1, "root without CAP_DAC_OVERRIDE")


@test(root=True, other_users=True)
def output_files_are_opened_as_the_user(eqd):
    closed = eqd.dir / "closed"
    closed.mkdir(mode=0o700)
    task = as_a(eqd, "submit", "--stdout", closed / "out", "--", "true")
    shown = eqd.wait(task)
    equal(shown["state"], "FAILED")
    contains(shown["error"], "ermission")
    equal((closed / "out").exists(), False)
    task = as_a(eqd, "submit", "--stdout", eqd.dir / "work/out", "--", "echo", "mine")
    eqd.ends_as(task, "DONE")
    equal((eqd.dir / "work/out").stat().st_uid, USER_A)


@test(root=True, other_users=True)
def the_working_directory_is_entered_as_the_user(eqd):
    closed = eqd.dir / "closed"
    closed.mkdir(mode=0o700)
    shown = eqd.wait(as_a(eqd, "submit", "-C", closed, "--", "true"))
    equal(shown["state"], "FAILED")
    contains(shown["error"], "ermission")


@test(root=True, other_users=True)
def users_see_their_own_tasks_only_and_root_all(eqd):
    mine = as_a(eqd, "submit", "-c", "echo mine")
    theirs = eqd.ok("submit", "-c", "echo theirs", uid=USER_B)
    roots = eqd.submit("-c", "echo roots")
    eqd.wait(mine, theirs, roots)
    equal([t["id"] for t in eqd.ls("-A", uid=USER_A)], [mine])
    equal([t["id"] for t in eqd.ls("-A", uid=USER_B)], [theirs])
    equal([t["id"] for t in eqd.ls("-A")], [mine, theirs, roots])
    equal([t["id"] for t in eqd.ls("-A", "-u", USER_B)], [theirs])
    equal(as_a(eqd, "logs", mine), "mine")
    for verb in ("show", "why", "logs", "cancel", "kill", "hold", "release", "retry", "wait"):
        r = eqd.ctl(verb, theirs, uid=USER_A)
        if r.rc == 0 or "theirs" in r.out:
            raise AssertionError(f"{verb} of another user's task: {r}")
        equal(r.rc in (66, 77, 125), True, f"{verb}: {r}")
    equal(eqd.show(theirs)["state"], "DONE")
    equal(eqd.show(theirs)["attempt"], 1)


@test(root=True, other_users=True)
def users_cannot_stop_the_tasks_of_others(eqd):
    theirs = eqd.ok("submit", "--", "sleep", "1000", uid=USER_B)
    eqd.until_state(theirs, "RUNNING")
    for args in (["cancel", theirs], ["kill", "-s", "KILL", theirs], ["cancel", "-q", "default", "--running", "--yes"]):
        eqd.ctl(*args, uid=USER_A)
    with eqd.connect(USER_A) as c:
        for method, params in (("cancel", [[theirs], {"running": True}]), ("kill", [[theirs], 9])):
            try:
                results = c.call(method, *params)
                equal(results[0] != 0, True, f"{method} gave {results}")
            except RpcError:
                pass
    equal(eqd.show(theirs)["state"], "RUNNING")
    eqd.ok("cancel", theirs)
    eqd.ends_as(theirs, "CANCELED")


@test(root=True, other_users=True)
def events_of_other_users_tasks_are_not_told(eqd):
    mine, roots = eqd.events(uid=USER_A, events=["task."]), eqd.events(events=["task."])
    theirs = eqd.ok("submit", "--", "true", uid=USER_B)
    own = as_a(eqd, "submit", "--", "true")
    is_end = lambda method, params: method == "event" and params[0]["event"] == "task.finished"
    equal(mine.note(is_end)[0]["id"][1], int(own.split("/")[1]))
    equal(roots.note(is_end)[0]["id"][1], int(theirs.split("/")[1]))


@test(root=True, other_users=True)
def a_queue_is_controlled_by_its_maker_and_administrators(eqd):
    as_a(eqd, "queue", "create", "hers")
    for args in (["pause", "hers"], ["stop", "hers"], ["set", "hers", "max_active=9"], ["rm", "hers"],
                 ["pause", "default"]):
        eqd.fails(77, "queue", *args, uid=USER_B)
    as_a(eqd, "queue", "pause", "hers")
    eqd.ok("queue", "resume", "hers")
    as_a(eqd, "queue", "rm", "hers")


@test(root=True, other_users=True, config={"queues.d/closed.queue": f"[Queue]\nAllowSubmit={USER_A}\n"})
def allow_submit_names_who_may(eqd):
    as_a(eqd, "submit", "-q", "closed", "--", "true")
    eqd.fails(77, "submit", "-q", "closed", "--", "true", uid=USER_B)
    eqd.ok("submit", "-q", "closed", "--", "true")


def with_own_user_database(place):
    """An eqd that sees /etc/passwd and /etc/group with a user `clerk` in three groups."""
    if subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        raise Skip("no mount name space can be made here")
    etc = place.dir / "etc"
    etc.mkdir()
    for name, line in (("passwd", f"clerk:x:{USER_B}:{USER_B}::/:/bin/sh"),
                       ("group", "papers:x:7001:clerk\npens:x:7002:nobody,clerk")):
        (etc / name).write_text(Path("/etc", name).read_text() + line + "\n")
    eqd = place.dir / "bin/daemon/eqd"
    real = eqd.rename(eqd.with_name("eqd.real"))
    binds = "; ".join(f"mount --bind {etc / name} /etc/{name}" for name in ("passwd", "group"))
    eqd.write_text(f"#!/bin/sh\nexec unshare -m sh -ec '{binds}; exec {real} \"$@\"' sh \"$@\"\n")
    eqd.chmod(0o755)


@test(root=True, other_users=True, change=with_own_user_database,
      config={"queues.d/fixed.queue": "[Queue]\nUser=clerk\n"})
def a_fixed_user_has_the_groups_that_a_login_gives_him(eqd):
    task = as_a(eqd, "submit", "-q", "fixed", "-c", "id -u; id -G")
    eqd.ends_as(task, "DONE")
    uid, groups = eqd.logs(task).splitlines()
    equal((uid, set(groups.split())), (str(USER_B), {str(USER_B), "7001", "7002"}))


@test(root=True, other_users=True, config={"queues.d/fixed.queue": f"[Queue]\nUser={USER_B}\nGroup={USER_B}\n"})
def a_queue_may_have_a_fixed_user(eqd):
    task = as_a(eqd, "submit", "-q", "fixed", "-c", "id -u; id -g; id -G")
    eqd.ends_as(task, "DONE")
    equal(eqd.logs(task).split(), [str(USER_B)] * 3)
    equal(eqd.show(task)["run_uid"], USER_B)
    eqd.fails(2, "queue", "set", "fixed", "user=0", says="user")


@test(root=True, other_users=True, config={"eqd.conf": "[Commands]\nRootTasks=refuse\n"})
def tasks_of_root_can_be_refused(eqd):
    eqd.fails(77, "submit", "--", "true", says="root")
    as_a(eqd, "submit", "--", "true")


@test(root=True, other_users=True)
def identity_own_refuses_others_from_the_next_reload_on(eqd):
    as_a(eqd, "submit", "--", "true")
    eqd.configure("eqd.conf", "[Commands]\nIdentity=own\n")
    eqd.ok("reload")
    eqd.fails(77, "submit", "--", "true", uid=USER_A, says="cannot run commands as uid")
    eqd.submit("--", "true")


@test(root=True, other_users=True)
def who_may_not_open_the_socket_is_told_how_to_come_to_it(eqd):
    eqd.socket.chmod(0o600)
    eqd.fails(77, "ping", uid=USER_A, says=["not permitted to use", "ermission denied", "-S or EQD_SOCKET"])
    os.chown(eqd.socket, 0, grp.getgrnam("daemon").gr_gid)
    eqd.socket.chmod(0o660)
    eqd.fails(77, "ping", uid=USER_A, says=["members of group daemon", "usermod -aG daemon USER", "next login"])
    eqd.ok("ping", uid=USER_A, groups=[grp.getgrnam("daemon").gr_gid])


@test(root=True, other_users=True)
def reload_is_for_administrators(eqd):
    eqd.fails(77, "reload", uid=USER_A)
    eqd.ok("reload")


OPERATORS = 7007 # a group of nobody else


def administers(eqd, task, **who):
    """Whether this is an administrator: sees the task of another user, reads its log, reloads, stops it. All of it, or nothing."""
    seen = task in [t["id"] for t in eqd.ls("-A", **who)]
    done = {"ls": seen, **{verb: eqd.ctl(verb, task, **who).rc == 0 for verb in ("show", "logs")},
            "reload": eqd.ctl("reload", **who).rc == 0, "queue pause": eqd.ctl("queue", "pause", "default", **who).rc == 0,
            "cancel": eqd.ctl("cancel", task, **who).rc == 0}
    if len(set(done.values())) != 1:
        raise AssertionError(f"partly an administrator: {done}")
    if seen:
        eqd.ok("queue", "resume", "default", **who)
        eqd.ends_as(task, "CANCELED")
    else:
        equal(eqd.show(task)["state"], "RUNNING")
    return seen


def runs_for_b(eqd):
    task = eqd.ok("submit", "-c", "echo here; exec sleep 1000", uid=USER_B)
    eqd.until_state(task, "RUNNING")
    return task


@test(root=True, other_users=True, config={"eqd.conf": f"[Daemon]\nAdminGroup={OPERATORS}\n"})
def members_of_admin_group_administer_and_others_do_not(eqd):
    task = runs_for_b(eqd)
    equal(administers(eqd, task, uid=USER_A, groups=[USER_A, 7]), False)
    equal(administers(eqd, task, uid=USER_A, groups=[USER_A, OPERATORS]), True)
    task = runs_for_b(eqd)
    equal(administers(eqd, task, uid=OPERATORS), True) # its primary group


@test(root=True, other_users=True, config={"eqd.conf": f"[Daemon]\nAdminGroup={OPERATORS}\n"})
def a_reload_gives_and_takes_administration_also_on_open_connections(eqd):
    task = runs_for_b(eqd)
    eqd.configure("eqd.conf", f"[Daemon]\nAdminGroup={USER_A}\n")
    with eqd.connect(USER_A) as c:
        try:
            c.call("reload")
            raise AssertionError("one who is in no admin group reloads")
        except RpcError as e:
            equal(e.text.split(":")[0], "reload is for administrators")
        eqd.ok("reload")
        c.call("reload")
        equal(c.call("show", [task])[0]["state"], "RUNNING")
        equal(administers(eqd, task, uid=OPERATORS), False)
        equal(administers(eqd, task, uid=USER_A), True)
        eqd.configure("eqd.conf", "")
        eqd.ok("reload")
        theirs = runs_for_b(eqd)
        equal(administers(eqd, theirs, uid=USER_A), False)
        for method, params in (("reload", []), ("show", [[theirs]])):
            try:
                c.call(method, *params)
                raise AssertionError(f"{method} by one who is no administrator any more")
            except RpcError:
                pass
        eqd.ok("cancel", theirs)


@test(root=True, other_users=True)
def a_user_cannot_signal_or_trace_eqd_or_its_spawner(eqd):
    for pid in [eqd.pid, *descendants(eqd.pid)]:
        status, text = in_child(USER_A, lambda p=pid: os.kill(p, 0))
        equal(status, 1, f"kill of {command_line(pid)}: {text}")
        status, text = in_child(USER_A, lambda p=pid: os.listdir(f"/proc/{p}/fd") and None)
        equal(status, 1, f"descriptors of {command_line(pid)}: {text}")


@test(root=True, other_users=True)
def eqd_itself_holds_no_capability(eqd):
    fields = status_fields(eqd.pid)
    for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        equal(int(fields[name], 16), 0, f"{name} of eqd")
    equal(fields["NoNewPrivs"], "1")


@test(root=True, uid=USER_A)
def an_eqd_of_a_user_runs_his_tasks(eqd):
    r = eqd.ctl("run", "-c", "id -u; id -g", uid=USER_A)
    equal((r.rc, r.out.split()), (0, [str(USER_A)] * 2), r.err)
    no_capabilities(eqd.ctl("run", "--", "cat", "/proc/self/status", uid=USER_A).out, "a task of a user's eqd", own=True)


@test(root=True, uid=USER_A)
def an_eqd_of_a_user_refuses_other_users_clearly(eqd):
    for uid in (USER_B, 0):
        eqd.fails(77, "submit", "--", "true", uid=uid, says=[str(USER_A), "--user"])
    with eqd.connect(USER_A) as c:
        equal(c.call("stat")["identities"], "own")


@test(root=True, uid=USER_A)
def whose_eqd_it_is_administers_it(eqd):
    eqd.ok("queue", "create", "q", uid=USER_A)
    eqd.ok("reload", uid=USER_A)
    eqd.ok("queue", "rm", "q", uid=USER_A)


@test(root=True, uid=USER_A)
def a_store_that_belongs_to_somebody_else_is_refused_with_whose_it_must_be(eqd):
    eqd.ok("submit", "--hold", "--", "true", uid=USER_A)
    shutil.copytree(eqd.dir / "state", eqd.dir / "state2") # as by root, from a backup
    os.chown(eqd.dir / "state2", USER_A, USER_A)
    os.chown(eqd.dir / "state2/store", USER_A, USER_A)
    (eqd.dir / "state2/lock").unlink()
    r = eqd.run_eqd("--socket", eqd.dir / "s2", user=USER_A, group=USER_A)
    equal(r.rc, 1, str(r))
    contains(r.err, "Permission denied; all files below", f"{eqd.dir}/state2/store must belong to uid {USER_A}")


main()
