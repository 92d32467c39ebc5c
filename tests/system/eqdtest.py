# SPDX-License-Identifier: MIT
"""The frame of the system tests: real eqd, real eqctl, private socket.

    @test()
    def cancel_of_a_queued_task_says_so(eqd): ...

    main()

Each test gets an eqd of its own in a temporary directory, with a private NOTIFY_SOCKET on which the start is waited for,
and is a point of TAP; its name is the claim. When it returns, eqd is stopped by SIGTERM and must leave in time, with exit
status 0, its descriptors as at the start, no process that it started, and no zombie before.

Nothing here waits by sleeping: states are waited for by events of `subscribe` (eqd.until_state), processes by pidfd. What
has no event (descriptors and processes of others going away) is looked at again every few milliseconds, up to a limit.

Environment, given by meson: BUILD_DIR. Variables read: EQD_LONG (long suites), EQD_TEST_ONLY (names), EQD_TEST_KEEP,
CK_TIMEOUT_MULTIPLIER (as for the unit tests).
"""

import collections
import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import msgpack_mini

BUILD = Path(os.environ.get("BUILD_DIR", Path(__file__).resolve().parents[2] / "build"))
LONG = os.environ.get("EQD_LONG") == "1"
# Sanitizers and loaded machines are slow; a test that hangs still ends. `check` says how much slower they may be.
SLOWER = int(os.environ.get("CK_TIMEOUT_MULTIPLIER", "1"))
TEST_SECONDS = 300
WAIT_SECONDS = 120
STOP_SECONDS = 120
FINISHED = ("DONE", "FAILED", "TIMEOUT", "CANCELED", "EXPIRED", "DEAD")
# Two users who are neither root nor, most likely, anybody.
USER_A, USER_B = 61001, 61002


class Skip(Exception):
    pass


Result = collections.namedtuple("Result", "rc out err")
Test = collections.namedtuple("Test", "body root options")
TESTS = []


def test(root=False, **options):
    """Marks a test. root: skipped for others. The rest are arguments of Eqd; eqd=False: it gets a Place instead."""
    def mark(body):
        TESTS.append(Test(body, root, options))
        return body
    return mark


def eventually(condition, what, seconds=WAIT_SECONDS):
    """For what no event tells of. Looks, again and again, until it is so."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        select.select([], [], [], 0.005)


def equal(got, want, what=""):
    if got != want:
        raise AssertionError(f"{what}{': ' if what else ''}got {got!r}, want {want!r}")


def contains(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError(f"{part!r} is not in {text!r}")


# ---- processes ----

def proc_stat(pid):
    """(state, parent) of a process, None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[1])
    except (OSError, IndexError):
        return None


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(pid):
    children = collections.defaultdict(list)
    for p in all_pids():
        stat = proc_stat(p)
        if stat:
            children[stat[1]].append(p)
    found, todo = [], [pid]
    while todo:
        todo = [c for p in todo for c in children[p]]
        found += todo
    return found


def comm(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def status_fields(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def is_gone(pid):
    stat = proc_stat(pid)
    return stat is None or stat[0] in "ZX"


def start_of(pid):
    """When it began, which with its number names a process for good. None: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def is_dead_or(pid, start):
    """Gone, or its number has been given to another process since."""
    return start_of(pid) != start


def marked(directory):
    """Processes whose environment or working directory names the test's directory."""
    found, needle = [], str(directory).encode()
    for pid in all_pids():
        if pid == os.getpid() or is_gone(pid):
            continue
        try:
            if needle in Path(f"/proc/{pid}/environ").read_bytes() or \
                    os.readlink(f"/proc/{pid}/cwd").startswith(str(directory)):
                found.append(pid)
        except OSError:
            pass # gone, or another user's
    return found


def in_child(uid, work, groups=()):
    """Runs work() in a child that has become uid; returns (exit status, what it returned as bytes)."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            become(uid, groups)
            os.write(write_end, work() or b"")
            status = 0
        except BaseException:
            os.write(write_end, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as f:
        data = f.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), data


def become(uid, groups=()):
    os.setgroups(list(groups))
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def cgroup2():
    """Where cgroups can be made, or the test is skipped."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(path, os.W_OK) and Path(path).is_relative_to("/sys/fs/cgroup"):
            return Path(path)
    raise Skip("there is no cgroup2 below /sys/fs/cgroup that may be written")


# ---- rpc ----

class RpcError(Exception):
    def __init__(self, error):
        super().__init__(repr(error))
        self.code, self.text = error[0], error[1]
        self.details = error[2] if len(error) > 2 else {}


class Closed(Exception):
    pass


class Rpc:
    """One connection: MessagePack-RPC as any client would speak it."""

    chunk = 262144 # bytes read at once

    def __init__(self, path, uid=None, groups=()):
        self.buf = bytearray()
        self.replies = {}
        self.notes = collections.deque()
        self.requests = collections.deque() # of eqd to this client: (msgid, method, params)
        self.next_id = 0
        self.sock = self.connect(str(path), uid, groups)

    @staticmethod
    def connect(path, uid, groups=()):
        if uid is None or uid == os.geteuid():
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
            return s
        ours, theirs = socket.socketpair()

        def work():
            s = socket.socket(socket.AF_UNIX)
            s.connect(path) # the peer's credentials are those of this moment
            socket.send_fds(theirs, [b"x"], [s.fileno()])
        with ours, theirs:
            status, text = in_child(uid, work, groups)
            if status:
                raise PermissionError(text.decode())
            return socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0])

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, method, *params, fds=(), **options):
        msgid, self.next_id = self.next_id, self.next_id + 1
        message = msgpack_mini.encode([0, msgid, method, [*params, options] if options else list(params)])
        try:
            sent = socket.send_fds(self.sock, [message], list(fds)) if fds else 0
            self.sock.sendall(message[sent:])
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Closed("eqd closed the connection") from e
        return msgid

    def read(self):
        return self.sock.recv(self.chunk)

    def receive(self, seconds=WAIT_SECONDS):
        """Takes one message in. False: none came in time."""
        end = time.monotonic() + seconds
        while True:
            try:
                message, used = msgpack_mini.decode(self.buf)
                del self.buf[:used]
                break
            except (IndexError, msgpack_mini.struct.error):
                pass
            if not select.select([self.sock], [], [], max(0, end - time.monotonic()))[0]:
                return False
            try:
                data = self.read()
            except ConnectionResetError:
                data = b"" # it had not read all that was sent
            if not data:
                raise Closed("eqd closed the connection")
            self.buf += data
        if message[0] == 1:
            self.replies[message[1]] = message[2:]
        elif message[0] == 0:
            self.requests.append(tuple(message[1:]))
        else:
            self.notes.append((message[1], message[2]))
        return True

    def reply(self, msgid, seconds=WAIT_SECONDS):
        while msgid not in self.replies:
            if not self.receive(seconds):
                raise AssertionError(f"no answer to request {msgid} within {seconds} s")
        error, result = self.replies.pop(msgid)
        if error is not None:
            raise RpcError(error)
        return result

    def call(self, method, *params, fds=(), **options):
        return self.reply(self.send(method, *params, fds=fds, **options))

    def note(self, wanted, seconds=WAIT_SECONDS):
        """Takes notifications in until wanted(method, params) is true of one, and returns its params."""
        end = time.monotonic() + seconds
        while True:
            while self.notes:
                method, params = self.notes.popleft()
                if wanted(method, params):
                    return params
            if time.monotonic() > end or not self.receive(end - time.monotonic()):
                raise AssertionError(f"the notification did not come within {seconds} s")


def stalls(connection):
    """Those that it was told of and has not looked at yet, of queues, pools and tasks. That a part of eqd, such as its store, does not
    answer for a while is told as well, and rightly: the disk and the CPUs are others', too."""
    return [params[0] for method, params in connection.notes if method == "event" and "part" not in params[0]]


# ---- eqd ----

def notification(data):
    """A datagram to the service manager, as a dict."""
    return dict(line.split("=", 1) for line in data.decode().splitlines())


class Notifications:
    """What eqd tells the service manager. A thread takes it in at once, as a service manager does: a socket holds ten datagrams
    (net.unix.max_dgram_qlen), and with the next one eqd would wait until the test comes to read them."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told, self.changed, self.closed = collections.deque(), threading.Condition(), False

    def start(self):
        """When READY=1 has been read."""
        threading.Thread(target=self.read, daemon=True).start()

    def take(self):
        """All that is there. With the lock."""
        try:
            while True:
                self.told.append(notification(self.socket.recv(65536, socket.MSG_DONTWAIT)))
        except BlockingIOError:
            pass

    def read(self):
        while not self.closed:
            select.select([self.socket], [], [])
            with self.changed:
                self.take()
                self.changed.notify_all()

    def next(self, seconds):
        with self.changed:
            self.take()
            return self.told.popleft() if self.changed.wait_for(lambda: self.told, max(0, seconds)) else None

    def close(self):
        """Wakes the thread up to its end; the descriptor goes with the last who holds this."""
        self.closed = True
        self.socket.shutdown(socket.SHUT_RD)


class Place:
    """A temporary directory for an eqd, and the programs. Removed at the end."""

    def __init__(self):
        # Short, because the path of a socket is.
        self.dir = Path(tempfile.mkdtemp(prefix="eqd-", dir=os.environ.get("TMPDIR")))
        self.dir.chmod(0o755)
        self.eqd, self.eqctl = BUILD / "daemon/eqd", BUILD / "client/eqctl"
        self.socket = self.dir / "s"

    def copy_programs(self):
        """For other users: the build directory may be closed to them."""
        bin_dir = self.dir / "bin"
        for name in ("daemon/eqd", "daemon/spawner/eqd-spawner", "daemon/storetool/eqd-store", "client/eqctl"):
            target = bin_dir / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(BUILD / name, target)
        for lib in (BUILD / "client").glob("libeq.so*"):
            if lib.is_file():
                shutil.copy(lib, bin_dir / "client" / lib.name)
        for path in [bin_dir, *bin_dir.rglob("*")]:
            path.chmod(0o755)
        self.eqd, self.eqctl = bin_dir / "daemon/eqd", bin_dir / "client/eqctl"

    def environment(self, **more):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("EQD_", "XDG_", "NOTIFY_", "LISTEN_"))}
        return {**env, "TMPDIR": str(self.dir), **more}

    def run_eqd(self, *args, env=None, seconds=WAIT_SECONDS, **options):
        """An eqd that is expected to end by itself."""
        p = subprocess.run([self.eqd, "--state", self.dir / "state2", "--config", self.dir / "config", *args],
                           env=self.environment(**(env or {})), stdin=subprocess.DEVNULL, capture_output=True,
                           timeout=seconds, check=False, **options)
        return Result(p.returncode, p.stdout.decode(errors="replace"), p.stderr.decode(errors="replace"))

    def ctl(self, *args, uid=None, groups=(), input=None, env=None, seconds=WAIT_SECONDS, cwd=None, pass_fds=(),
            raw=False):
        """Runs eqctl. input: text or bytes for its standard input, None: /dev/null."""
        data = input.encode() if isinstance(input, str) else input
        source = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        p = subprocess.run([self.eqctl, "--socket", self.socket, *map(str_or_bytes, args)],
                           env=self.environment(**(env or {})), capture_output=True, timeout=seconds, check=False,
                           cwd=cwd or self.dir, pass_fds=pass_fds,
                           preexec_fn=None if uid is None else lambda: become(uid, groups), **source)
        if raw:
            return Result(p.returncode, p.stdout, p.stderr)
        return Result(p.returncode, p.stdout.decode(errors="replace"), p.stderr.decode(errors="replace"))

    def start_ctl(self, *args, uid=None, stdin=subprocess.DEVNULL):
        return subprocess.Popen([self.eqctl, "--socket", self.socket, *map(str_or_bytes, args)],
                                env=self.environment(), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                cwd=self.dir, preexec_fn=None if uid is None else lambda: become(uid))

    def remove(self):
        if os.environ.get("EQD_TEST_KEEP"):
            print(f"# kept {self.dir}")
            return
        shutil.rmtree(self.dir)


def str_or_bytes(arg):
    return arg if isinstance(arg, bytes) else str(arg)


class Eqd(Place):
    """A running eqd. config: {file below the configuration directory: text}; uid: whom it runs as; change(self): called
    before it is started; cgroup: with a cgroup for each command, below self.cgroup, and
    this eqd.conf, if it is one; notify: what it tells the service manager
    after READY=1 can be read by notified()."""

    def __init__(self, *args, config=None, env=None, uid=None, other_users=False, nofile=None, change=None, cgroup=False,
                 notify=False, user=False):
        super().__init__()
        self.process, self.uid, self.connections, self.descriptors, self.cgroup = None, uid, [], None, None
        self.notify = Notifications() if notify else None
        self.env = dict(env or {}) # of the first start; `change` may add to it
        try:
            self.prepare(config or {}, uid, other_users)
            if cgroup:
                self.prepare_cgroup("" if cgroup is True else cgroup)
            if change:
                change(self)
            self.start((*args, "--user") if user else args, self.env, nofile)
        except BaseException:
            self.kill()
            self.remove()
            raise

    def prepare(self, config, uid, other_users):
        if uid is not None or other_users:
            self.copy_programs()
        for name in ("state", "config", "config/queues.d", "work"):
            (self.dir / name).mkdir()
        for name, text in config.items():
            self.configure(name, text)
        (self.dir / "work").chmod(0o1777)
        if uid is not None:
            for path in (self.dir, self.dir / "state"):
                os.chown(path, uid, uid)

    def prepare_cgroup(self, config):
        directory = cgroup2() / self.dir.name
        directory.mkdir()
        self.cgroup = directory
        self.configure("eqd.conf", f"{config}[Commands]\nCgroup={directory}\n")

    def remove(self):
        super().remove()
        if self.cgroup:
            for path in sorted(self.cgroup.rglob("*"), reverse=True): # eqd's, had it left any
                if path.is_dir():
                    path.rmdir()
            self.cgroup.rmdir()

    def configure(self, name, text):
        path = self.dir / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, args=(), env=None, nofile=None, kept=None):
        """kept: a descriptor that the eqd before this one gave to the service manager, which passes it on."""
        self.log = open(self.dir / "log", "w+b")
        (self.dir / "notify").unlink(missing_ok=True)
        with self.notify.socket.dup() if self.notify else socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self.dir / "notify"))
            (self.dir / "notify").chmod(0o777)

            def before():
                if nofile:
                    import resource
                    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
                if self.uid is not None:
                    become(self.uid)
                if kept is not None:
                    os.dup2(kept, 3)
            passed, wrapper = {}, []
            if kept is not None:
                passed = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "eqd-queues"}
                wrapper = ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh"]
            self.process = subprocess.Popen(
                [*wrapper, self.eqd, "--socket", self.socket, "--state", self.dir / "state", "--config",
                 self.dir / "config", *args],
                env=self.environment(NOTIFY_SOCKET=str(self.dir / "notify"), **passed, **(env or {})),
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, pass_fds=(3,) if passed else (),
                # Python between fork and exec is safe only while this process has no other thread.
                preexec_fn=before if nofile or passed or self.uid is not None else None,
                cwd=self.dir) # not /, which tasks must get all the same
            self.pidfd = os.pidfd_open(self.process.pid)
            self.wait_ready(notify)
        if self.notify:
            self.notify.start()
        self.connections = []
        self.socket.chmod(0o777) if os.geteuid() == 0 else None
        with self.connect() as c:
            stat = c.call("stat")
        self.spawner_pid = stat.get("spawner_pid") # none with commands=no
        self.descriptors = self.count_fds()
        self.loose = [] # processes that tests said will be left by nobody's fault

    def wait_ready(self, notify):
        end, self.told_before_ready = time.monotonic() + WAIT_SECONDS, []
        while True:
            ready = select.select([notify, self.pidfd], [], [], max(0, end - time.monotonic()))[0]
            if notify in ready:
                told = notification(notify.recv(65536))
                if told.get("READY") == "1":
                    return
                self.told_before_ready.append(told)
                continue
            if self.pidfd in ready:
                raise AssertionError(f"eqd ended with {self.process.wait()} instead of READY=1\n{self.log_text()}")
            if not ready:
                raise AssertionError(f"no READY=1 within {WAIT_SECONDS} s\n{self.log_text()}")

    def notified(self, seconds=WAIT_SECONDS):
        """The next datagram to the service manager, as a dict; None: none came in that time."""
        return self.notify.next(seconds)

    def until_notified(self, wanted, seconds=WAIT_SECONDS):
        """The next datagram of which wanted() is true; with how many came before it."""
        end, others = time.monotonic() + seconds, []
        while True:
            got = self.notified(end - time.monotonic())
            if got is None:
                raise AssertionError(f"not told the service manager within {seconds} s; it was told {others}")
            if wanted(got):
                return got
            others.append(got)

    def log_text(self):
        return (self.dir / "log").read_bytes().decode(errors="replace")

    def has_logged(self, *parts):
        """Waits until all of these are in the log, which a thread writes: what an event tells of may come there later. The log."""
        eventually(lambda: all(part in self.log_text() for part in parts),
                   lambda: f"{[part for part in parts if part not in self.log_text()]} is not in {self.log_text()!r}")
        return self.log_text()

    @property
    def pid(self):
        return self.process.pid

    def count_fds(self):
        """Without those of the store's segments, which are as many as compaction has left."""
        try:
            return sum("/store/log-" not in fd for fd in self.fd_list())
        except OSError:
            return -1

    # -- eqctl --

    def ok(self, *args, **options):
        """eqctl that must succeed; its standard output, stripped."""
        r = self.ctl(*args, **options)
        if r.rc != 0:
            raise AssertionError(f"eqctl {' '.join(map(str, args))}: exit status {r.rc}, said {r.out!r} {r.err!r}")
        return r.out.strip()

    def fails(self, rc, *args, says=(), **options):
        """eqctl that must fail with this exit status and say these things on standard error."""
        r = self.ctl(*args, **options)
        what = f"eqctl {' '.join(map(str, args))}"
        if r.rc != rc:
            raise AssertionError(f"{what}: exit status {r.rc}, want {rc}; said {r.out!r} {r.err!r}")
        if not r.err.strip():
            raise AssertionError(f"{what}: failed without a word")
        contains(r.err, *([says] if isinstance(says, str) else says))
        return r

    def submit(self, *args, **options):
        """`eqctl submit`; the id."""
        return self.ok("submit", *args, **options)

    def sh(self, script, *args, **options):
        """Submits a shell script; the id."""
        return self.submit(*args, "-c", script, **options)

    def show(self, task, **options):
        return json.loads(self.ok("show", "--json", task, **options))

    def queue(self, name, **options):
        return json.loads(self.ok("queue", "show", "--json", name, **options))

    def ls(self, *args, **options):
        return [json.loads(line) for line in self.ok("ls", "--json", *args, **options).splitlines()]

    def logs(self, task, *args):
        return self.ok("logs", task, *args)

    def wait(self, *tasks):
        """Waits for the end of tasks, whatever it is; the last one as shown."""
        self.ctl("wait", *tasks)
        return self.show(tasks[-1])

    def ends_as(self, task, state, **fields):
        """Waits for the end and looks at it."""
        shown = self.wait(task)
        equal(shown["state"], state, f"state of {task} ({shown})")
        for key, value in fields.items():
            equal(shown.get(key), value, f"{key} of {task} ({shown})")
        return shown

    def kill_task_now(self, *tasks):
        self.ctl("cancel", *tasks, "--signal", "KILL")
        self.ctl("wait", *tasks)

    # -- connections and events --

    def connect(self, uid=None, groups=()):
        c = Rpc(self.socket, uid, groups)
        self.connections.append(c)
        return c

    def events(self, uid=None, **filters):
        c = self.connect(uid)
        c.call("subscribe", **filters)
        return c

    def until_state(self, task, *states):
        """Waits until a task is in one of these states; the task as shown."""
        queue, _, seq = task.partition("/")
        with self.connect() as c:
            c.call("subscribe", queue=queue, events=["task."])
            now = c.call("show", [task])[0]
            if now["state"] == "RUNNING" and "pid" not in now and "worker" not in now: # task.started comes when the process is known
                now["state"] = "STARTING"
            if now["state"] not in states:
                c.note(lambda method, params: method == "event" and params[0].get("id", [0, 0])[1] == int(seq) and
                       params[0].get("state") in states)
            return c.call("show", [task])[0]

    # -- the end --

    def stop(self, seconds=STOP_SECONDS, rc=0):
        """Orderly end, with everything that must be true of it."""
        self.close_connections()
        self.check_before()
        family = {p: start_of(p) for p in descendants(self.pid)} # none of these numbers may be another's by then
        os.kill(self.pid, signal.SIGTERM)
        self.expect_end(seconds, rc)
        eventually(lambda: all(is_gone(p) or is_dead_or(p, start) for p, start in family.items()),
                   lambda: f"processes that eqd left: {alive(family)}")
        eventually(lambda: not marked(self.dir), lambda: f"processes that tasks left: {alive(marked(self.dir))}")
        if self.socket.exists():
            raise AssertionError("the socket is still there")

    def stop_and_keep(self, seconds=STOP_SECONDS):
        """Orderly end under a service manager; what eqd gave it to hold, or None."""
        kept = None
        self.close_connections()
        (self.dir / "notify").unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self.dir / "notify"))
            (self.dir / "notify").chmod(0o777)
            os.kill(self.pid, signal.SIGTERM)
            while notify in select.select([notify, self.pidfd], [], [], seconds)[0]:
                data, fds, *_ = socket.recv_fds(notify, 65536, 4)
                if b"FDSTORE=1" in data.split(b"\n"):
                    contains(data.decode(), "FDNAME=eqd-queues")
                    [kept] = fds
                else: # BARRIER=1: closing it says that all before has been read
                    for fd in fds:
                        os.close(fd)
        self.expect_end(seconds, 0)
        self.forget()
        return kept

    def forget(self):
        """After its end, before the next start()."""
        os.close(self.pidfd)
        self.log.close()

    def close_connections(self):
        for c in self.connections:
            c.close()
        self.connections = []

    def check_before(self):
        if proc_stat(self.pid) in (None, ) or is_gone(self.pid):
            raise AssertionError(f"eqd is gone: {self.process.poll()}\n{self.log_text()}")
        if self.ctl("ls", "-s", "RUNNING", "-o", "id").out.strip():
            return # their pipes and processes are rightly there
        eventually(lambda: self.count_fds() <= self.descriptors,
                   lambda: f"{self.count_fds()} descriptors are open, {self.descriptors} at the start: {self.fd_list()}")
        eventually(lambda: not self.zombies(), lambda: f"zombies: {self.zombies()}")

    def fd_list(self):
        found = []
        for n in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                found.append(os.readlink(f"/proc/{self.pid}/fd/{n}"))
            except OSError: # it was just closed
                pass
        return found

    def zombies(self):
        return [p for p in descendants(self.pid) if (proc_stat(p) or "?")[0] == "Z"]

    def expect_end(self, seconds, rc):
        if not select.select([self.pidfd], [], [], seconds)[0]:
            raise AssertionError(f"eqd has not ended within {seconds} s\n{self.log_text()}")
        equal(self.process.wait(), rc, f"exit status of eqd\n{self.log_text()}")

    def kill(self):
        """Whatever is left, after a failure."""
        self.close_connections()
        if self.notify:
            self.notify.close()
        if self.process:
            if self.process.poll() is None: # else its number may be another's
                send_kill(*descendants(self.pid), self.pid)
            self.process.wait()
            eventually(lambda: not send_kill(*marked(self.dir)), "what ran in its directory is gone, which can be removed then")


def send_kill(*pids):
    """Those that there were."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    return pids


def alive(pids):
    return [f"{p} {command_line(p)}" for p in pids if not is_gone(p)]


# ---- running ----

def on_alarm(*_):
    raise AssertionError("not through in its time")


def run_one(t):
    if t.root and os.geteuid() != 0:
        raise Skip("only root can become several users")
    options = dict(t.options)
    plain = options.pop("eqd", True)
    seconds = SLOWER * options.pop("seconds", TEST_SECONDS)
    place = Eqd(**options) if plain else Place()
    signal.alarm(seconds)
    try:
        t.body(place)
        if plain and place.process.poll() is None:
            place.stop()
    except BaseException:
        signal.alarm(0)
        if plain:
            sys.stdout.write("".join(f"# eqd: {line}\n" for line in place.log_text().splitlines()[-30:]))
        raise
    finally:
        signal.alarm(0)
        if plain:
            place.kill()
            if not place.log.closed:
                place.forget()
        place.remove()
        if place.dir.exists() and not os.environ.get("EQD_TEST_KEEP"):
            raise AssertionError(f"{place.dir} is still there")


def report(number, name, body):
    try:
        body()
        print(f"ok {number} - {name}")
        return True
    except Skip as e:
        print(f"ok {number} - {name} # SKIP {e}")
        return True
    except BaseException as e:
        if isinstance(e, (KeyboardInterrupt, SystemExit)):
            raise
        print(f"not ok {number} - {name}")
        for line in traceback.format_exc().splitlines():
            print(f"# {line}")
        return False
    finally:
        sys.stdout.flush()


def main():
    signal.signal(signal.SIGALRM, on_alarm)
    os.umask(0o022)
    os.environ["MEMORY_PRESSURE_WATCH"] = "/dev/null" # what else is up on this machine is no part of a test
    only = os.environ.get("EQD_TEST_ONLY", "").split()
    tests = [t for t in TESTS if not only or t.body.__name__ in only]
    print(f"1..{len(tests)}", flush=True)
    good = [report(i, t.body.__name__, lambda t=t: run_one(t)) for i, t in enumerate(tests, 1)]
    sys.exit(0 if all(good) else 1)
