# SPDX-License-Identifier: MIT
"""The frame of the booted tests: one booted systemd, an installed eqd, many cases.

    @case(start="eqd.service", config={"eqd.conf": "[Daemon]\\nStopTimeout=2s\\n"})
    def a_claim(): ...

    main()

Runs inside what tests/systemd/boot boots, as root. Each case is a point of TAP; its name is the claim. It begins with eqd
and its socket stopped, without configuration, drop-ins and state, and with the units of `start` started. When it ends, eqd is
stopped and must leave nothing: no cgroup, no process of its own or of the users, no failed unit.

Nothing waits by sleeping: systemctl returns when a job is through, states of tasks come as events, and what has no event is
looked at again every few milliseconds, up to a limit.
"""

import collections
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from eqdtest import Result, Rpc, alive, all_pids, contains, equal, eventually, is_gone, report

BUILD = Path(os.environ["BUILD_DIR"])
SOCKET = Path("/run/eqd/eqd.sock")
CONFIG, STATE = Path("/etc/eqd"), Path("/var/lib/eqd")
DROPINS = Path("/etc/systemd/system/eqd.service.d")
UNITS = ("eqd.service", "eqd.socket")
# alice and bob are members of group eqd, carol is not.
MEMBERS, STRANGER = ("alice", "bob"), "carol"
CASE_SECONDS = 150
WAIT_SECONDS = 60 # a machine with many other things to do lets systemctl wait for long; what hangs still ends

Case = collections.namedtuple("Case", "body start config dropins")
CASES = []
cursor = None # of the journal, where the case began


def case(start=(), config=None, dropins=()):
    """start: units to start; config: {file below /etc/eqd: text}; dropins: shipped ones, as their head says."""
    def mark(body):
        CASES.append(Case(body, (start,) if isinstance(start, str) else start, config or {}, dropins))
        return body
    return mark


# ---- commands ----

def environment(user, more):
    entry = pwd.getpwnam(user)
    return {"PATH": f"{installed('bin/eqctl').parent}:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
            "HOME": entry.pw_dir, "USER": user, "SHELL": "/bin/sh", **more}


def options_for(user, env):
    entry = pwd.getpwnam(user)
    options = {"env": environment(user, env or {}), "cwd": entry.pw_dir}
    if user != "root":
        options.update(user=entry.pw_uid, group=entry.pw_gid, extra_groups=os.getgrouplist(user, entry.pw_gid))
    return options


def run(*args, user="root", env=None, seconds=WAIT_SECONDS):
    p = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                       errors="replace", timeout=seconds, **options_for(user, env))
    return Result(p.returncode, p.stdout, p.stderr)


def ok(*args, **options):
    """A command that must succeed; its standard output, stripped."""
    r = run(*args, **options)
    if r.rc != 0:
        raise AssertionError(f"{' '.join(map(str, args))}: exit status {r.rc}, said {r.out!r} {r.err!r}")
    return r.out.strip()


def fails(rc, *args, says=(), **options):
    """A command that must fail with this exit status (None: any) and say these things on standard error."""
    r = run(*args, **options)
    what = " ".join(map(str, args))
    if r.rc == 0 or rc not in (r.rc, None):
        raise AssertionError(f"{what}: exit status {r.rc}, want {rc}; said {r.out!r} {r.err!r}")
    contains(r.err, *([says] if isinstance(says, str) else says))
    return r


def start_process(*args, user="root", env=None):
    return subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.PIPE, **options_for(user, env))


# ---- eqd ----

def submit(*args, user="alice", **options):
    return ok("eqctl", "submit", *args, user=user, **options)


def task(id_, **options):
    return json.loads(ok("eqctl", "show", "--json", id_, **options))


def ends_as(id_, state, **fields):
    """Waits for the end of a task and looks at it."""
    run("eqctl", "wait", id_)
    shown = task(id_)
    equal(shown["state"], state, f"state of {id_} ({shown})")
    for key, value in fields.items():
        equal(shown.get(key), value, f"{key} of {id_} ({shown})")
    return shown


def says(id_, line):
    """Waits until a running task has printed a line. What follows the output ends here, the task goes on."""
    with start_process("eqctl", "logs", "-f", id_) as p:
        for got in p.stdout:
            if got.strip() == line:
                p.kill()
                return
    raise AssertionError(f"{id_} ended without saying {line!r}: {task(id_)}")


def connect():
    return Rpc(SOCKET)


# ---- systemd ----

def systemctl(*args, **options):
    return ok("systemctl", *args, **options)


def unit(name, *properties):
    """Properties of a unit: a dict, or the value if only one is named."""
    lines = systemctl("show", name, "-p", ",".join(properties)).splitlines()
    values = dict(line.split("=", 1) for line in lines)
    return values[properties[0]] if len(properties) == 1 else values


def is_state(state, name="eqd.service"):
    equal(unit(name, "ActiveState"), state, f"state of {name}")


def main_pid(name="eqd.service"):
    return int(unit(name, "MainPID"))


def cgroup(name="eqd.service"):
    return Path("/sys/fs/cgroup") / f"system.slice/{name}"


def pids_in(directory):
    """All processes of a cgroup and of those below it."""
    found = []
    for path in [directory, *directory.rglob("*")] if directory.exists() else []:
        try:
            found += [int(line) for line in (path / "cgroup.procs").read_text().split()] if path.is_dir() else []
        except OSError:
            pass # it went meanwhile
    return found


def cgroup_of(pid):
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def journal(*matches):
    """Records since the case began, as dicts."""
    ok("journalctl", "--sync")
    args = [f"--after-cursor={cursor}"] if cursor else []
    out = ok("journalctl", "--no-pager", "-o", "json", *args, *matches)
    return [json.loads(line) for line in out.splitlines()]


def messages(*matches):
    return "\n".join(str(record.get("MESSAGE")) for record in journal(*matches))


def installed(name):
    """Where `meson install` puts the file that ends so."""
    files = json.loads((BUILD / "meson-info/intro-installed.json").read_text()).values()
    return next(Path(path) for path in files if path.endswith("/" + name))


def dropin(name):
    """Installs a shipped drop-in as its head tells people to: the commented lines that are indented."""
    path = installed(f"drop-ins/{name}.conf")
    head = path.read_text().partition("[Service]")[0]
    lines = [line[6:] for line in head.splitlines() if line.startswith("#     ")]
    script = "\n".join(line for line in lines if "systemctl restart" not in line)
    contains(script, "install -D")
    ok("sh", "-ec", f"cd {path.parent}; {script}")
    systemctl("daemon-reload")


# ---- running ----

def own_processes():
    """Of eqd and of users: there must be none between the cases."""
    uids = {pwd.getpwnam(name).pw_uid for name in ("eqd", *MEMBERS, STRANGER)}
    found = []
    for pid in all_pids():
        try:
            if os.stat(f"/proc/{pid}").st_uid in uids and not is_gone(pid):
                found.append(pid)
        except OSError:
            pass # gone
    return found


def clean():
    """Stops eqd and takes away what a case has set up."""
    run("systemctl", "stop", *UNITS, seconds=60)
    shutil.rmtree(CONFIG, ignore_errors=True)
    shutil.rmtree(STATE, ignore_errors=True)
    if DROPINS.exists():
        shutil.rmtree(DROPINS)
        systemctl("daemon-reload")
    run("systemctl", "reset-failed")


def nothing_is_left():
    equal(unit("eqd.service", "ActiveState", "Result"), {"ActiveState": "inactive", "Result": "success"},
          f"eqd.service after the case: {messages('-u', 'eqd.service')}")
    eventually(lambda: not cgroup().exists(), lambda: f"left in {cgroup()}: {alive(pids_in(cgroup()))}")
    eventually(lambda: not own_processes(), lambda: f"processes that are left: {alive(own_processes())}")


def journal_cursor():
    ok("journalctl", "--sync")
    out = ok("journalctl", "--no-pager", "-n", "0", "--show-cursor")
    return out.rpartition("-- cursor: ")[2] or None


def on_alarm(*_):
    raise AssertionError(f"not through within {CASE_SECONDS} s")


def run_case(c):
    global cursor
    cursor = journal_cursor()
    signal.alarm(CASE_SECONDS)
    try:
        for name, text in c.config.items():
            (CONFIG / name).parent.mkdir(parents=True, exist_ok=True)
            (CONFIG / name).write_text(text)
        for name in c.dropins:
            dropin(name)
        if c.start:
            systemctl("start", *c.start)
        c.body()
        systemctl("stop", *UNITS)
        nothing_is_left()
    except BaseException:
        signal.alarm(0)
        for record in journal()[-40:]:
            print(f"# journal: {record.get('SYSLOG_IDENTIFIER')}: {record.get('MESSAGE')}")
        raise
    finally:
        signal.alarm(0)
        clean()
        for pid in own_processes(): # of a case that failed; the next one is not to suffer
            os.kill(pid, signal.SIGKILL)


def set_up():
    ok("systemctl", "start", "dbus.socket") # is not up this early
    for name in (*MEMBERS, STRANGER):
        ok("useradd", "-m", "-s", "/bin/sh", name)


def main():
    signal.signal(signal.SIGALRM, on_alarm)
    os.umask(0o022)
    set_up()
    only = os.environ.get("EQD_TEST_ONLY", "").split()
    cases = [c for c in CASES if not only or c.body.__name__ in only or c is CASES[0]]
    print(f"1..{len(cases)}", flush=True)
    good = []
    for i, c in enumerate(cases, 1):
        began = time.monotonic()
        good.append(report(i, c.body.__name__, lambda c=c: run_case(c)))
        print(f"# {time.monotonic() - began:.2f} s", flush=True)
    sys.exit(0 if all(good) else 1)
