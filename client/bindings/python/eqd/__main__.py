# SPDX-License-Identifier: MIT
"""python -m eqd worker MODULE: serves the queues of the functions that MODULE marks with @eqd.task."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib
import os
import signal
import sys
from typing import Optional, Sequence

from . import aio, stacks, tasks
from ._api import ExistsError
from .core import default_path
from .errors import EqdException
from .pool import Pool
from .worker import RECONNECT, Worker


def parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line; exits with 2 and a line on standard error if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m eqd", description="Serve queues with functions marked by @eqd.task.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    worker = verbs.add_parser("worker", help="run tasks until SIGTERM, which lets those that have begun end")
    worker.add_argument("module", help="module that has the functions, found as import finds it")
    worker.add_argument("-q", "--queue", action="append", help="serve only this queue; may be given several times")
    worker.add_argument("-j", "--parallel", type=int, default=os.cpu_count() or 1, help="tasks at once (default: CPUs)")
    worker.add_argument("--threads", action="store_true", help="run them in threads, not in processes")
    worker.add_argument("--create", action="store_true", help="make queues that are not there, with executor=worker; serial, "
                        "until `eqctl queue set QUEUE max_active=N` lets more than one task run at once")
    worker.add_argument("--name", help="name of the worker, for people")
    worker.add_argument("-S", "--socket", help="where eqd is")
    args = parser.parse_args(argv)
    if args.parallel < 1:
        parser.error("--parallel must be at least 1")
    return args


def say(text: str) -> None:
    """A line on standard error."""
    print(f"eqd: {text}", file=sys.stderr, flush=True)


async def serve(args: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT."""
    queues = args.queue or sorted({f.queue for f in tasks.registry.values()})
    if not queues:
        raise SystemExit(f"eqd: {args.module} marks no function with @eqd.task")
    if args.create:
        async with aio.connect(args.socket) as client:
            for queue in queues:
                try:
                    await client.queue_create(queue, set={"executor": "worker"})
                except ExistsError:
                    pass
    def on_change(what: str) -> None:
        pool.on_change(what)
        say("connected to eqd" if what == "back" else f"no connection to eqd at {worker.path}; trying again")

    pool = Pool(args.module, args.parallel, args.threads)
    worker = Worker({queue: pool for queue in queues}, args.parallel, name=args.name, path=args.socket)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    try:
        await worker.run(dataclasses.replace(RECONNECT, on_change=on_change))
    finally:
        pool.close()


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The program. 0, or 1 with a line on standard error."""
    args = parse(argv)
    stacks.on_sigttin()
    sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(args.module)
        asyncio.run(serve(args))
    except (EqdException, OSError, ImportError) as e:
        absent = isinstance(e, OSError) and e.filename == default_path(args.socket)
        say(f"{e}; start it with `systemctl start eqd`, or name another socket with -S or EQD_SOCKET" if absent else str(e))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
