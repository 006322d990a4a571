"""What Ray starts as a worker on one host: asks the template for a fork, and is Ray's own worker if there is none.

Ray runs this file as a script, in a new process for each worker: it imports nothing that takes time. `template` is the
other end.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import sys

TEMPLATE = "PUNCTUAL_TEMPLATE"
"""Variable with the path of the template's socket."""

RAYS_OWN = "PUNCTUAL_RAYS_WORKER"
"""Variable with the path of the script that Ray would have started."""

STREAMS = (0, 1, 2)
FORKED_WITHIN_S = 30.0
"""Seconds that the template has: the first workers ask while it is still importing."""


def forked(template: str) -> bool:
    """True if the template at this socket has forked a worker with the arguments and streams of this process."""
    wanted = {"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(FORKED_WITHIN_S)
        try:
            asking.connect(template)
            socket.send_fds(asking, [b"\n"], STREAMS)
            asking.sendall(json.dumps(wanted).encode())
            asking.shutdown(socket.SHUT_WR)
            return bool(asking.recv(1))
        except OSError:
            return False


if __name__ == "__main__" and not forked(os.environ[TEMPLATE]):
    del sys.path[0]  # the folder of this file, whose modules nobody else may find
    sys.argv[0] = os.environ[RAYS_OWN]
    runpy.run_path(sys.argv[0], run_name="__main__")
