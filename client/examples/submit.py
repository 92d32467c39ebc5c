#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Submits commands to a queue, waits for each, prints what they wrote. submit.py QUEUE WORD..."""

import sys

import eqd

with eqd.connect() as client:
    client.queue_create(sys.argv[1], exist_ok=True)
    tasks = [client.submit(sys.argv[1], argv=["echo", word], timeout="10s") for word in sys.argv[2:]]
    for task in tasks:
        task.result(timeout="1m")
        print(task, task.output().decode().rstrip())
