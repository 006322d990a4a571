"""An HTTP client for many concurrent requests. The only file here that imports `aiohttp`.

aiohttp comes with `ray[serve]`, runs on one event loop and keeps connections alive. The standard library's client
would need a thread for each concurrent request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiohttp

NO_LIMIT = 0


@dataclass(frozen=True)
class Reply:
    """An answer, whatever its status; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoReply(Exception):
    """The connection was refused, broken or closed without an answer; the message names the fault."""


class Hung(Exception):
    """No complete answer within the time allowed."""


class Client(Protocol):
    """Posts JSON to one URL."""

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """One request, never repeated. Raises NoReply or Hung."""


class HttpClient:
    """A `Client` over HTTP/1.1, made by `http_client`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, within_s: float) -> None:
        self._session = session
        self._url = url
        self._within_s = within_s

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """One request, never repeated. Raises NoReply or Hung."""
        try:
            async with (
                asyncio.timeout(self._within_s),
                self._session.post(
                    self._url, data=body, headers={"Content-Type": "application/json", **headers}
                ) as answer,
            ):
                content = await answer.read()
        except TimeoutError:
            raise Hung(f"no answer within {self._within_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoReply(type(error).__name__) from None
        return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()}, content)


@asynccontextmanager
async def http_client(url: str, within_s: float, connections: int = NO_LIMIT) -> AsyncIterator[HttpClient]:
    """A client that waits at most `within_s` for an answer, over at most `connections` connections (default: no limit).

    A POST on a kept connection that the server has just closed is not repeated: it raises NoReply.
    """
    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
        yield HttpClient(session, url, within_s)
