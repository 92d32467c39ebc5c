# SPDX-License-Identifier: MIT
"""A session of pynvim, unmodified: requests, an error, a notification, and the answer to a request. pynvim_session.py SOCKET

It begins with the notification nvim_set_client_info, which means nothing to eqd, and sends bytes as bin."""

import sys

from pynvim.msgpack_rpc import socket_session

session = socket_session(sys.argv[1])
session.error_wrapper = lambda error: LookupError(error[1])
print("level", session.request("nvim_get_api_info")[1]["version"]["api_level"])
session.request("queue_create", "q")
task = session.request(b"submit", "q", b"", {"argv": ["echo", "hello"]})
print(session.request("wait", [task])[0]["state"])
print(session.request("logs", task)["chunks"][0][1].decode().strip())
try:
    session.request("queue_show", "none")
except LookupError as e:
    print("error", e)
session.request("subscribe", {"queue": "q", "events": ["queue."]})
session.request("queue_pause", "q")
kind, method, params = session.next_message()[:3]
print(kind, method, params[0]["event"])

# As a worker: it answers a request of eqd.
session.request("queue_create", "work", {"set": ["executor=worker"]})
session.request("worker_serve", ["work"])
task = session.request("submit", "work", b"payload")
kind, method, params, response = session.next_message()
print(kind, method, params[1])
response.send(params[3].upper())
done = session.request("wait", [task])[0]
print(done["state"], done["result"])
