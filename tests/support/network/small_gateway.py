"""A small real HTTP server that answers in the gateway's contract as a test scripts it: keep-alive, JSON bodies."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import msgspec
from virtual_time import passes

from gateway.api.responses import checkpoint_document
from gateway.catalogs.catalog import Catalog
from gateway.model.manifest import VariantManifest

NEVER = math.inf
"""A delay after which nothing is answered and the connection stays open."""


@dataclass(frozen=True)
class Asked:
    """One request as it arrived; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, object]:
        """Return the JSON of the body."""
        found: dict[str, object] = json.loads(self.body)
        return found


@dataclass(frozen=True)
class Told:
    """An answer after a delay of virtual time. Without a status the connection is closed instead."""

    status: int | None = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"[]"
    after_s: float = 0.0


Behaviour = Callable[[Asked], Told]


def answer(checkpoint: str = "swift", after_s: float = 0.0, **headers: str) -> Told:
    """Return an answer in the contract's words with these headers, underscores for hyphens."""
    decided = {"X-Checkpoint": checkpoint, "X-Tier": "realtime", "X-Route-Reason": "fits"}
    return Told(200, decided | {name.replace("_", "-"): value for name, value in headers.items()}, b"[]", after_s)


def problem(status: int, code: str, after_s: float = 0.0) -> Told:
    """Return a problem with a code."""
    return Told(status, {}, json.dumps({"status": status, "code": code}).encode(), after_s)


def checkpoints(catalog: Catalog, manifests: Mapping[str, VariantManifest], replicas: int = 1) -> bytes:
    """Return the body of `/checkpoints`, as the gateway writes it."""
    entries = catalog.checkpoints
    listed = [checkpoint_document(one, manifests[one.name], replicas, 0.0, None) for one in entries]
    return msgspec.json.encode({"checkpoints": listed})


class SmallGateway:
    """Answers as scripted, and keeps the requests in the order of their arrival."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.asked: list[Asked] = []
        self.connections = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve on a free port of loopback; yield the URL."""
        handlers: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            handlers.add(task)
            self.connections += 1
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while await self._one(reader, writer):
                    pass
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in handlers:
                task.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)
            await server.wait_closed()

    @contextmanager
    def elsewhere(self) -> Iterator[str]:
        """Serve on a thread of its own; yield the URL."""
        loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
        urls: list[str] = []

        async def run() -> None:
            async with self.serving() as url:
                urls.append(url)
                ready.set()
                await done.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
        thread.start()
        assert ready.wait(60)
        try:
            yield urls[0]
        finally:
            loop.call_soon_threadsafe(done.set)
            thread.join(60)
            loop.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(": ") for line in lines if line)
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        asked = Asked(first.split(" ")[1], headers, body)
        self.asked.append(asked)
        told = self.behaviour(asked)
        if told.after_s:
            await (asyncio.Event().wait() if told.after_s == NEVER else passes(told.after_s))
        if told.status is None:
            return False
        said = "".join(f"{name}: {value}\r\n" for name, value in told.headers.items())
        head = f"HTTP/1.1 {told.status} X\r\nContent-Length: {len(told.body)}\r\n{said}\r\n"
        writer.write(head.encode() + told.body)
        await writer.drain()
        return True
