# SPDX-License-Identifier: MIT
"""Where a run happens: its temporary directory, its processes, its CPUs, the lock that others respect."""
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What meson built, programs of this kit included.
BUILD = Path(os.environ.get('BUILD_DIR', Path(__file__).resolve().parents[3] / 'build'))
PROGRAMS = BUILD / 'tests/bench/peers'
MARK = 'PEERS_RUN'  # in the environment of everything that is started, with the directory as value


def note(text):
    print('# ' + text, file=sys.stderr, flush=True)


def filesystem(path):
    """Type of the file system that holds path."""
    best, kind = '', '?'
    for line in Path('/proc/self/mounts').read_text().splitlines():
        mount, this = line.split()[1:3]
        if f'{path}/'.startswith(mount.rstrip('/') + '/') and len(mount) >= len(best):
            best, kind = mount, this
    return kind


def pids_with(name, value):
    """Processes that have name=value in their environment."""
    wanted = os.fsencode(f'{name}={value}')
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in (entry / 'environ').read_bytes().split(b'\0'):
                    yield int(entry.name)


class Place:
    def __init__(self, parent, lock=None, nice=0):
        self.home = Path(tempfile.mkdtemp(prefix='peers-', dir=Path(parent).resolve()))
        self.environ = dict(os.environ, LC_ALL='C', **{MARK: str(self.home)})
        self.usable = sorted(os.sched_getaffinity(0))
        self.lock, self.nice = lock, nice

    def nice_session(self):
        """Where the kernel groups tasks by session, a nice level counts within the session only: the group has one of its own."""
        try:
            Path('/proc/self/autogroup').write_text(str(self.nice), encoding='ascii')
        except OSError:
            pass # no such groups

    def __enter__(self):
        return self

    def started(self):
        """The processes that were started here and have not ended."""
        return pids_with(MARK, self.home)

    def __exit__(self, *_):
        """Ends, by process id, whatever still runs of what was started here."""
        for _ in range(3):
            left = list(self.started())
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.1)
        shutil.rmtree(self.home, ignore_errors=True)

    def cpus(self, placement):
        """CPUs of (server, client): same = one for both, cross = one each, free = the scheduler's choice."""
        first, last = {self.usable[0]}, {self.usable[-1]}
        return {'same': (first, first), 'cross': (first, last), 'free': (None, None)}[placement]

    def popen(self, words, cpus=None, **more):
        def prepare():
            if cpus:
                os.sched_setaffinity(0, cpus)
            if self.nice:
                os.setpriority(os.PRIO_PROCESS, 0, self.nice)
                self.nice_session()
        return subprocess.Popen(words, env=self.environ, preexec_fn=prepare, start_new_session=True, **more)

    def run(self, words, cpus=None, timeout=120):
        """Runs a command to its end; its output, or None after the time-out."""
        with self.popen(words, cpus, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                return None
        if err:
            note(err.strip().splitlines()[0][:150])
        return out

    @contextlib.contextmanager
    def locked(self):
        """Holds the lock file, if there is one, so that others on the machine wait."""
        if not self.lock:
            yield
            return
        with open(self.lock, 'a') as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            yield
        time.sleep(0.05)  # a turn for the others
