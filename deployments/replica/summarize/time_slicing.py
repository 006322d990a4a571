"""The time slicer: summaries under work share the engine step by step, and every one ends exactly once.

`next_turn` is the rule that says whose step is next; it is pure, and the simulator asks it too. `TimeSlicer` runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from deployments.engines.base import guarded, yield_to_others
from deployments.replica.summarize.job import Condensed, SummaryJob, usable
from deployments.replica.summarize.step_log import NO_LOG, Step, StepLog
from deployments.replica.totals import TimeSlicerTotals
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FailureKind, LoadReport
from gateway.scheduling.late_share import LateShare

TURN_S = 0.02
"""How long a text keeps the engine while others wait, in seconds, unless a single step takes longer."""


@dataclass(slots=True, eq=False, kw_only=True)
class Sharing:
    """A text as the rule sees it: its order of arrival, when it must be done, what it had and what it still needs."""

    sequence: int
    deadline: float
    attained_s: float = 0.0
    left_s: float = 0.0

    def slack_s(self, now: float) -> float:
        """What it can wait and still be done in time, by the median; negative where it cannot be."""
        return self.deadline - now - self.left_s

    def overdue(self, now: float) -> bool:
        """Whether it will miss its deadline even if it has the engine for itself from now on."""
        return self.slack_s(now) < 0


Text = TypeVar("Text", bound=Sharing)


def next_turn(waiting: Collection[Text], now: float, *, overdue_turn: bool = False) -> Text:
    """The text that gets the engine next.

    First whoever would miss its deadline by waiting for one round of the others, the least slack first. Else whoever
    has had least of the engine, so that a short text that comes while a long one is written is done in about twice its
    own time (least attained service: Nuyens and Wierman, "The Foreground-Background queue: a survey", Performance
    Evaluation 2008). Ties go to the earlier. A text that will miss its deadline in any case is overdue: it yields to
    all that can be in time, unless it is the turn of the overdue (`OverdueShare` says when); then it is the oldest's.
    """
    timely = [text for text in waiting if not text.overdue(now)]
    if not timely or (overdue_turn and len(timely) < len(waiting)):
        overdue = [text for text in waiting if text.overdue(now)]
        return min(overdue, key=_sequence if timely else _attained)
    round_s = TURN_S * len(timely)
    urgent = [text for text in timely if text.slack_s(now) < round_s]
    if urgent:
        return min(urgent, key=lambda text: (text.slack_s(now), text.sequence))
    return min(timely, key=_attained)


def contested(waiting: Collection[Sharing], now: float) -> bool:
    """Whether texts that can be in time and overdue ones both wait for the engine."""
    return len({text.overdue(now) for text in waiting}) > 1


def _attained(text: Sharing) -> tuple[float, int]:
    return text.attained_s, text.sequence


def _sequence(text: Sharing) -> int:
    return text.sequence


MOST_BEGUN = 8
"""Texts under way at once: each holds keys and values of its own in memory. Further ones wait for the first to end."""

_TICK_S = 0.001


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """How a text ended, and where its time went: in the engine for it, and waiting for its turns."""

    condensed: Condensed
    queueing_delay_s: float
    service_time_s: float


@dataclass(slots=True, eq=False, kw_only=True)
class _Text(Sharing):
    """A text under work. The engine's thread writes while it has its turn, the loop at all other times.

    Its steps must end by `deadline`; it is late when `room.deadline` has passed too.
    """

    name: str
    condensing: SummaryJob
    entered: float
    result: asyncio.Future[FinishedJob | Failure]
    alarm: asyncio.TimerHandle | None = None
    withdrawn: bool = False
    begun: bool = False
    failure: Failure | None = None
    done: bool = False
    ran_overdue: bool = False
    ran_contested: bool = False
    steps: list[Step] = field(default_factory=list)

    def settle(self, result: FinishedJob | Failure) -> None:
        """Gives the caller its result, unless it has left."""
        if not self.result.done():
            self.result.set_result(result)


class TimeSlicer:
    """Sees texts through, a turn of each after the other, on `lanes` threads.

    All methods belong to the event loop that `start` ran on. Deadlines are instants on the clock.
    """

    def __init__(
        self,
        slots: int,
        clock: Clock,
        max_queued: int,
        log: StepLog = NO_LOG,
        *,
        niceness: int = 0,
        turn_s: float = TURN_S,
    ) -> None:
        """Runs nothing: `start` does. The niceness is that of the engine's threads alone.

        A turn ends after `turn_s` seconds while others wait; with infinity, only with its text.
        """
        self.totals = TimeSlicerTotals()
        self._slots = slots
        self._clock = clock
        self._max_queued = max_queued
        self._log = log
        self._niceness = niceness
        self._turn_s = turn_s
        self._waiting: set[_Text] = set()
        self._running: set[_Text] = set()
        self._ending: set[_Text] = set()
        self._overdue = LateShare(earned_s=TURN_S)
        self._begun = 0
        self._sequence = 0
        self._open = False
        self._idle = asyncio.Event()

    def start(self) -> None:
        """Opens the queue, on the running loop. Call it once."""
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(
            self._slots, "engine", initializer=yield_to_others, initargs=(self._niceness,)
        )
        self._ending_thread = ThreadPoolExecutor(1, thread_name_prefix="ending")
        self._open = True

    async def stop(self, grace_s: float) -> None:
        """Admits nothing more, finishes what it can within `grace_s`; the rest is UNAVAILABLE."""
        if not self._open:
            return
        self._open = False
        try:
            if self._under_work():
                self._idle.clear()
                async with asyncio.timeout(grace_s):
                    await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            waiting = tuple(self._waiting)
            self._waiting.clear()
            for text in (*waiting, *self._running, *self._ending):
                text.withdrawn = True
                text.settle(Failure(FailureKind.UNAVAILABLE, "stopped"))
            for text in waiting:  # the others come back, and end there
                self._end(text)
            self._threads.shutdown(wait=False)
            self._ending_thread.shutdown(wait=False)

    async def submit(self, name: str, condensing: SummaryJob) -> FinishedJob | Failure:
        """Sees one text through. Failures are values: QUEUE_FULL, TOO_LONG, ENGINE, UNAVAILABLE.

        Cancelling it withdraws the text: a step that runs is the last. `name` is what the log of steps calls it.
        """
        if not self._open:
            return Failure(FailureKind.UNAVAILABLE, "not started, or stopping")
        if len(self._waiting) >= self._max_queued:
            return Failure(FailureKind.QUEUE_FULL)
        self._sequence += 1
        text = _Text(
            sequence=self._sequence,
            deadline=condensing.room.stop_at,
            left_s=condensing.room.left_s,
            name=name,
            condensing=condensing,
            entered=self._clock(),
            result=self._loop.create_future(),
        )
        self._waiting.add(text)
        self._give_turns()
        self._arm(text)
        try:
            return await text.result
        except asyncio.CancelledError:
            self.totals.cancelled += 1
            text.withdrawn = True
            if text in self._waiting:
                self._waiting.discard(text)
                self._end(text)
                self._give_turns()
            raise

    def load(self) -> LoadReport:
        """What is still to be done, by medians and not past anybody's deadline, and how many share the engine."""
        now = self._clock()
        sharing = [text for text in (*self._waiting, *self._running) if not text.withdrawn]
        backlog_s = sum(max(0.0, min(text.condensing.room.left_s, text.deadline - now)) for text in sharing)
        return LoadReport(backlog_s / self._slots, len(self._waiting), draining=not self._open, sharing=len(sharing))

    def _under_work(self) -> bool:
        return bool(self._waiting or self._running or self._ending)

    def _arm(self, text: _Text) -> None:
        """Sees to it that the text ends when its time is up, whoever has the engine then."""
        left_s = text.deadline - self._clock()
        text.alarm = self._loop.call_later(max(left_s, 0.0) + _TICK_S, self._time_up, text)

    def _time_up(self, text: _Text) -> None:
        if self._clock() <= text.deadline:  # the loop's clock is coarser, and may be another
            self._arm(text)
        elif text in self._waiting:
            self._give_turns()

    def _give_turns(self) -> None:
        """Ends every waiting text whose time is up, and gives every idle thread another one."""
        now = self._clock()
        for text in [text for text in self._waiting if text.deadline < now]:
            self._waiting.discard(text)
            self._ending.add(text)
            self._ending_thread.submit(self._take_turn, text)
        while len(self._running) < self._slots:
            ready = [text for text in self._waiting if text.begun or self._begun < MOST_BEGUN]
            if not ready:
                break
            text = next_turn(ready, now, overdue_turn=self._overdue.turn)
            text.ran_overdue, text.ran_contested = text.overdue(now), contested(ready, now)
            self._waiting.discard(text)
            self._running.add(text)
            self._begun += not text.begun
            text.begun = True
            self._threads.submit(self._take_turn, text)
        if not self._under_work():
            self._idle.set()

    def _take_turn(self, text: _Text) -> None:
        """On a thread: steps until the text is done or withdrawn, or its turn is over while others wait.

        Where nothing is left to be run or its time is up, its next step only ends it, and it need not wait for that.
        """
        room = text.condensing.room
        began = ended = self._clock()
        try:
            while not (text.done or text.withdrawn):
                if self._waiting and ended - began >= self._turn_s and ended <= text.deadline and room.left_s > 0:
                    break
                step_began = ended
                done = guarded(text.condensing.step)
                ended = self._clock()
                if isinstance(done, Failure):
                    text.failure, text.done = done, True
                elif done:
                    text.done = True
                else:
                    text.steps.append(Step(step_began - room.deadline, ended - room.deadline))
        finally:
            text.attained_s += ended - began
            self._loop.call_soon_threadsafe(self._back, text, ended - began)

    def _back(self, text: _Text, ran_s: float) -> None:
        """Back on the loop: the engine works on for the next while this one's result goes out."""
        self.totals.turns += 1
        if text in self._running:
            self.totals.sizes[len(self._waiting) + len(self._running)] += 1
        self._running.discard(text)
        self._ending.discard(text)
        self._overdue.ran(ran_s, late=text.ran_overdue, contested=text.ran_contested)
        text.left_s = text.condensing.room.left_s
        over = text.done or text.withdrawn
        if over:
            self._end(text)
        else:
            self._waiting.add(text)
        self._give_turns()
        if over:
            text.settle(self._result(text))

    def _result(self, text: _Text) -> FinishedJob | Failure:
        outcome = text.failure or text.condensing.outcome
        if outcome is None:
            return Failure(FailureKind.CANCELLED)
        if isinstance(outcome, Failure):
            return outcome
        return FinishedJob(outcome, self._clock() - text.entered - text.attained_s, text.attained_s)

    def _helped(self, text: _Text) -> bool:
        """Whether somebody got something of it in time."""
        outcome = text.condensing.outcome
        if text.withdrawn or not isinstance(outcome, Condensed) or self._clock() > text.condensing.room.deadline:
            return False
        return usable(outcome.text, outcome.generation.finish_reason)

    def _end(self, text: _Text) -> None:
        """Counts a text that is under work no longer, whatever its end."""
        self._begun -= text.begun
        if text.alarm is not None:
            text.alarm.cancel()
        totals = self.totals
        totals.inputs += 1
        totals.steps += len(text.steps)
        totals.late_steps += sum(step.late for step in text.steps)
        overshoots = (step.ended_s for step in text.steps)
        totals.longest_overshoot_s = max(totals.longest_overshoot_s, *overshoots, 0.0)
        totals.busy_s += text.attained_s
        totals.engine_failures += text.failure is not None
        if not self._helped(text):
            totals.wasted_s += text.attained_s
        try:
            self._log.write(text.name, text.steps, withdrawn=text.withdrawn)
        except OSError as error:  # a full disk costs the log a line, and nobody a summary
            self._loop.call_exception_handler({"message": "a line of the step log is lost", "exception": error})
