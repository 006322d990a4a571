"""An event loop with a virtual clock: timers ring at the test's time, however busy the machine is.

A coroutine test that is marked `virtual_time` runs on such a loop. Its time flows, by a leap to the next timer whenever
nothing else is left to do; or, with `flows=False`, it stands until the test moves `loop_clock()`. Where work runs on
threads of its own it must stand: the loop cannot know how long these will take. Sockets are real.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from fakes import FakeClock

GIVEN_UP_S = 60.0
"""Real seconds without any event after which a test fails."""

_DELIVERY_S = 0.002
"""Real seconds for the kernel to deliver bytes between two sockets of the test before time leaps."""

Result = TypeVar("Result")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose `time()` is a virtual clock, moved by a test or, if it flows, by the loop's own leaps.

    Time never flows while a thread of the loop's executor is at work.
    """

    def __init__(self, clock: FakeClock | None = None, *, flows: bool) -> None:
        self.clock = clock or FakeClock()
        self.flows = flows
        self.at_work = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self.clock()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run as usual, and count the work."""
        self.at_work += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._worked)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncio's own
        """Wait for the executor's threads without a limit: virtual time would leap to that of Python 3.12 on."""
        await super().shutdown_default_executor()

    def _worked(self, _: asyncio.Future[Any]) -> None:
        self.at_work -= 1


class _Selector(selectors.DefaultSelector):
    """Lets virtual time pass where a loop would wait for its next timer."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what sockets and threads have for the loop. `timeout` is virtual."""
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if timeout is not None and self._loop.flows and not self._loop.at_work:
            alone = len(self.get_map()) == 1  # the loop's own pipe
            if not (ready := super().select(0 if alone else _DELIVERY_S)):
                self._loop.clock.advance(timeout)
            return ready
        if not (ready := super().select(GIVEN_UP_S)):
            raise TimeoutError(f"nothing happened for {GIVEN_UP_S:.0f} s, and the test's time stands")
        return ready


def run_virtually(test: Coroutine[Any, Any, Result], clock: FakeClock | None = None, *, flows: bool = True) -> Result:
    """Run a coroutine on a virtual loop, by this clock if one is given."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock, flows=flows)) as runner:
        return runner.run(test)


def loop_clock() -> FakeClock:
    """Return the clock of the running virtual loop."""
    return _loop().clock


async def passes(seconds: float) -> None:
    """Let this much virtual time flow, as a slow part of a test does."""
    assert _loop().flows
    await asyncio.sleep(seconds)


async def turns(count: int = 10) -> None:
    """Give the loop some turns, in which no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


def _loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "the test is not run in virtual time"
    return loop
