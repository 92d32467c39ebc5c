# SPDX-License-Identifier: MIT
"""Processes or threads for `python -m eqd worker`. A module of its own, for new processes cannot find what is in __main__.

Python cannot stop a function. One whose task is canceled or out of time goes on, and so does its lease: answering for it would have
eqd begin the next task of a serial queue beside it. A process is killed shortly before the grace is over, so that it ends before
eqd gives its place to another; a thread goes on, eqd revokes the lease, and the place in the pool is used until the function ends.
With the connection all leases are lost, and somebody else may begin with the same tasks: the processes at work are killed.

Each process has one call at a time and a pipe of its own, so one that dies takes no other call along. A thread of the pool waits for it.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Callable, List, Optional, Tuple

from . import stacks, tasks
from .worker import Ended, Result, Run

SPAWN = get_context("spawn")
_children = threading.Lock()  # multiprocessing reaps any child at the start and at the join of another one
KILL_BEFORE = 0.1  # seconds before the end of the grace, at most a tenth of it

Touch = Callable[[Optional[int], Optional[str]], None]
Outcome = Tuple[bool, Any]


def load(module: str) -> None:
    """Imports the module with the functions, also in each process of a pool; stopping is the business of the first one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stacks.on_sigttin()  # this is where the work is
    importlib.import_module(module)


def serve_pipe(pipe: Connection, module: str) -> None:
    """The life of a process: calls come, signs of life and outcomes go, until the other end is closed."""
    load(module)
    try:
        while True:
            payload, task, queue, attempt, label = pipe.recv()
            run = tasks.CurrentRun(task, queue, attempt, label, lambda progress, note: pipe.send((progress, note)))
            pipe.send(tasks.execute(payload, run))
    except (EOFError, ConnectionError):
        pass


class Process:
    """A process that runs one call at a time."""

    def __init__(self, module: str) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve_pipe, args=(theirs, module))
        with _children:
            self.process.start()
        theirs.close()
        self.killed = False

    def call(self, run: Run, touch: Touch) -> Outcome:
        """What the call returned; blocks. EOFError, OSError: the process has ended."""
        self.pipe.send((run.payload, run.id, run.queue, run.attempt, run.label))
        while True:
            said = self.pipe.recv()
            if isinstance(said[0], bool):
                outcome: Outcome = said
                return outcome
            touch(*said)

    def close(self) -> str:
        """Has it end, if it has not, and says how it did."""
        self.pipe.close()
        with _children:
            self.process.join()
            status = self.process.exitcode or 0
        if self.killed:
            return "it was killed, since it did not end in time"
        return "the process that ran it died: " + (f"signal {-status}" if status < 0 else f"exit status {status}")


class Pool:
    """Processes or threads that run calls. Processes are made when they are needed, and again where one has died."""

    def __init__(self, module: str, parallel: int, threads: bool) -> None:
        self.module, self.threads = module, threads
        self.executor = ThreadPoolExecutor(parallel)
        self._lock = threading.Lock()
        self._idle: List[Process] = []
        self._busy: dict[Run, Process] = {}

    async def __call__(self, run: Run) -> Result:
        loop = asyncio.get_running_loop()

        def touch(progress: Optional[int], note: Optional[str]) -> None:
            loop.call_soon_threadsafe(run.touch_soon, progress, note)

        def work() -> Outcome:
            if self.threads:
                return tasks.execute(run.payload, tasks.CurrentRun(run.id, run.queue, run.attempt, run.label, touch))
            return self._in_process(run, touch)
        good, value = await self._outcome(run, self.executor.submit(work))
        if not good:
            raise Ended(value)
        result: bytes = value
        return result

    async def _outcome(self, run: Run, call: "Future[Outcome]") -> Outcome:
        """What a call returned. Canceled: the call is, if it has not begun; else its end is waited for all the same."""
        future = asyncio.wrap_future(call)
        killing: Optional[asyncio.TimerHandle] = None
        try:
            while True:
                try:
                    return await asyncio.shield(future)
                except asyncio.CancelledError:
                    if call.cancel() or future.done():
                        raise
                    if run.grace is not None and not killing:
                        seconds = run.grace - min(KILL_BEFORE, run.grace / 10)
                        killing = asyncio.get_running_loop().call_later(seconds, self._kill, run)
        finally:
            if killing:
                killing.cancel()

    def _in_process(self, run: Run, touch: Touch) -> Outcome:
        process = self._taken()
        with self._lock:
            self._busy[run] = process
        try:
            outcome: Optional[Outcome] = process.call(run, touch)
        except (EOFError, OSError):
            outcome = None
        with self._lock:
            del self._busy[run]
            if outcome and not process.killed:
                self._idle.append(process)
                return outcome
        how = process.close()
        return outcome or (False, {"text": how})

    def _taken(self) -> Process:
        """A process that has nothing to do."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.process.is_alive():
                    return process
                process.close()
        return Process(self.module)

    def _kill(self, run: Run) -> None:
        with self._lock:
            process = self._busy.get(run)
            if process:
                process.killed = True
                process.process.kill()

    def on_change(self, what: str) -> None:
        """Of the connection. Lost: no call at work has a lease. Threads cannot be ended."""
        with self._lock:
            runs = list(self._busy) if what == "lost" else []
        for run in runs:
            self._kill(run)

    def close(self) -> None:
        """Waits for what is at work, and ends the processes."""
        self.executor.shutdown()
        for process in self._idle:
            process.close()
