"""A turnstile as tests play it, before a played room of one core."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from played_rooms import Played, PlayedRoom

from gateway.scheduling.loop import SchedulerLoop
from gateway.scheduling.scheduler import Batch


@dataclass
class Gate:
    """A turnstile before a played room. Its time is the room's, and the loop's passes beside it once it `runs`."""

    play: PlayedRoom
    runs: bool = False

    def __post_init__(self) -> None:
        self.began_s = asyncio.get_running_loop().time()
        self.loop = SchedulerLoop(self.play.room, self.clock)

    def clock(self) -> float:
        """The time."""
        return self.play.now_s + (asyncio.get_running_loop().time() - self.began_s if self.runs else 0.0)

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
        release = self.play.room.next_batch(self.clock())
        if release is None:
            self.play.room.leave(probe)
            return 1
        assert release.members == (probe,), "somebody waited while the core was free"
        self.play.room.ended(release)
        return 0


def gate(max_batch: int = 1, slots: int = 4) -> Gate:
    """One core, 10 ms a run."""
    return Gate(PlayedRoom((Played("only", 0.010, 80.0, max_batch=max_batch, slots=slots),)))
