# SPDX-License-Identifier: MIT
"""Processes or threads for `python -m eqd worker`. A module of its own, for new processes cannot find what is in __main__.

Python cannot stop a function. One whose task is canceled or out of time goes on, and so does its lease: answering for it would have
eqd begin the next task of a serial queue beside it. When the grace is over eqd revokes the lease; the place in the pool is used until
the function ends. With the connection all leases are lost, and somebody else may begin with the same tasks: the processes are killed.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import active_children, get_context
from typing import Any, Callable, Tuple

from . import stacks, tasks
from .worker import Final, Result, Run


def load(module: str) -> None:
    """Imports the module with the functions, also in each process of a pool; stopping is the business of the first one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stacks.on_sigttin()  # this is where the work is
    importlib.import_module(module)


async def outcome(call: "Future[Tuple[bool, Any, bool]]") -> Tuple[bool, Any, bool]:
    """What a call returned. Canceled: the call is, if it has not begun; else its end is waited for all the same."""
    future = asyncio.wrap_future(call)
    while True:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if call.cancel() or future.done():
                raise


class Pool:
    """Processes or threads that run calls. A process that dies takes the calls at work along; new ones are made."""

    def __init__(self, module: str, parallel: int, threads: bool) -> None:
        self.threads = threads
        self.make: Callable[[], Executor] = lambda: ThreadPoolExecutor(parallel)
        if not threads:
            self.make = lambda: ProcessPoolExecutor(parallel, get_context("spawn"), load, (module,))
        self.executor = self.make()

    async def __call__(self, run: Run) -> Result:
        executor = self.executor
        try:
            good, value, final = await outcome(executor.submit(tasks.execute, run.payload))
        except BrokenExecutor:
            if self.executor is executor:
                self.executor = self.make()
            raise RuntimeError("the process that ran it died") from None
        if good:
            result: bytes = value
            return result
        raise Final(value) if final else RuntimeError(value)

    def on_change(self, what: str) -> None:
        """Of the connection. Lost: no call at work has a lease. Threads cannot be ended."""
        processes = [] if self.threads or what != "lost" else active_children()
        if not processes:
            return
        old, self.executor = self.executor, self.make()
        for process in processes:
            process.kill()
        old.shutdown(wait=False)
