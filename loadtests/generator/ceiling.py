"""Measures the generator's ceiling: how many requests a second it can send on time on this machine.

The server under test answers at once and takes a core, as a gateway would. A run near the ceiling says little about
a gateway. A run beyond it is not valid and is marked so.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from multiprocessing.connection import Connection
from random import Random
from typing import cast

import uvloop
from rich.console import Console

from loadtests.generator.calls import Call, Handling, Stock, calls_of, held_out
from loadtests.generator.open_loop import Fire, Order, generating
from loadtests.generator.results import ANSWERED, LATE_SHARE, late_share
from loadtests.workload.arrivals import Offered, RatePiece, instants

RATES = (250, 500, 750, 1000, 1500, 2000, 2500, 3000, 4000, 5000, 6000, 8000, 10_000)
WARMUP_S = 0.5
TOKENS = 40
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Checkpoint: none\r\nX-Tier: realtime\r\n"
    b"X-Route-Reason: fits\r\nX-Predicted-Latency-Ms: 1\r\nX-Forecast-Quantile-Ms: 1\r\nContent-Length: 2\r\n\r\n[]"
)


@dataclass(frozen=True, slots=True)
class Offer:
    """One rate that was tried: the share of requests sent late, and whether all were answered."""

    rate_per_s: int
    late_sends: float
    answered: bool

    @property
    def honest(self) -> bool:
        """True if a run at this rate would be valid."""
        return self.answered and self.late_sends <= LATE_SHARE


def find_ceiling(seconds: float, console: Console) -> int:
    """Tries rising rates, `seconds` each, until a run would not be valid; prints each, returns the last valid one."""
    stock = held_out()
    with parrot() as url, generating() as generator:
        tried: list[Offer] = []
        for rate in RATES:
            tried.append(offer(url, rate, seconds, generator.fire, stock))
            console.print(f"{rate}/s: {tried[-1].late_sends:.2%} sent more than 10 ms late")
            if not tried[-1].honest:
                break
    honest = list(takewhile(lambda one: one.honest, tried))
    most = honest[-1].rate_per_s if honest else 0
    console.print(f"the generator can offer {most} requests/s here" + (" at least" if tried[-1].honest else ""))
    return most


def offer(url: str, rate_per_s: int, seconds: float, fire: Fire, stock: Stock) -> Offer:
    """Sends Poisson arrivals at one rate, after a warm-up of half a second."""
    due = instants([RatePiece.even(WARMUP_S + seconds, rate_per_s)], 1.0, Random(rate_per_s))
    requests = [Offered(at, "classify", due_s, 1.0, TOKENS) for at, due_s in enumerate(due)]
    calls: list[Call] = calls_of(requests, Handling("ceiling"), stock, 0.0, seed=rate_per_s)
    results = [one for one in fire(Order(url, calls, 10.0), lambda age_s: None) if one.due_s >= WARMUP_S]
    return Offer(rate_per_s, late_share(results), all(one.fate in ANSWERED for one in results))


class _Parrot(asyncio.Protocol):
    """Answers every request on a connection with the same bytes."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class is not derived from it

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (length := _whole(self._read)) is not None and self._transport is not None:
            self._read = self._read[length:]
            self._transport.write(ANSWER)


def _whole(data: bytes) -> int | None:
    """The length of the first request in `data`, or None while it is incomplete."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    _, _, after = head.lower().partition(b"content-length: ")
    length = int(after.partition(b"\r\n")[0] or b"0")
    return len(head) + len(end) + length if len(rest) >= length else None


@contextmanager
def parrot() -> Iterator[str]:
    """Starts a server process that gives every request the same answer; yields its URL."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its,), name="parrot", daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()
        ours.close()


def _serve(pipe: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Parrot, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
