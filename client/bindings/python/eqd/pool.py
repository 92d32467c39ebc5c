# SPDX-License-Identifier: MIT
"""Processes or threads for `python -m eqd worker`. A module of its own, for new processes cannot find what is in __main__.

Python cannot stop a function. One whose task is canceled or out of time goes on, and so does its lease: answering for it would have
eqd begin the next task of a serial queue beside it. A process is killed shortly before the grace is over, so that it ends before
eqd gives its place to another; a thread goes on, eqd revokes the lease, and the place in the pool is used until the function ends.
With the connection all leases are lost, and somebody else may begin with the same tasks: the processes at work are killed.

Each process has one call at a time and a pipe of its own, so one that dies takes no other call along. A thread of the pool waits for it.
A pipe that ends with the call unread (ConnectionError) says that it has not begun, one that ends otherwise (EOFError) that it has.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Callable, Dict, List, Optional, Tuple, cast

from . import stacks, tasks
from .worker import Ended, Result, Run

SPAWN = get_context("spawn")
_children = threading.Lock()  # multiprocessing reaps any child at the start and at the join of another one
KILL_BEFORE = 0.1  # seconds before the end of the grace, at most a tenth of it
END_SECONDS = 2.0  # for a process to end after its pipe, which a function may have closed
LOAD_AGAIN = 5.0  # seconds until a new process is tried where one could not load the module

Touch = Callable[[Dict[str, Any]], None]
Outcome = Tuple[bool, Any]


def load(module: str) -> None:
    """Imports the module with the functions, also in each process of a pool; stopping is the business of the first one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stacks.on_sigttin()  # this is where the work is
    importlib.import_module(module)


def end_with_parent() -> None:
    """The leases end with the first process, however that ends: the kernel kills this one then, whatever it is at."""
    parent = parent_process()
    assert parent
    fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([parent.sentinel], 0):
        os._exit(1)  # it was faster


class Touches:
    """Signs of life of one call, which its threads may give; none once its outcome is sent, or the next call would have them."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe: Optional[Connection] = pipe
        self._lock = threading.Lock()

    def send(self, given: Dict[str, Any]) -> None:
        with self._lock:
            if self._pipe:
                self._pipe.send(given)

    def end(self) -> None:
        with self._lock:
            self._pipe = None


def serve_pipe(pipe: Connection, module: str) -> None:
    """The life of a process: calls come, signs of life and outcomes go, until the other end is closed."""
    end_with_parent()
    # What a function starts must neither answer for it nor keep the pipe open when this process is dead.
    os.set_inheritable(pipe.fileno(), False)
    os.register_at_fork(after_in_child=pipe.close)
    load(module)
    try:
        while True:
            payload, task, queue, attempt, label = pipe.recv()
            touches = Touches(pipe)
            outcome = tasks.execute(payload, tasks.CurrentRun(task, queue, attempt, label, touches.send))
            touches.end()
            pipe.send(outcome)
    except (EOFError, OSError):  # closed: this is what a function has forked
        pass


class Process:
    """A process that runs one call at a time."""

    def __init__(self, module: str) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve_pipe, args=(theirs, module))
        with _children:
            self.process.start()
            assert self.process.pid
            self.pidfd = os.pidfd_open(self.process.pid)  # what multiprocessing watches a function may have closed, or handed on
        theirs.close()
        self.loaded = False

    def call(self, run: Run, touch: Touch) -> Outcome:
        """What the call returned; blocks. EOFError, OSError: the process has ended; ConnectionError: before the call began."""
        self.pipe.send((run.payload, run.id, run.queue, run.attempt, run.label))
        while True:
            said = self.pipe.recv()
            self.loaded = True
            if isinstance(said, tuple):
                return cast(Outcome, said)
            touch(said)

    def kill(self) -> None:
        """It, and never another one that has its number by now."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> str:
        """Has it end, if it has not, and says how it did."""
        self.pipe.close()
        if not wait([self.pidfd], END_SECONDS):
            self.kill()
            wait([self.pidfd])
        os.close(self.pidfd)
        with _children:
            self.process.join()
            status = self.process.exitcode or 0
        return f"signal {-status}" if status < 0 else f"exit status {status}"


@dataclass
class Call:
    """One that has its place in the pool."""

    process: Optional[Process] = None  # while it is at it
    killed: bool = False  # it has no lease any more, or soon will not; also before it has a process


class Pool:
    """Processes or threads that run calls. Processes are made when they are needed, and again where one has died."""

    def __init__(self, module: str, parallel: int, threads: bool) -> None:
        self.module, self.threads = module, threads
        self.executor = ThreadPoolExecutor(parallel)
        self._lock = threading.Lock()
        self._idle: List[Process] = []
        self._calls: Dict[Run, Call] = {}

    async def __call__(self, run: Run) -> Result:
        loop = asyncio.get_running_loop()

        def touch(given: Dict[str, Any]) -> None:
            loop.call_soon_threadsafe(run.touch_given, given)

        def work() -> Outcome:
            if self.threads:
                return tasks.execute(run.payload, tasks.CurrentRun(run.id, run.queue, run.attempt, run.label, touch))
            return self._in_process(run, call, touch)
        call = self._calls[run] = Call()
        try:
            good, value = await self._outcome(run, self.executor.submit(work))
        finally:
            del self._calls[run]
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

    def _in_process(self, run: Run, call: Call, touch: Touch) -> Outcome:
        while True:
            process, begun = self._taken(), True
            outcome: Optional[Outcome] = None
            with self._lock:
                call.process = None if call.killed else process
            try:
                if call.process:
                    outcome = process.call(run, touch)
            except (EOFError, OSError) as e:
                begun = not isinstance(e, ConnectionError)
            with self._lock:
                if not call.killed and outcome:
                    call.process = None
                    self._idle.append(process)
                    return outcome
                if call.killed and not call.process:
                    self._idle.append(process)  # which has not heard of it
                    return False, {"text": "it was to end before it began"}
                call.process = None
            how = process.close()
            if call.killed:
                return outcome or (False, {"text": "it was killed, since it did not end in time"})
            if begun:
                return False, {"text": f"the process that ran it died: {how}"}
            if not process.loaded:
                return self._not_loaded(run, how)

    @staticmethod
    def _not_loaded(run: Run, how: str) -> Outcome:
        """The module may have changed since the worker began. That is no fault of the task; the place is kept for a while, so that a
        long queue does not have one process after the other started in vain."""
        seconds = LOAD_AGAIN if not run.timeout_usec else min(LOAD_AGAIN, run.timeout_usec / 4_000_000)
        time.sleep(seconds)
        return False, {"text": f"the process for it did not start: {how}", "give_back": True,
                       "retry_after_usec": round((LOAD_AGAIN - seconds) * 1_000_000)}

    def _taken(self) -> Process:
        """A process that has nothing to do."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Process(self.module)

    def _kill(self, run: Run) -> None:
        with self._lock:
            call = self._calls.get(run)
            if call:
                call.killed = True
                if call.process:
                    call.process.kill()

    def on_change(self, what: str) -> None:
        """Of the connection. Lost: no call at work has a lease. Threads cannot be ended."""
        with self._lock:
            runs = list(self._calls) if what == "lost" else []
        for run in runs:
            self._kill(run)

    def close(self) -> None:
        """Waits for what is at work, and ends the processes."""
        self.executor.shutdown()
        for process in self._idle:
            process.pipe.close()  # so that they end side by side
        for process in self._idle:
            process.close()
