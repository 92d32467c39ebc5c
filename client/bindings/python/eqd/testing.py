# SPDX-License-Identifier: MIT
"""For tests of programs that use @eqd.task."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

from . import tasks


@contextmanager
def inline() -> Iterator[None]:
    """Inside, delay() runs the function at once, in this thread and without an eqd; adelay() in another one. Arguments and results go
    through MessagePack as they would, and an exception of the function is a TaskFailed of result()."""
    before, tasks.inline_ids = tasks.inline_ids, []
    try:
        yield
    finally:
        tasks.inline_ids = before
