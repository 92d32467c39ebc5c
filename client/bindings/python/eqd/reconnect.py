# SPDX-License-Identifier: MIT
"""Coming back by itself: what a client with a policy does when its connection ends. The rules are those of libeq(3).

    with eqd.connect(reconnect=eqd.Reconnect()) as c:
        c.submit("mail", b"...")  # one task, also if eqd is restarted meanwhile

What only reads or waits is sent again, and so are submits with a key; those without one are given a key. What could not be
sent, and what eqd refused because it was stopping, is sent whatever it is. All else raises ConnectionLost, for it may have been
carried out.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from itertools import count
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import _api
from .errors import ConnectionLost, EqdException

_seed, _seed_pid, _numbers = "", 0, count(1)


@dataclass(frozen=True)
class Reconnect:
    """Seconds. The first try is made at once; pauses begin with `first` and double up to `max`, less a random half. After
    `give_up` without an answer what was waiting raises; None: never."""

    first: float = 0.02
    max: float = 2.0
    give_up: Optional[float] = 60.0
    keys: bool = True  # False: submits without a key get none, and are not sent again
    on_change: Optional[Callable[[str], None]] = None  # "lost", "back"; from the thread or loop that found out

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.max or (self.give_up is not None and self.give_up <= 0):
            raise ValueError("first, max and give_up are seconds above 0, and max is not below first")

    def changed(self, what: str) -> None:
        """Tells on_change."""
        if self.on_change:
            self.on_change(what)


class Tries:
    """The pauses between tries, from when the connection was lost."""

    def __init__(self, policy: Reconnect, clock: Callable[[], float] = time.monotonic) -> None:
        self.policy, self.clock, self.since, self.pause = policy, clock, clock(), 0.0
        self.n = 0

    def next(self) -> Optional[float]:
        """Seconds to wait before the next try; None: the time is over."""
        self.n += 1
        if self.n == 1:
            return 0.0
        left = None if self.policy.give_up is None else self.since + self.policy.give_up - self.clock()
        if left is not None and left <= 0:
            return None
        self.pause = min(2 * self.pause or self.policy.first, self.policy.max)
        pause = self.pause * random.uniform(0.5, 1)
        return pause if left is None else min(pause, left)


def new_key() -> str:
    """A key that no submit has had."""
    global _seed, _seed_pid  # pylint: disable=global-statement
    if _seed_pid != os.getpid():  # a fork is somebody else
        _seed, _seed_pid = os.urandom(8).hex(), os.getpid()
    return f"py-{_seed}-{next(_numbers)}"


def _with_key(options: Dict[str, Any], common: Dict[str, Any], policy: Reconnect) -> Tuple[Dict[str, Any], bool]:
    """The options with a key, and whether that makes two submits one task."""
    if policy.keys and "unique" not in options and "unique" not in common:
        options = {**options, "unique": new_key()}
    given = {**common, **options}
    return options, "unique" in given and given.get("on_dup", "skip") == "skip"


def prepare(policy: Reconnect, method: str, params: List[Any]) -> Tuple[List[Any], bool]:
    """The parameters to send, and whether that may be done twice."""
    has_options = bool(params) and isinstance(params[-1], dict)
    options: Dict[str, Any] = params[-1] if has_options else {}
    required = params[:-1] if has_options else params
    if method == "submit" and not ({"stdin_fd", "payload_fd"} & options.keys()):
        options, repeatable = _with_key(options, {}, policy)
        if len(required) == 1:
            required = [*required, b""]
        return [*required, *([options] if options else [])], repeatable
    if method == "submit_many" and len(required) == 2:
        common = options.get("common") or {}
        tasks, all_repeatable = [], True
        for task in required[1]:
            keyed, repeatable = _with_key(task if isinstance(task, dict) else {"payload": task}, common, policy)
            tasks.append(keyed if keyed.keys() != {"payload"} else task)
            all_repeatable = all_repeatable and repeatable
        return [required[0], tasks, *([options] if options else [])], all_repeatable
    return params, method in _api.READING


def may_try_again(error: BaseException, repeatable: bool, sent: bool) -> bool:
    """Was this error only the end of a connection, which may be made again for the request?"""
    if isinstance(error, _api.StoppingError):
        return True
    if isinstance(error, EqdException):
        return isinstance(error, ConnectionLost) and (repeatable or not sent)
    return isinstance(error, OSError) and not sent
