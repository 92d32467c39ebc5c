#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs a command through a queue with asyncio and prints the events of it, and its output as it comes.
events.py QUEUE COMMAND [ARG]..."""

import asyncio
import sys

import eqd


async def main(queue: str, *argv: str) -> None:
    async with eqd.aio.connect() as client:
        await client.queue_create(queue, exist_ok=True)
        subscribed = asyncio.Event()

        async def watch() -> None:
            async for event in client.events(queue, events=["task."], ready=subscribed.set):
                print(event["event"])
                if event["event"] == "task.finished":
                    return

        watching = asyncio.create_task(watch())
        await subscribed.wait()
        task = await client.submit(queue, argv=argv)
        async for _, data in task.follow():
            print(data.decode(), end="")
        await watching


asyncio.run(main(*sys.argv[1:]))
