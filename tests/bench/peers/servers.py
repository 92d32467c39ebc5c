# SPDX-License-Identifier: MIT
"""The servers that are compared, one row per configuration, and how one of them is started and ended."""
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

START_SECONDS = 120


class Server(NamedTuple):
    name: str
    protocol: str               # qload -P
    listen: str                 # 'unix' or 'tcp'
    durable: bool               # takes part in crash runs and in the restart half of memory runs
    probe: tuple[bytes, bytes]  # what a client sends, how the answer of a server in service begins
    command: str                # {addr}, {dir} and {log} are filled in
    options: str = ''           # more qload options
    many: str = ''              # qload -P for many tasks per submit request
    drain_idle: float = 1.5     # a drain ends after this many seconds without a delivery

    @property
    def program(self):
        return self.command.split()[0]


BEANSTALKD = 'beanstalkd -l unix:{addr}'
BEANSTALKD_PROBE = b'list-tube-used\r\n', b'USING'

REDIS = 'redis-server --port 0 --unixsocket {addr} --dir {dir} --save "" --loglevel warning --logfile {log}'
REDIS_PROBE = b'PING\r\n', b'+PONG'
VOLATILE = ' --appendonly no'
EVERYSEC = ' --appendonly yes --appendfsync everysec'
ALWAYS = ' --appendonly yes --appendfsync always'

GEARMAN = 'gearmand --listen=127.0.0.1 --port={addr} --log-file={log}'
GEARMAN_PROBE = b'version\n', b'OK'
SQLITE = ' --queue-type=libsqlite3 --libsqlite3-db={dir}/gearman.db'

NATS = 'nats-server -js -sd {dir} -a 127.0.0.1 -p {addr} -l {log}'
NATS_PROBE = b'CONNECT {"verbose":false}\r\nSUB _P 1\r\nPUB $JS.API.INFO _P 0\r\n\r\n', b'MSG _P'

# The eqd of the build directory, see peers.py. A ping is answered once the tasks of the last time are restored.
EQD = 'eqd --socket {addr} --state {dir} --config {dir}/none'
EQD_PROBE = b'\x94\x00\x00\xa4ping\x90', b'\x94\x01'

SERVERS = [
    Server('bs-vol', 'beanstalkd', 'unix', False, BEANSTALKD_PROBE, BEANSTALKD),
    Server('bs-f50', 'beanstalkd', 'unix', True, BEANSTALKD_PROBE, BEANSTALKD + ' -b {dir}'),
    Server('bs-f0', 'beanstalkd', 'unix', True, BEANSTALKD_PROBE, BEANSTALKD + ' -b {dir} -f0'),
    Server('rl-vol', 'redis-list', 'unix', False, REDIS_PROBE, REDIS + VOLATILE, many='redis-list-many'),
    Server('rl-sec', 'redis-list', 'unix', True, REDIS_PROBE, REDIS + EVERYSEC, many='redis-list-many'),
    Server('rl-always', 'redis-list', 'unix', True, REDIS_PROBE, REDIS + ALWAYS, many='redis-list-many'),
    Server('rs-vol', 'redis-stream', 'unix', False, REDIS_PROBE, REDIS + VOLATILE),
    Server('rs-sec', 'redis-stream', 'unix', True, REDIS_PROBE, REDIS + EVERYSEC),
    Server('rs-always', 'redis-stream', 'unix', True, REDIS_PROBE, REDIS + ALWAYS),
    Server('gm-mem', 'gearman', 'tcp', False, GEARMAN_PROBE, GEARMAN),
    Server('gm-sqlite', 'gearman', 'tcp', True, GEARMAN_PROBE, GEARMAN + SQLITE),
    Server('nats-mem', 'nats-jetstream', 'tcp', False, NATS_PROBE, NATS, '-M'),
    # JetStream hands an unacknowledged message out again after ack_wait (5 s): drain for longer than that.
    Server('nats-file', 'nats-jetstream', 'tcp', True, NATS_PROBE, NATS, drain_idle=7),
    Server('eqd-vol', 'eqd', 'unix', False, EQD_PROBE, EQD, '-M', many='eqd-many'),
    Server('eqd-dur', 'eqd', 'unix', True, EQD_PROBE, EQD, many='eqd-many'),
]


def installed(program):
    return shutil.which(program) is not None


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Running:
    """One server process with an address and a data directory of its own."""

    def __init__(self, place, row, placement='free'):
        self.place, self.row = place, row
        self.cpus = place.cpus(placement)[0]
        self.home = Path(tempfile.mkdtemp(prefix='server-', dir=place.home))
        self.data = self.home / 'data'
        self.data.mkdir()
        self.addr = str(self.home / 'sock') if row.listen == 'unix' else str(free_port())
        self.process = None
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def start(self):
        """Starts and waits for the first answer; ready_seconds is the time until then."""
        if self.row.listen == 'unix':
            Path(self.addr).unlink(missing_ok=True)
        values = dict(addr=self.addr, dir=self.data, log=self.home / 'log')
        words = [word.format(**values) for word in shlex.split(self.row.command)]
        began = time.monotonic()
        with open(self.home / 'stderr', 'ab') as errors:
            self.process = self.place.popen(words, self.cpus, stdout=subprocess.DEVNULL, stderr=errors)
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() - began > START_SECONDS:
                reason = self.last_words()
                self.__exit__()
                raise RuntimeError(f'{self.row.name} did not start: {reason}')
            time.sleep(0.002)
        self.ready_seconds = time.monotonic() - began

    def answers(self):
        """A connection proves nothing: beanstalkd, for one, accepts while it still reads its log."""
        request, expected = self.row.probe
        local = self.row.listen == 'unix'
        try:
            with socket.socket(socket.AF_UNIX if local else socket.AF_INET) as s:
                s.settimeout(START_SECONDS)
                s.connect(self.addr if local else ('127.0.0.1', int(self.addr)))
                s.sendall(request)
                answer = b''
                while expected not in answer:
                    more = s.recv(4096)
                    answer += more
                    if not more or b'-LOADING' in answer:  # redis while it reads its log
                        return False
                return True
        except OSError:
            return False

    def last_words(self):
        files = [f for f in (self.home / 'stderr', self.home / 'log') if f.exists()]
        return ' '.join(f.read_text(errors='replace')[-300:].strip() for f in files) or 'no message'

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def rss(self):
        for line in Path(f'/proc/{self.process.pid}/status').read_text().splitlines():
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) * 1024
        return 0

    def disk(self):
        return sum(f.stat().st_blocks * 512 for f in self.data.rglob('*') if f.is_file())
