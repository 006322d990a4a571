"""The replica's batcher: inputs wait here for the engine, and every one leaves with exactly one result.

It owns the queue and the engine's thread. Which entries run next is `batch_forming`'s rule; what an engine or a
request is, it does not know. A batch closes as soon as the engine is free: work merges while it is busy, and
nothing waits for companions. Strict inputs whose deadline passes end then, however long the engine is busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import TypeAlias

from deployments.engines.base import Logits, TokenIds, guarded, padded, yield_to_others
from deployments.replica.batch_forming import (
    Backlog,
    BatchLimits,
    MedianTimes,
    RememberedMedians,
    Waiting,
    form_batch,
    of_next_run,
)
from deployments.replica.totals import BatcherTotals
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FailureKind, LoadReport
from gateway.scheduling.late_share import LateShare

EngineRun: TypeAlias = Callable[[TokenIds, TokenIds], Logits]
_INTERRUPTED = Failure(FailureKind.ENGINE, "interrupted")


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One input's logits (labels,), and where its time went. `service_time_s` is that of its whole batch."""

    logits: Logits
    queueing_delay_s: float
    service_time_s: float
    batch_size: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Queued(Waiting):
    """A waiting entry with what only the batcher needs: its ids, and the future its caller awaits."""

    token_ids: Sequence[int]
    result: asyncio.Future[Scored | Failure]

    def settle(self, result: Scored | Failure) -> None:
        """Gives the caller its result, unless it has left or has one: a late result must never raise."""
        if not self.result.done():
            self.result.set_result(result)


@dataclass(slots=True, eq=False)
class _Run:
    """One engine run: its members, then what the engine's thread writes: the logits, or the failure all share."""

    members: tuple[_Queued, ...]
    expected_end: float
    started: float = 0.0
    ended: float = 0.0
    outcome: Logits | Failure = _INTERRUPTED

    @property
    def service_time_s(self) -> float:
        return self.ended - self.started

    def settle(self) -> None:
        """Gives every member its own row, or the failure."""
        for row, entry in enumerate(self.members):
            if isinstance(self.outcome, Failure):
                entry.settle(self.outcome)
            else:
                delay_s = self.started - entry.enqueued_at
                entry.settle(Scored(self.outcome[row], delay_s, self.service_time_s, len(self.members)))


class Batcher:
    """Answers token ids with logits by a deadline, through one blocking `engine_run` on `threads` threads.

    Those have the niceness given; the loop's own keeps its priority.

    All methods belong to the event loop that `start` ran on. Deadlines are instants on `clock`.
    """

    def __init__(
        self,
        engine_run: EngineRun,
        profile: MedianTimes,
        limits: BatchLimits,
        clock: Clock,
        max_queued: int,
        *,
        pad_id: int = 0,
        threads: int = 1,
        niceness: int = 0,
    ) -> None:
        """Runs nothing: `start` does."""
        self.totals = BatcherTotals()
        self._engine_run = engine_run
        self._medians = RememberedMedians(profile)
        self._limits = limits
        self._clock = clock
        self._max_queued = max_queued
        self._pad_id = pad_id
        self._threads = threads
        self._niceness = niceness
        self._waiting: dict[int, _Queued] = {}
        self._backlog = Backlog(self._medians)
        self._overdue = LateShare()
        self._strict: list[tuple[float, int]] = []  # a heap: deadline and sequence; who has left is still in it
        self._alarm: asyncio.TimerHandle | None = None
        self._running: set[_Run] = set()
        self._sequence = 0
        self._open = False
        self._forming_soon = False
        self._idle = asyncio.Event()

    def start(self) -> None:
        """Opens the queue, on the running loop. Call it once."""
        self._loop = asyncio.get_running_loop()
        self._engine_threads = ThreadPoolExecutor(
            self._threads, "engine", initializer=yield_to_others, initargs=(self._niceness,)
        )
        self._open = True

    async def stop(self, grace_s: float) -> None:
        """Admits nothing more, finishes what it can within `grace_s`; the rest is UNAVAILABLE."""
        if not self._open:
            return
        self._open = False
        try:
            if self._waiting or self._running:
                self._idle.clear()
                async with asyncio.timeout(grace_s):
                    await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            for entry in [*self._waiting.values(), *(member for run in self._running for member in run.members)]:
                self._leave(entry)
                entry.settle(Failure(FailureKind.UNAVAILABLE, "stopped"))
            self._engine_threads.shutdown(wait=False, cancel_futures=True)

    async def submit(self, token_ids: Sequence[int], deadline: float, strict: bool, run: int = 0) -> Scored | Failure:
        """The logits of one input, meant for that run. Failures are values: EXPIRED, QUEUE_FULL, ENGINE, UNAVAILABLE.

        Cancelling it withdraws the input; if that is already running, its result is discarded.
        """
        if not self._open:
            return Failure(FailureKind.UNAVAILABLE, "not started, or stopping")
        if len(self._waiting) >= self._max_queued:
            return Failure(FailureKind.QUEUE_FULL)
        self._sequence += 1
        now, result = self._clock(), self._loop.create_future()
        entry = _Queued(
            self._sequence, len(token_ids), deadline, strict, now, run=run, token_ids=token_ids, result=result
        )
        self._enter(entry)
        if not self._forming_soon and len(self._running) < self._threads:
            self._forming_soon = True  # not at once: what is submitted in this turn of the loop may run together
            self._loop.call_soon(self._form)
        try:
            return await entry.result
        except asyncio.CancelledError:
            self.totals.cancelled += 1
            self._leave(entry)
            raise

    def load(self) -> LoadReport:
        """How long an input arriving now would wait, by medians: queued work and what is left of the running."""
        now = self._clock()
        running_s = sum(max(0.0, run.expected_end - now) for run in self._running)
        backlog_s = (self._backlog.waiting_s + running_s) / self._threads
        return LoadReport(backlog_s, len(self._waiting), draining=not self._open)

    def _enter(self, entry: _Queued) -> None:
        self._waiting[entry.sequence] = entry
        self._backlog.enter(entry)
        if entry.strict:
            heappush(self._strict, (entry.deadline, entry.sequence))
            if self._strict[0][1] == entry.sequence:
                self._arm()

    def _leave(self, entry: _Queued) -> None:
        if self._waiting.pop(entry.sequence, None):
            self._backlog.leave(entry)

    def _expire(self, entry: _Queued) -> None:
        self._leave(entry)
        self.totals.expired += 1
        entry.settle(Failure(FailureKind.EXPIRED))

    def _arm(self) -> None:
        """Sets the one alarm to the earliest deadline of a strict input that waits."""
        if self._alarm is not None:
            self._alarm.cancel()
        while self._strict and self._strict[0][1] not in self._waiting:
            heappop(self._strict)
        self._alarm = None
        if self._strict:
            self._alarm = self._loop.call_later(max(self._strict[0][0] - self._clock(), 0.0), self._time_up)

    def _time_up(self) -> None:
        """Ends what is lost at its deadline: by the rule it would only when the engine is free again."""
        now = self._clock()  # the loop's clock is coarser, and may be another
        while self._strict and self._strict[0][0] <= now:
            if (entry := self._waiting.get(heappop(self._strict)[1])) is not None:
                self._expire(entry)
        self._arm()

    def _form(self) -> None:
        """Gives every idle engine thread a batch."""
        self._forming_soon = False
        while self._waiting and len(self._running) < self._threads:
            now = self._clock()
            formed = form_batch(
                of_next_run(self._waiting.values(), self._threads - len(self._running)),
                now,
                self._limits,
                self._medians,
                overdue_turn=self._overdue.turn,
                threads=self._threads,
            )
            for entry in formed.expired:
                self._expire(entry)
            if formed.entries:
                for entry in formed.entries:
                    self._leave(entry)
                self._backlog.learn(formed)
                self._overdue.ran(formed.median_s, late=formed.overdue, contested=formed.contested)
                run = _Run(formed.entries, expected_end=now + formed.median_s)
                self._running.add(run)
                self._engine_threads.submit(self._run_engine, run)
        if not self._waiting and not self._running:
            self._idle.set()

    def _run_engine(self, run: _Run) -> None:
        """On the engine's thread: the batch boundary. Whatever the engine raises is its members' failure."""
        run.started = self._clock()
        try:
            run.outcome = guarded(lambda: self._logits(run.members))
        finally:
            run.ended = self._clock()
            self._loop.call_soon_threadsafe(self._finished, run)

    def _logits(self, members: Sequence[_Queued]) -> Logits:
        batch = padded([entry.token_ids for entry in members], self._pad_id)
        logits = self._engine_run(batch.token_ids, batch.attention_mask)
        if len(logits) != len(members):
            raise ValueError(f"the engine gave {len(logits)} rows for {len(members)} inputs")
        return logits

    def _finished(self, run: _Run) -> None:
        """Back on the loop. A failed batch of several runs again one by one: only the culprit fails."""
        self._running.discard(run)
        self._count(run)
        again = isinstance(run.outcome, Failure) and len(run.members) > 1
        if again:
            for entry in run.members:
                if not entry.result.done():
                    self._enter(replace(entry, alone=True))
        self._form()  # the engine works on while the answers go out
        if not again:
            run.settle()

    def _count(self, run: _Run) -> None:
        size, failed = len(run.members), isinstance(run.outcome, Failure)
        helped = sum(not failed and not entry.result.done() and run.ended <= entry.deadline for entry in run.members)
        self.totals.batches += 1
        self.totals.sizes[size] += 1
        self.totals.inputs += size
        self.totals.real_tokens += sum(entry.tokens for entry in run.members)
        self.totals.padded_tokens += size * max(entry.tokens for entry in run.members)
        self.totals.engine_failures += failed
        self.totals.busy_s += run.service_time_s
        self.totals.wasted_s += run.service_time_s * (1 - helped / size)
