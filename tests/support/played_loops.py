"""A scheduler loop as tests play it, with a scheduler of one core."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from played_schedulers import Played, PlayedScheduler

from gateway.scheduling.loop import SchedulerLoop
from gateway.scheduling.scheduler import Batch


@dataclass
class PlayedLoop:
    """A loop with a played scheduler, whose time it has; the event loop's time is added once it `runs`."""

    play: PlayedScheduler
    runs: bool = False

    def __post_init__(self) -> None:
        self.began_s = asyncio.get_running_loop().time()
        self.loop = SchedulerLoop(self.play.scheduler, self.clock)

    def clock(self) -> float:
        """Return the time."""
        return self.play.now_s + (asyncio.get_running_loop().time() - self.began_s if self.runs else 0.0)

    def comes(
        self, budget_s: float = 5.0, patience_s: float = 60.0, strict: bool = False
    ) -> asyncio.Task[Batch | None]:
        """Send a request to the scheduler loop, as a task of its own."""
        held = self.play.queued_request(budget_s, strict=strict)
        return asyncio.create_task(self.loop.passed(held, patience_s))

    @property
    def under_way(self) -> int:
        """Return 1 if the one core is busy, else 0."""
        probe = self.play.queued_request(60.0)
        self.play.scheduler.enter(probe)
        release = self.play.scheduler.next_batch(self.clock())
        if release is None:
            self.play.scheduler.leave(probe)
            return 1
        assert release.members == (probe,), "somebody waited while the core was free"
        self.play.scheduler.ended(release)
        return 0


def played_loop(max_batch: int = 1, slots: int = 4) -> PlayedLoop:
    """Return a loop of one core, 10 ms a batch."""
    return PlayedLoop(PlayedScheduler((Played("only", 0.010, 80.0, max_batch=max_batch, slots=slots),)))
