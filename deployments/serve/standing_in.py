"""Stands in at the gateway's port on one host while no ingress answers there: before it is ready, and once it stops.

It is a thread of the process that starts Ray, and shares the port as ingresses do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gateway.api.access import Access
from gateway.api.server import HttpServer
from gateway.api.unready import unready
from gateway.catalogs.catalog import Limits
from gateway.model.errors import Problem

STANDING_IN = "standing-in"
"""A file in the run folder while something stands in at the port before the gateway is ready.

Ingresses share the port and say that they are not ready while it is there: whoever waits for one that is would meet the
other by the next connection.
"""

ENDED_WITHIN_S = 1.0
"""Seconds that clients of it have to read their answers at its end."""

log = logging.getLogger("punctual.serving")


@contextmanager
def standing_in(host: str, port: int, problem: Problem) -> Iterator[None]:
    """Answers at the port by this problem during the context. If it cannot listen, connections are refused."""
    access = Access.of(host, os.environ)
    begun, loops = threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def serve() -> None:
        server = HttpServer(unready(problem, access), Limits(), time.monotonic, told=access.headers)
        ended = asyncio.Event()
        loops.append((asyncio.get_running_loop(), ended))
        try:
            await server.start(host, port)
        except OSError as error:
            log.warning("nothing stands in at port %d: %s", port, error.strerror)
        finally:
            begun.set()
        await ended.wait()
        await server.drain(0.0, ENDED_WITHIN_S)

    def run() -> None:
        try:
            with suppress(OSError):  # too many open files
                asyncio.run(serve())
        finally:
            begun.set()  # whatever has failed, nobody waits for it

    thread = threading.Thread(target=run, name="standing in", daemon=True)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        for loop, ended in loops:
            with suppress(RuntimeError):  # its loop is closed, since it has failed
                loop.call_soon_threadsafe(ended.set)
        thread.join()
