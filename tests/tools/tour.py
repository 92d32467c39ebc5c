#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tour.py [--keep] [--build DIR] [--few] TOP: the second half of ./quickstart. Starts the eqd in TOP/build, gives it work and looks at it.

Two queues: `archive` is serial and packs documentation directories strictly in order, `compile` compiles this project's
own sources, as many at a time as there are CPUs. Everything goes through eqctl, as a person would do it. What the tasks
did is checked against the files that they leave, not only against what eqd says. --few: some of the work, for a test.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DIRECTORIES = 250
TTY = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
ARCHIVE = r"""
set -e
name=$(basename "$1")
echo "begin $1" >>manifest
tar -C / -cf "archive/$name.tar" "${1#/}"
sum=$(sha256sum <"archive/$name.tar")
gzip -1f "archive/$name.tar"
echo "$name ${sum%% *}"
echo "end $1" >>manifest
"""


class Trouble(Exception):
    """Something did not go as it should; the text says what."""


def step(text):
    print(f"\033[1m==> {text}\033[0m" if TTY else f"==> {text}", flush=True)


def expect(condition, text):
    if not condition:
        raise Trouble(text)


class Tour:
    def __init__(self, top, build, few):
        self.top, self.build, self.few, self.eqd = top, build, few, None
        self.dir = Path(tempfile.mkdtemp(prefix="eqd-quickstart-"))
        self.socket = self.dir / "eqd.sock"
        self.eqctl = build / "client/eqctl"
        self.failed = self.slow = None
        self.sources = self.directories = ()

    # ---- eqd ----

    def start(self):
        step(f"Starting eqd in {self.dir}")
        (self.dir / "config").mkdir()
        with open(self.dir / "eqd.log", "wb") as log:
            # A session of its own: ^C is for this script, which then stops eqd.
            self.eqd = subprocess.Popen(
                [self.build / "daemon/eqd", "--socket", self.socket, "--state", self.dir / "state", "--config",
                 self.dir / "config"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        for _ in range(60): # one that has ended does not come
            ping = self.ctl("ping", "--wait", "1s", check=False)
            if ping.returncode == 0 or self.eqd.poll() is not None:
                break
        if ping.returncode or self.eqd.poll() is not None:
            raise Trouble(f"eqd did not start ({ping.stderr.strip()}). It said:\n" + (self.dir / "eqd.log").read_text())

    def stop(self):
        if self.eqd and self.eqd.poll() is None:
            self.eqd.terminate()
            try:
                self.eqd.wait(40)
            except subprocess.TimeoutExpired:
                self.eqd.kill()
                self.eqd.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def ctl(self, *args, check=True, show=False):
        """Runs eqctl. show: prints the command line as one would type it, and what it answers."""
        command = [str(self.eqctl), "--socket", str(self.socket), *map(str, args)]
        if show:
            words = " ".join(map(str, args))
            print(f"\n$ eqctl {words}", flush=True)
        r = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                           cwd=self.dir, check=False)
        if show and r.stdout + r.stderr:
            print((r.stdout + r.stderr).rstrip(), flush=True)
        if check and r.returncode:
            raise Trouble(f"eqctl {' '.join(map(str, args))} returned {r.returncode}: {r.stderr.strip()}")
        return r

    def rows(self, *args):
        return [json.loads(line) for line in self.ctl(*args, "--json").stdout.splitlines()]

    # ---- work ----

    def prepare(self):
        """Sources are copied, since a task of root has no right to read another user's closed checkout."""
        for name in ("proto", "daemon", "client"):
            shutil.copytree(self.top / name, self.dir / "src" / name)
        (self.dir / "archive").mkdir()
        (self.dir / "manifest").touch()
        self.sources = sorted(str(p.relative_to(self.dir / "src")) for part in (("proto",) if self.few else ("proto", "daemon"))
                              for p in (self.dir / "src" / part).rglob("*.c"))
        for source in self.sources:
            (self.dir / "obj" / source).parent.mkdir(parents=True, exist_ok=True)
        self.directories = sorted(str(p) for p in Path("/usr/share/doc").iterdir()
                                  if p.is_dir() and not p.is_symlink())[:DIRECTORIES // 10 if self.few else DIRECTORIES]
        expect(self.sources and self.directories, "nothing to do: no sources, or nothing in /usr/share/doc")
        (self.dir / "sources.txt").write_text("\n".join(self.sources) + "\n")
        (self.dir / "directories.txt").write_text("\n".join(self.directories) + "\n")
        (self.dir / "src/broken.c").write_text("int main(void) {\n        return no_such_variable;\n}\n")

    def compiler(self):
        """gcc with the project's include paths and definitions, as the build has them."""
        commands = json.loads((self.build / "compile_commands.json").read_text())
        words = [w for c in commands for w in shlex.split(c["command"])]
        definitions = sorted({w for w in words if w.startswith("-D") and not w.startswith("-DEQD_TESTS")})
        external = sorted({w for w in words if w.startswith("-I/")})
        return ["gcc", "-std=gnu17", "-O2", *definitions, "-I.", "-Idaemon", "-Iproto", "-Iclient", *external, "-c"]

    def submit(self):
        cpus = len(os.sched_getaffinity(0))
        step(f"Making two queues: archive runs one task at a time, compile {cpus}")
        self.ctl("queue", "create", "archive", "description=one after the other", show=True)
        self.ctl("queue", "create", "compile", f"max_active={cpus}", show=True)
        step(f"Submitting {len(self.sources) + 2} tasks to compile and {len(self.directories)} to archive")
        gcc = self.compiler()
        self.ctl("submit", "-q", "archive", "-J", "pack", "--each", "directories.txt", "-c", ARCHIVE, "{}")
        self.ctl("submit", "-q", "compile", "-J", "compile", "-C", "src", "--each", "sources.txt", "--",
                 *gcc, "{}", "-o", f"{self.dir}/obj/{{}}.o")
        self.failed = self.ctl("submit", "-q", "compile", "-J", "broken", "-C", "src", "--", *gcc, "broken.c", "-o",
                               self.dir / "obj/broken.o").stdout.strip()
        self.slow = self.ctl("submit", "-q", "compile", "-J", "sleepy", "-t", "1s", "--", "sleep", "60").stdout.strip()

    def progress(self):
        """A line that is redrawn on a terminal, else one every few seconds."""
        begin, printed = time.monotonic(), 0.0
        while True:
            queues = {q["name"]: q for q in self.rows("queue", "ls") if q["name"] in ("archive", "compile")}
            left = sum(q.get(k, 0) for q in queues.values() for k in ("queued", "waiting", "running"))
            text = "   ".join(f"{name}: {q['finished']} done, {q['running']} running, {q['queued'] + q['waiting']} wait"
                              for name, q in sorted(queues.items()))
            now = time.monotonic()
            if TTY:
                print(f"\r\033[K{now - begin:5.1f} s  {text}", end="" if left else "\n", flush=True)
            elif now - printed >= 5 or not left:
                print(f"{now - begin:5.1f} s  {text}", flush=True)
                printed = now
            if not left:
                return
            time.sleep(0.25)

    # ---- results ----

    def look(self):
        step("The last tasks, the output of one, and why two of them did not end well")
        self.ctl("ls", "-n", "15", show=True)
        self.ctl("logs", self.rows("ls", "-A", "-q", "archive")[-1]["id"], show=True)
        self.ctl("logs", self.failed, show=True)
        self.ctl("why", self.failed, self.slow, show=True)
        self.ctl("show", self.failed, show=True)

    def verify(self):
        step("Checking what the tasks left behind")
        compiled = self.rows("ls", "-A", "-q", "compile")
        archived = self.rows("ls", "-A", "-q", "archive")
        expect(len(compiled) == len(self.sources) + 2, f"{len(compiled)} tasks in compile, not {len(self.sources) + 2}")
        expect(len(archived) == len(self.directories), f"{len(archived)} tasks in archive, not {len(self.directories)}")
        for task in compiled + archived:
            state, status = {self.failed: ("FAILED", 1), self.slow: ("TIMEOUT", None)}.get(task["id"], ("DONE", 0))
            expect((task["state"], task.get("exit")) == (state, status),
                   f"{task['id']} ended as {task['state']}, exit status {task.get('exit')}; expected {state}, {status}")
        for source in self.sources:
            expect((self.dir / f"obj/{source}.o").stat().st_size > 0, f"no object file of {source}")
        manifest = (self.dir / "manifest").read_text().splitlines()
        expect(manifest == [f"{word} {d}" for d in self.directories for word in ("begin", "end")],
               "archive did not run strictly one after the other and in order")
        for directory in self.directories:
            expect((self.dir / "archive" / (Path(directory).name + ".tar.gz")).exists(), f"no archive of {directory}")
        print(f"{len(self.sources)} object files are there; {len(self.directories)} directories were packed strictly in "
              "order; the broken one failed with 1, the sleepy one ran into its time-out.")

    def farewell(self, keep):
        if keep:
            step("eqd goes on")
            print(f"export EQD_SOCKET={self.socket}\nalias eqctl={self.eqctl}\n"
                  "eqctl run -- echo hello\neqctl ls\neqctl help\n"
                  f"\nStop it:  kill {self.eqd.pid}; tail -f --pid={self.eqd.pid} /dev/null; rm -r {self.dir}")
        else:
            step("Next")
            print("./quickstart --keep   leaves eqd running, to try eqctl on\n"
                  "./check               builds and tests everything\n"
                  "README.md             five minutes with eqctl; how to install")


def main():
    parser = argparse.ArgumentParser(description="Shows eqd at work.")
    parser.add_argument("top", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--build", type=Path)
    parser.add_argument("--few", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler) # also where the caller had it ignored
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    tour = Tour(args.top, args.build or args.top / "build", args.few)
    done = False
    try:
        tour.start()
        tour.prepare()
        tour.submit()
        tour.progress()
        tour.look()
        tour.verify()
        tour.farewell(args.keep)
        done = True
    except Trouble as e:
        print(f"\nquickstart: {e}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nquickstart: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        if not (args.keep and done):
            tour.stop()


if __name__ == "__main__":
    main()
