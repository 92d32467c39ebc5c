# SPDX-License-Identifier: MIT
"""The blocking client.

Threads may share a Client; their requests follow one another. An iterator of events or output has a connection of its own.

When the connection has ended, the request at work raises ConnectionLost, or is sent once more on a new connection if it
only reads (_api.READING). Others never are: a `submit` whose answer got lost may have been accepted. The next request
connects again by itself. Iterators raise ConnectionLost and end. With a policy, see eqd.reconnect, requests and events go on.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any, Callable, Deque, Dict, Generic, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar, \
    cast

from . import _api, shared
from .core import RECEIVE_BYTES, Core, Notification, Request, Response, default_path, error_from_wire, naming
from .errors import ConnectionLost, ProtocolViolation, RequestTimeout, TaskError
from .reconnect import Reconnect, Tries, may_try_again, prepare
from .values import AnyId, Duration, TaskId, duration_usec, wire_id, wire_params, with_ids

T = TypeVar("T")


class Channel:
    """One connection, and the protocol on it. Not for several threads at once."""

    def __init__(self, path: str, timeout: Optional[float], notes: bool = False) -> None:
        self.core = Core()
        self.notifications: Deque[Notification] = deque(maxlen=None if notes else 0)  # `notes`: somebody takes them
        self._responses: Dict[int, Response] = {}
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.settimeout(timeout)
            with naming(path):
                self.sock.connect(path)
        except BaseException:
            self.sock.close()
            raise

    def close(self) -> None:
        self.sock.close()

    def exchange(self, method: str, params: Sequence[Any], timeout: Optional[float]) -> Any:
        """Sends a request and waits for its answer."""
        deadline = None if timeout is None else time.monotonic() + timeout
        msgid, data = self.core.request(method, params)
        self._send(data, deadline)
        while msgid not in self._responses:
            self.receive(deadline)
        response = self._responses.pop(msgid)
        if response.error is not None:
            raise error_from_wire(response.error)
        return response.result

    def _send(self, data: bytes, deadline: Optional[float]) -> None:
        self.sock.settimeout(self._left(deadline))
        try:
            self.sock.sendall(data)
        except TimeoutError as e:
            raise ConnectionLost("eqd does not read; the request was sent in part") from e
        except OSError as e:
            raise ConnectionLost(f"the connection to eqd ended: {e}") from e

    def receive(self, deadline: Optional[float] = None) -> None:
        """Waits for bytes and sorts what is in them. RequestTimeout, ConnectionLost, ProtocolViolation."""
        self.sock.settimeout(self._left(deadline))
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except TimeoutError as e:
            raise RequestTimeout("no answer from eqd in time") from e
        except OSError as e:
            raise ConnectionLost(f"the connection to eqd ended: {e}") from e
        if not data:
            raise ConnectionLost("eqd closed the connection")
        for message in self.core.feed(data):
            if isinstance(message, Response):
                self._responses[message.msgid] = message
            elif isinstance(message, Notification):
                self.notifications.append(message)
            else:
                self._refuse(message)

    def _refuse(self, request: Request) -> None:
        """A blocking client serves nothing; eqd.worker does."""
        error = [_api.MethodError.code, f"this client has no method {request.method}"]
        self._send(self.core.response(request.msgid, error, None), None)

    @staticmethod
    def _left(deadline: Optional[float]) -> Optional[float]:
        if deadline is None:
            return None
        left = deadline - time.monotonic()
        if left <= 0:
            raise RequestTimeout("no answer from eqd in time")
        return left


class Task(Generic[T]):
    """A submitted task, in the manner of a Future. It is only a name: dropping it does nothing to the task."""

    _attached: Optional[Channel] = None  # that its output comes on; ours until somebody takes it

    def __init__(self, client: "Client", task: TaskId, queue: str, decode: Callable[[Any], T],
                 attached: Optional[Channel] = None) -> None:
        self.id, self.queue = task, queue
        self._client, self._decode, self._attached = client, decode, attached

    def __del__(self) -> None:
        self._leave_output()

    def _leave_output(self) -> None:
        """Nobody reads what comes: eqd must not wait for us with the rest, and the task for eqd."""
        channel, self._attached = self._attached, None
        if channel:
            channel.close()

    def __str__(self) -> str:
        return f"{self.queue}/{self.id.seq}"

    def __repr__(self) -> str:
        return f"<eqd.Task {self}>"

    def wait(self, timeout: Optional[Duration] = None) -> _api.TaskRecord:
        """Waits for the end, however it is; the task as shown then. TimedOutError after `timeout`."""
        self._leave_output()
        return self._client.wait([self.id], timeout=timeout)[0]

    def result(self, timeout: Optional[Duration] = None) -> T:
        """Waits for the end. What the task returned: its record, or what the function of @eqd.task did. TaskFailed,
        TaskTimeout, TaskCanceled, TaskExpired if it did not end as DONE."""
        return self._decode(shared.outcome(cast(Mapping[str, Any], self.wait(timeout))))

    def show(self) -> _api.TaskRecord:
        """The task as it is now."""
        return self._client.show([self.id])[0]

    def payload(self) -> bytes:
        """What it was submitted with, also when it has ended. KeyError: it ended before eqd had read it from the store."""
        return self._client.show([self.id], payload=True)[0]["payload"]

    def why(self) -> _api.WhyRecord:
        """Why it is where it is."""
        return self._client.why([self.id])[0]

    def exception(self, timeout: Optional[Duration] = None) -> Optional[TaskError]:
        """Waits for the end. What result() would raise for it, None if it ended as DONE."""
        return shared.exception_of(cast(Mapping[str, Any], self.wait(timeout)))

    def done(self) -> bool:
        """Has it ended?"""
        return self.show()["state"] in _api.FINISHED

    def running(self) -> bool:
        """Is it at work now?"""
        return self.show()["state"] == "RUNNING"

    def cancelled(self) -> bool:
        """Has it ended as CANCELED?"""
        return self.show()["state"] == "CANCELED"

    def cancel(self, running: bool = False) -> bool:
        """True: it is canceled; or, with `running`, being stopped."""
        result = self._client.cancel([self.id], running=running)[0]
        return result == 0 or (running and result == 1)

    def output(self, streams: int = shared.STDOUT, attempt: Optional[int] = None) -> bytes:
        """What is kept of its output: 1 standard output, 2 standard error, 3 both as they came; of the last attempt, or of
        that one."""
        reply = self._client.logs(self.id, streams=streams, attempt=attempt)
        return shared.output_of(cast(Mapping[str, Any], reply), streams)

    def follow(self, streams: int = 3) -> Iterator[Tuple[int, bytes]]:
        """(stream, bytes) from what is kept on, until the task has ended. Of one that was submitted with `attach`, once and before
        it is waited for: from the first byte on, and all of it, for the task waits with its output for who iterates."""
        channel, self._attached = self._attached, None
        if channel:
            return shared.of_streams(Client._output(channel, self.id), streams)
        return self._client.follow(self.id, streams)


class Client(_api.Api["Task[_api.TaskRecord]"]):
    """A connection to eqd with its methods. Use it in a `with` statement, or close() it."""

    def __init__(self, path: Optional[str] = None, timeout: Optional[float] = shared.DEFAULT_TIMEOUT,
                 reconnect: Optional[Reconnect] = None) -> None:
        self.path, self.timeout, self.reconnect = default_path(path), timeout, reconnect
        self._lock = threading.Lock()
        self._channel: Optional[Channel] = None
        self._attached: Dict[TaskId, Channel] = {}  # of submits that have no handle yet
        self._closed = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection. Submitted tasks go on."""
        with self._lock:
            self._closed = True
            self._drop()

    def _drop(self) -> None:
        if self._channel:
            self._channel.close()
            self._channel = None

    def connect(self) -> None:
        """Connects now, if it is not connected. OSError: eqd is not there, or not permitted."""
        with self._lock:
            self._connected()

    def _connected(self) -> Channel:
        if self._closed:
            raise ConnectionLost("the client was closed")
        if self._channel is None:
            self._channel = Channel(self.path, self.timeout)
        return self._channel

    def call(self, method: str, *params: Any, **options: Any) -> Any:
        """Any method by its name, with values as the wire has them: for what is newer than this package."""
        return self._exchange(method, [*params, options] if options else list(params))

    def _call(self, method: str, required: Sequence[Tuple[str, Any]], options: Mapping[str, Tuple[str, Any]]) -> Any:
        wire = wire_params(required, options)
        if method == "submit" and options["attach"][1]:
            return self._submit_attached(wire)
        return self._exchange(method, wire)

    def _submit_attached(self, params: List[Any]) -> TaskId:
        """On a connection of its own, which is read when somebody wants the output: eqd waits for that."""
        if self._closed:
            raise ConnectionLost("the client was closed")
        channel, answer = self._beside("submit", params)
        task = TaskId(*answer)
        self._attached[task] = channel
        return task

    def _exchange(self, method: str, params: List[Any]) -> Any:
        timeout = shared.allowed_time(method, params, self.timeout)
        if self.reconnect:
            return with_ids(self._patiently(self.reconnect, method, params, timeout))
        with self._lock:
            try:
                return with_ids(self._once(method, params, timeout))
            except ConnectionLost:
                if method not in _api.READING or self._closed:
                    raise
            return with_ids(self._once(method, params, timeout))

    def _patiently(self, policy: Reconnect, method: str, params: List[Any], timeout: Optional[float]) -> Any:
        params, repeatable = prepare(policy, method, params)
        tries: Optional[Tries] = None
        with self._lock:
            while True:
                sent = False
                try:
                    self._connected()
                    sent = True
                    answer = self._once(method, params, timeout)
                    if tries:
                        policy.changed("back")
                    return answer
                except Exception as e:
                    if self._closed or not may_try_again(e, repeatable, sent):
                        raise
                    self._drop()
                    tries = self._pause(policy, tries, e)

    @staticmethod
    def _pause(policy: Reconnect, tries: Optional[Tries], error: Exception) -> Tries:
        if not tries:
            policy.changed("lost")
        tries = tries or Tries(policy)
        seconds = tries.next()
        if seconds is None:
            raise error
        time.sleep(seconds)
        return tries

    def _once(self, method: str, params: List[Any], timeout: Optional[float]) -> Any:
        channel = self._connected()
        try:
            return channel.exchange(method, params, timeout)
        except (ConnectionLost, ProtocolViolation, RequestTimeout, KeyboardInterrupt):
            self._drop()  # an answer that comes now would have nobody
            raise

    def _handle(self, task: Any, queue: str) -> "Task[_api.TaskRecord]":
        channel = self._attached.pop(TaskId(*task), None)
        return Task(self, TaskId(*task), queue, lambda record: cast(_api.TaskRecord, record), channel)

    def map(self, queue: str, payloads: Sequence[Any], **common: Any) -> "List[Task[_api.TaskRecord]]":
        """Submits any number of payloads (or maps with options and `payload`), up to 1000 in a message, and gives back a
        handle for each. `common`: options of submit as on the wire, for all."""
        handles: List[Task[_api.TaskRecord]] = []
        for at in range(0, len(payloads), _api.BATCH_MAX):
            part = payloads[at:at + _api.BATCH_MAX]
            reply = self.submit_many(queue, part, common=common or None)
            handles += [self._handle(task, queue) for task in shared.ids_of(reply)]
        return handles

    def all_tasks(self, **which: Any) -> Iterator[_api.TaskRecord]:
        """`list` without an end: page after page."""
        rows: List[_api.TaskRecord] = self.list(**which)
        while rows:
            yield from rows
            which["from_"] = rows[-1]["id"]
            rows = self.list(**which)

    def _beside(self, method: str, params: List[Any]) -> Tuple[Channel, Any]:
        """A connection of its own for what goes on after the answer."""
        channel = Channel(self.path, self.timeout, notes=True)
        try:
            return channel, with_ids(channel.exchange(method, params, shared.allowed_time(method, params, self.timeout)))
        except BaseException:
            channel.close()
            raise

    def events(self, queue: Optional[str] = None, events: Sequence[str] = (),
               ready: Optional[Callable[[], None]] = None) -> Iterator[_api.EventRecord]:
        """Events as they come, for ever; kinds or prefixes such as "task.". Subscribed before `ready` is called or the
        first event is waited for. Nothing is read ahead of who iterates: {"event": "lost", "n": N} tells that eqd dropped N of
        one who takes them too slowly. With a policy {"event": "reconnected"} comes where the connection was made again: events
        in between are missed."""
        options = {k: v for k, v in (("queue", queue), ("events", list(events))) if v}
        try:
            channel, _ = self._beside("subscribe", [options])
        except ConnectionLost as e:
            if not self.reconnect:
                raise
            channel = self._subscribe_again(self.reconnect, options, e)
        return self._all_events(channel, options, ready)

    def _all_events(self, channel: Channel, options: Dict[str, Any],
                    ready: Optional[Callable[[], None]]) -> Iterator[_api.EventRecord]:
        while True:
            try:
                yield from self._events(channel, ready)
            except ConnectionLost as e:
                if not self.reconnect:
                    raise
                channel, ready = self._subscribe_again(self.reconnect, options, e), None
                yield cast(_api.EventRecord, {"event": "reconnected"})

    def _subscribe_again(self, policy: Reconnect, options: Dict[str, Any], error: Exception) -> Channel:
        tries: Optional[Tries] = None
        while True:
            tries = self._pause(policy, tries, error)
            try:
                channel, _ = self._beside("subscribe", [options])
                policy.changed("back")
                return channel
            except Exception as e:
                if self._closed or not may_try_again(e, True, False):
                    raise
                error = e

    @staticmethod
    def _events(channel: Channel, ready: Optional[Callable[[], None]]) -> Iterator[_api.EventRecord]:
        try:
            if ready:
                ready()
            while True:
                while channel.notifications:
                    event = shared.event_of(channel.notifications.popleft())
                    if event:
                        yield cast(_api.EventRecord, event)
                channel.receive()
        finally:
            channel.close()

    def follow(self, task: AnyId, streams: int = 3) -> Iterator[Tuple[int, bytes]]:
        """(stream, bytes) of the output of a task: what is kept, then what comes, until it has ended. OutputLost: who iterates
        takes it so slowly that eqd dropped some."""
        channel, reply = self._beside("logs", [wire_id(task), {"streams": streams, "follow": True}])
        try:
            yield from ((stream, data) for stream, data in reply.get("chunks", []))
            if reply.get("more"):
                yield from self._output(channel, reply["id"])
        finally:
            channel.close()

    @staticmethod
    def _output(channel: Channel, task: TaskId) -> Iterator[Tuple[int, bytes]]:
        """What comes of that task's output, until there is no more; then the connection is closed."""
        ended = False
        try:
            while not ended:
                if not channel.notifications:
                    channel.receive()
                    continue
                ended, chunk = shared.follow_step(channel.notifications.popleft(), task)
                if chunk:
                    yield chunk
        finally:
            channel.close()


def connect(path: Optional[str] = None, timeout: Optional[float] = shared.DEFAULT_TIMEOUT,
            reconnect: Optional[Reconnect] = None) -> Client:
    """A connected Client. path None: EQD_SOCKET, else as eqctl finds eqd. timeout: seconds that an answer may take, None for
    ever; requests that wait for tasks have limits of their own. reconnect: what is done when the connection ends. OSError: eqd
    is not there."""
    client = Client(path, timeout, reconnect)
    client.connect()
    return client
