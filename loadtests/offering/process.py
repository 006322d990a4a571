"""The generator in a process of its own, urgent where the system allows it: what shows progress never delays a send.

One process serves all the runs of an experiment. It is given calls and gives landings back.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import perf_counter
from typing import TypeAlias

import uvloop

from loadtests.offering.calls import Call
from loadtests.offering.errors import GeneratorFailed
from loadtests.offering.generator import clients_of, fired
from loadtests.offering.landings import Landing

URGENCY = -10
"""The niceness that is asked for; it takes a privilege, and without it the generator runs as everything else."""

SWITCH_S = 0.0005
"""How soon the thread that keeps the time has the interpreter, once it is due; Python's own 5 ms would be lag."""

TICK_S = 0.1
END_WITHIN_S = 5.0


@dataclass(frozen=True)
class Order:
    """Calls to send to a gateway; one without an answer for `within_s` since it was sent has failed."""

    url: str
    calls: Sequence[Call]
    within_s: float


Fire: TypeAlias = Callable[[Order, Callable[[float], None]], list[Landing]]
"""Sends an order and gives its landings back; meanwhile it tells how many seconds old the run is."""


class Generator:
    """The process, as its owner sees it. `generating` makes one."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self._process = process
        self._pipe = pipe

    def fire(self, order: Order, tick: Callable[[float], None]) -> list[Landing]:
        """Sends everything and waits for the last end; `tick` is told about every tenth of a second how many seconds
        the run is old. Raises GeneratorFailed.
        """
        try:
            self._pipe.send(order)
            self._pipe.recv()  # that its clock runs
            start_s = perf_counter()
            tick(0.0)
            while not self._pipe.poll(TICK_S):
                tick(perf_counter() - start_s)
            landings: list[Landing] = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(END_WITHIN_S)
            raise GeneratorFailed(f"the generator ended with {self._process.exitcode}") from None
        return landings


@contextmanager
def generating() -> Iterator[Generator]:
    """A generator that waits for orders; it is gone afterwards."""
    context = multiprocessing.get_context("spawn")  # nothing of the owner's threads and loops is in it
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its,), name="generator", daemon=True)
    process.start()
    its.close()
    try:
        yield Generator(process, ours)
    finally:
        ours.close()
        process.join(END_WITHIN_S / 10)
        if process.is_alive():
            process.terminate()
            process.join(END_WITHIN_S)


def prepare() -> None:
    """Makes the calling process a better generator: urgent, quick to switch threads, with room for connections."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, URGENCY)
    sys.setswitchinterval(SWITCH_S)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _serve(pipe: Connection) -> None:
    prepare()
    with suppress(EOFError, KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while True:
            order: Order = pipe.recv()
            pipe.send(runner.run(_fired(order, lambda: pipe.send(None))))


async def _fired(order: Order, started: Callable[[], None]) -> list[Landing]:
    """Fires with the garbage collector off, whose longest pauses are longer than a send may be late."""
    tasks = sorted({call.task for call in order.calls})
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        async with clients_of(order.url, tasks, order.within_s) as clients:
            started()
            return await fired(clients, order.calls, perf_counter)
    finally:
        gc.enable()
        gc.unfreeze()
