"""The replica's batcher: inputs wait here for the engine, and each gets exactly one result.

It owns the queue and the engine's threads. `batch_forming` decides what runs next. The batcher knows neither engines
nor requests. A batch starts as soon as a thread is free: inputs gather while the engine is busy, and never wait for
companions. Strict inputs expire at their deadline, even while the engine is busy.
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
    of_next_batch,
)
from deployments.replica.totals import BatcherTotals
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FailureKind, LoadReport
from gateway.scheduling.late_share import LateShare

EngineRun: TypeAlias = Callable[[TokenIds, TokenIds], Logits]
_INTERRUPTED = Failure(FailureKind.ENGINE, "interrupted")


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One input's logits (labels,), and its seconds. `service_time_s` is that of its whole batch."""

    logits: Logits
    queueing_delay_s: float
    service_time_s: float
    batch_size: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Queued(Waiting):
    """A waiting entry with its token ids and the future that its caller awaits."""

    token_ids: Sequence[int]
    result: asyncio.Future[Scored | Failure]

    def resolve(self, result: Scored | Failure) -> None:
        """Gives the caller its result, unless the caller has left or has one: a late result must never raise."""
        if not self.result.done():
            self.result.set_result(result)


@dataclass(slots=True, eq=False)
class _RunningBatch:
    """A batch on the engine. The engine's thread writes its times and its outcome: logits, or one failure for all."""

    members: tuple[_Queued, ...]
    expected_end: float
    started: float = 0.0
    ended: float = 0.0
    outcome: Logits | Failure = _INTERRUPTED

    @property
    def service_time_s(self) -> float:
        return self.ended - self.started

    def resolve(self) -> None:
        """Gives every member its row of the logits, or the failure."""
        for row, entry in enumerate(self.members):
            if isinstance(self.outcome, Failure):
                entry.resolve(self.outcome)
            else:
                delay_s = self.started - entry.enqueued_at
                entry.resolve(Scored(self.outcome[row], delay_s, self.service_time_s, len(self.members)))


class Batcher:
    """Turns token ids into logits by a deadline, through the blocking `engine_run` on `threads` threads.

    `niceness` applies to those threads; the loop's thread keeps its priority. Call the methods on the event loop that
    `start` ran on. Deadlines are instants on `clock`.
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
        """Starts nothing; `start` does."""
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
        self._late_share = LateShare()
        self._strict: list[tuple[float, int]] = []  # a heap of deadline and sequence, with entries that have left
        self._alarm: asyncio.TimerHandle | None = None
        self._running: set[_RunningBatch] = set()
        self._sequence = 0
        self._open = False
        self._forming_soon = False
        self._idle = asyncio.Event()

    def start(self) -> None:
        """Opens the queue on the running loop. Call it once."""
        self._loop = asyncio.get_running_loop()
        self._engine_threads = ThreadPoolExecutor(
            self._threads, "engine", initializer=yield_to_others, initargs=(self._niceness,)
        )
        self._open = True

    async def stop(self, grace_s: float) -> None:
        """Admits no more inputs and finishes what it can within `grace_s` seconds; the rest fails as UNAVAILABLE."""
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
            for entry in [*self._waiting.values(), *(member for batch in self._running for member in batch.members)]:
                self._leave(entry)
                entry.resolve(Failure(FailureKind.UNAVAILABLE, "stopped"))
            self._engine_threads.shutdown(wait=False, cancel_futures=True)

    async def submit(self, token_ids: Sequence[int], deadline: float, strict: bool, batch: int = 0) -> Scored | Failure:
        """Queues one input and awaits its logits. Failures are values: EXPIRED, QUEUE_FULL, ENGINE, UNAVAILABLE.

        `batch` is the number of the batch that the gateway sent it in. Cancelling withdraws the input; if it is already
        running, its result is discarded.
        """
        if not self._open:
            return Failure(FailureKind.UNAVAILABLE, "not started, or stopping")
        if len(self._waiting) >= self._max_queued:
            return Failure(FailureKind.QUEUE_FULL)
        self._sequence += 1
        now, result = self._clock(), self._loop.create_future()
        entry = _Queued(
            self._sequence, len(token_ids), deadline, strict, now, batch=batch, token_ids=token_ids, result=result
        )
        self._enter(entry)
        if not self._forming_soon and len(self._running) < self._threads:
            self._forming_soon = True  # not at once: inputs submitted in this turn of the loop may run together
            self._loop.call_soon(self._form)
        try:
            return await entry.result
        except asyncio.CancelledError:
            self.totals.cancelled += 1
            self._leave(entry)
            raise

    def load(self) -> LoadReport:
        """Reports how long an input that arrives now would wait, by medians: queued work and the rest of what runs."""
        now = self._clock()
        running_s = sum(max(0.0, batch.expected_end - now) for batch in self._running)
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
        entry.resolve(Failure(FailureKind.EXPIRED))

    def _arm(self) -> None:
        """Sets the alarm to the earliest deadline of a waiting strict input."""
        if self._alarm is not None:
            self._alarm.cancel()
        while self._strict and self._strict[0][1] not in self._waiting:
            heappop(self._strict)
        self._alarm = None
        if self._strict:
            self._alarm = self._loop.call_later(max(self._strict[0][0] - self._clock(), 0.0), self._time_up)

    def _time_up(self) -> None:
        """Expires strict inputs at their deadline; forming a batch would do so only when the engine is free again."""
        now = self._clock()  # the loop's clock is coarser, and may be a different one
        while self._strict and self._strict[0][0] <= now:
            if (entry := self._waiting.get(heappop(self._strict)[1])) is not None:
                self._expire(entry)
        self._arm()

    def _form(self) -> None:
        """Gives each idle engine thread a batch."""
        self._forming_soon = False
        while self._waiting and len(self._running) < self._threads:
            now = self._clock()
            formed = form_batch(
                of_next_batch(self._waiting.values(), self._threads - len(self._running)),
                now,
                self._limits,
                self._medians,
                late_turn=self._late_share.turn,
                threads=self._threads,
            )
            for entry in formed.expired:
                self._expire(entry)
            if formed.entries:
                for entry in formed.entries:
                    self._leave(entry)
                self._backlog.learn(formed)
                self._late_share.ran(formed.median_s, late=formed.late, contested=formed.contested)
                batch = _RunningBatch(formed.entries, expected_end=now + formed.median_s)
                self._running.add(batch)
                self._engine_threads.submit(self._run_engine, batch)
        if not self._waiting and not self._running:
            self._idle.set()

    def _run_engine(self, batch: _RunningBatch) -> None:
        """Runs a batch on the engine's thread. An exception of the engine becomes the failure of all members."""
        batch.started = self._clock()
        try:
            batch.outcome = guarded(lambda: self._logits(batch.members))
        finally:
            batch.ended = self._clock()
            self._loop.call_soon_threadsafe(self._finished, batch)

    def _logits(self, members: Sequence[_Queued]) -> Logits:
        batch = padded([entry.token_ids for entry in members], self._pad_id)
        logits = self._engine_run(batch.token_ids, batch.attention_mask)
        if len(logits) != len(members):
            raise ValueError(f"the engine gave {len(logits)} rows for {len(members)} inputs")
        return logits

    def _finished(self, batch: _RunningBatch) -> None:
        """Takes a batch back on the loop. Inputs that failed together run again one by one: only the culprit fails."""
        self._running.discard(batch)
        self._count(batch)
        again = isinstance(batch.outcome, Failure) and len(batch.members) > 1
        if again:
            for entry in batch.members:
                if not entry.result.done():
                    self._enter(replace(entry, alone=True))
        self._form()  # the engine works on while the answers go out
        if not again:
            batch.resolve()

    def _count(self, batch: _RunningBatch) -> None:
        size, failed = len(batch.members), isinstance(batch.outcome, Failure)
        helped = sum(
            not failed and not entry.result.done() and batch.ended <= entry.deadline for entry in batch.members
        )
        self.totals.batches += 1
        self.totals.sizes[size] += 1
        self.totals.inputs += size
        self.totals.real_tokens += sum(entry.tokens for entry in batch.members)
        self.totals.padded_tokens += size * max(entry.tokens for entry in batch.members)
        self.totals.engine_failures += failed
        self.totals.busy_s += batch.service_time_s
        self.totals.wasted_s += batch.service_time_s * (1 - helped / size)
