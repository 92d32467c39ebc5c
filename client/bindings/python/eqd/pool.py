# SPDX-License-Identifier: MIT
"""Processes or threads for `python -m eqd worker`. A module of its own, for new processes cannot find what is in __main__."""

from __future__ import annotations

import asyncio
import importlib
import signal
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Callable

from . import stacks, tasks
from .worker import Final, Result, Run


def load(module: str) -> None:
    """Imports the module with the functions, also in each process of a pool; stopping is the business of the first one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stacks.on_sigttin()  # this is where the work is
    importlib.import_module(module)


class Pool:
    """Processes or threads that run calls. A process that dies takes the calls at work along; new ones are made."""

    def __init__(self, module: str, parallel: int, threads: bool) -> None:
        self.make: Callable[[], Executor] = lambda: ThreadPoolExecutor(parallel)
        if not threads:
            self.make = lambda: ProcessPoolExecutor(parallel, get_context("spawn"), load, (module,))
        self.executor = self.make()

    async def __call__(self, run: Run) -> Result:
        executor = self.executor
        try:
            good, value, final = await asyncio.get_running_loop().run_in_executor(executor, tasks.execute, run.payload)
        except BrokenExecutor:
            if self.executor is executor:
                self.executor = self.make()
            raise RuntimeError("the process that ran it died") from None
        if good:
            result: bytes = value
            return result
        raise Final(value) if final else RuntimeError(value)
