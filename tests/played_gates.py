"""A turnstile as tests play it, before a played room of one core."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from played_rooms import Played, PlayedRoom

from gateway.scheduling.loop import SchedulerLoop
from gateway.scheduling.scheduler import Batch


@dataclass
class Gate:
    """A turnstile before a played room. Its time is the room's, or that of the machine once it `runs`."""

    play: PlayedRoom
    runs: bool = False
    began_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.loop = SchedulerLoop(self.play.room, self.clock)

    def clock(self) -> float:
        """The time."""
        return self.play.now_s + (time.monotonic() - self.began_s if self.runs else 0.0)

    def comes(
        self, budget_s: float = 5.0, patience_s: float = 60.0, strict: bool = False
    ) -> asyncio.Task[Batch | None]:
        """A request comes to the turnstile, as a task of its own."""
        held = self.play.waiter(budget_s, strict=strict)
        return asyncio.create_task(self.loop.passed(held, patience_s))

    @property
    def under_way(self) -> int:
        """Whether the one core is taken: 0 or 1."""
        probe = self.play.waiter(60.0)
        self.play.room.enter(probe)
        release = self.play.room.release(self.clock())
        if release is None:
            self.play.room.leave(probe)
            return 1
        assert release.members == (probe,), "somebody waited while the core was free"
        self.play.room.ended(release)
        return 0


def gate(max_batch: int = 1, slots: int = 4) -> Gate:
    """One core, 10 ms a run."""
    return Gate(PlayedRoom((Played("only", 0.010, 80.0, max_batch=max_batch, slots=slots),)))


async def turns(count: int = 3) -> None:
    """Gives the loop some turns."""
    for _ in range(count):
        await asyncio.sleep(0)
