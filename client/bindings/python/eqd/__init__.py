# SPDX-License-Identifier: MIT
"""eqd: feed and serve the execution queues of this machine.

    import eqd

    with eqd.connect() as c:
        task = c.submit("default", argv=["date"])
        task.result(timeout=5)
        print(task.output())

    async with eqd.aio.connect() as c:
        ...

Functions that workers run: `@eqd.task`, see eqd.tasks; workers by hand: eqd.worker. Methods are those of eqd-protocol(7), by
the same names. Durations are seconds, timedelta or text ("30s"), and their parameters have no unit in the name (`timeout`
for timeout_usec); times of day are datetime or seconds since the epoch. Replies are dicts with the fields and units of the
protocol.
"""

from . import _api, aio, testing, worker
from ._api import *  # noqa: F401,F403
from .client import Client, Task, connect
from .core import default_path
from .errors import (ConnectionLost, EqdError, EqdException, OutputLost, ProtocolViolation, RequestTimeout, TaskCanceled,
                     TaskError, TaskExpired, TaskFailed, TaskTimeout)
from .reconnect import Reconnect
from .tasks import CurrentRun, TaskFunction, current_run, task, use_client
from .values import TaskId
from .worker import Final, Retry

__all__ = ["Client", "ConnectionLost", "CurrentRun", "EqdError", "EqdException", "Final", "OutputLost", "ProtocolViolation",
           "Reconnect", "RequestTimeout", "Retry", "Task", "TaskCanceled", "TaskError", "TaskExpired", "TaskFailed",
           "TaskFunction", "TaskId", "TaskTimeout", "aio", "connect", "current_run", "default_path", "task", "testing",
           "use_client", "worker"]
__all__ += [error.__name__ for error in _api.ERRORS.values()]
