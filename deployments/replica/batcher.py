"""The replica's batcher: runs each batch as the gateway sent it, and gives every input exactly one result.

The gateway forms the batches, when a core is free for them; so they seldom wait here. Those that do, as with several
gateways or the windows of a long text, run in order of deadline, and late ones behind the others (`next_run`, which the
simulator calls too). A batch of unlike lengths runs in the parts that take the least time (`runs_of`).
The batcher owns the engine's threads. It knows neither engines nor requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar

from deployments.engines.base import Logits, TokenIds, guarded, padded, yield_to_others
from deployments.replica.totals import BatcherTotals
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FailureKind, LoadReport
from gateway.scheduling.late_share import LateShare
from gateway.tasks.service_time import MedianTimes, RememberedMedians, runs_of

EngineRun: TypeAlias = Callable[[TokenIds, TokenIds, TokenIds | None], Logits]
"""An engine's `run`: token ids, mask, and token types or None."""

log = logging.getLogger("punctual.replica")

_INTERRUPTED = Failure(FailureKind.ENGINE, "interrupted")


class Queued(Protocol):
    """A run as the rule sees it."""

    def late(self, now: float) -> bool:
        """True if no input of the run would be in time, were it the next."""


QueuedT = TypeVar("QueuedT", bound=Queued)


@dataclass(frozen=True, slots=True)
class NextRun(Generic[QueuedT]):
    """The run that gets the engine next, whether it is late, and whether late and timely ones both wait."""

    run: QueuedT
    late: bool
    contested: bool


def next_run(waiting: Sequence[QueuedT], now: float, late_share: LateShare) -> NextRun[QueuedT]:
    """Picks the first run that can be in time, of runs in order of deadline.

    Late runs yield to all others, except when it is their turn by the late share: then the first late one is next.
    """
    late: list[QueuedT] = []
    timely: list[QueuedT] = []
    for run in waiting:
        (late if run.late(now) else timely).append(run)
    if late and (not timely or late_share.turn):
        return NextRun(late[0], True, bool(timely))
    return NextRun(timely[0], False, bool(late))


@dataclass(frozen=True, slots=True)
class Row:
    """One input of a batch: its token ids and its deadline, an instant on the batcher's clock.

    `token_types` are those of a pair of texts; a single text has none.
    """

    token_ids: Sequence[int]
    deadline: float
    strict: bool
    token_types: Sequence[int] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One input's logits (labels,), and its seconds. `service_time_s` is that of its whole run."""

    logits: Logits
    queueing_delay_s: float
    service_time_s: float
    batch_size: int


Results: TypeAlias = list[Scored | Failure]


@dataclass(slots=True, eq=False)
class _Batch:
    """A batch under way: the results so far by place, and the future that its caller awaits."""

    rows: Sequence[Row]
    enqueued_at: float
    done: asyncio.Future[Results]
    lone: bool
    results: dict[int, Scored | Failure] = field(default_factory=dict)

    def resolve(self, place: int, result: Scored | Failure) -> None:
        """Gives one input its result; the last one ends the batch, unless its caller has left."""
        self.results[place] = result
        if len(self.results) == len(self.rows) and not self.done.done():
            self.done.set_result([self.results[at] for at in range(len(self.rows))])


@dataclass(slots=True, eq=False)
class _Run:
    """Inputs of one batch that the engine runs together. Its thread writes the times and the outcome.

    `deadline` is the earliest of its inputs, `latest` the latest.
    """

    batch: _Batch
    places: Sequence[int]
    median_s: float
    deadline: float
    latest: float
    lone: bool = False
    started: float = 0.0
    ended: float = 0.0
    outcome: Logits | Failure = _INTERRUPTED

    def late(self, now: float) -> bool:
        """True if no input would be in time, were it run now."""
        return now + self.median_s > self.latest

    @property
    def rows(self) -> list[Row]:
        return [self.batch.rows[place] for place in self.places]

    @property
    def service_time_s(self) -> float:
        return self.ended - self.started

    def resolve(self) -> None:
        """Gives every input its row of the logits, or the failure."""
        for row, place in enumerate(self.places):
            if isinstance(self.outcome, Failure):
                self.batch.resolve(place, self.outcome)
            else:
                delay_s = self.started - self.batch.enqueued_at
                self.batch.resolve(place, Scored(self.outcome[row], delay_s, self.service_time_s, len(self.places)))


def _alike(rows: Sequence[Row]) -> list[list[int]]:
    """The places of single texts and of pairs, which do not share a run.

    BART's classifier is wrong, without a fault, where the rows of a batch have unlike numbers of end tokens.
    """
    singles = [place for place, row in enumerate(rows) if not row.token_types]
    pairs = [place for place, row in enumerate(rows) if row.token_types]
    return [one for one in (singles, pairs) if one]


class Batcher:
    """Turns batches of token ids into logits through the blocking `engine_run`, on `threads` threads.

    `niceness` applies to those threads; the loop's thread keeps its priority. Call the methods on the event loop that
    `start` ran on. `profile` has the median times that runs are planned by. `lone_run`, if it is set, runs a batch that
    has the node for itself.
    """

    def __init__(
        self,
        engine_run: EngineRun,
        profile: MedianTimes,
        clock: Clock,
        max_queued: int,
        *,
        pad_id: int = 0,
        threads: int = 1,
        niceness: int = 0,
    ) -> None:
        """Starts nothing; `start` does."""
        self.totals = BatcherTotals()
        self.lone_run: EngineRun | None = None
        self._engine_run = engine_run
        self._medians = RememberedMedians(profile)
        self._clock = clock
        self._max_queued = max_queued
        self._pad_id = pad_id
        self._threads = threads
        self._niceness = niceness
        self._waiting: list[_Run] = []  # in order of deadline; of equals the earlier first
        self._running: set[_Run] = set()
        self._late_share = LateShare()
        self._open = False
        self._idle = asyncio.Event()

    def start(self) -> None:
        """Opens the queue on the running loop. Call it once."""
        self._loop = asyncio.get_running_loop()
        self._engine_threads = ThreadPoolExecutor(
            self._threads, "engine", initializer=yield_to_others, initargs=(self._niceness,)
        )
        self._open = True

    async def stop(self, grace_s: float) -> None:
        """Admits no more batches and finishes what it can within `grace_s` seconds; the rest fails as UNAVAILABLE."""
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
            for run in [*self._waiting, *self._running]:
                for place in run.places:
                    run.batch.resolve(place, Failure(FailureKind.UNAVAILABLE, "stopped"))
            self._waiting.clear()
            self._engine_threads.shutdown(wait=False, cancel_futures=True)

    async def submit(self, rows: Sequence[Row], *, lone: bool = False) -> Results:
        """Runs a batch and awaits its logits, one result for each row in order.

        A `lone` batch that finds the replica idle goes to `lone_run`, one run after the other, until another comes.

        Failures are values: EXPIRED, QUEUE_FULL, ENGINE, UNAVAILABLE. Cancelling withdraws the rows; the results of
        those that are already running are discarded.
        """
        if not self._open:
            return [Failure(FailureKind.UNAVAILABLE, "not started, or stopping")] * len(rows)
        if self._queued + len(rows) > max(self._max_queued, len(rows)):
            return [Failure(FailureKind.QUEUE_FULL)] * len(rows)
        under_way = [*self._waiting, *self._running]
        for run in under_way:
            run.batch.lone = False
        batch = _Batch(rows, self._clock(), self._loop.create_future(), lone and not under_way)
        for alike in _alike(rows):
            lengths = [len(rows[place].token_ids) for place in alike]
            for places in runs_of(lengths, self._medians.median_s):
                self._enter(batch, [alike[place] for place in places])
        self._begin()
        try:
            return await batch.done
        except asyncio.CancelledError:
            self.totals.cancelled += len(rows) - len(batch.results)
            self._waiting = [run for run in self._waiting if run.batch is not batch]
            raise

    def load(self) -> LoadReport:
        """Reports how long a batch that arrives now would wait, by medians: what waits and the rest of what runs."""
        now = self._clock()
        running_s = sum(max(0.0, run.started + run.median_s - now) for run in self._running)
        backlog_s = (sum(run.median_s for run in self._waiting) + running_s) / self._threads
        return LoadReport(backlog_s, self._queued, draining=not self._open, lone=self.lone_run is not None)

    @property
    def _queued(self) -> int:
        """The number of inputs that wait."""
        return sum(len(run.places) for run in self._waiting)

    def _enter(self, batch: _Batch, places: Sequence[int]) -> None:
        """Queues inputs of one batch as one run, behind those that are as urgent."""
        longest = max(len(batch.rows[place].token_ids) for place in places)
        deadlines = [batch.rows[place].deadline for place in places]
        deadline = min(deadlines)
        run = _Run(batch, places, self._medians.median_s(len(places), longest), deadline, max(deadlines))
        at = next((at for at, other in enumerate(self._waiting) if other.deadline > deadline), len(self._waiting))
        self._waiting.insert(at, run)

    def _begin(self) -> None:
        """Gives each idle engine thread a run."""
        now = self._clock()
        self._expire(now)
        while self._waiting and len(self._running) < self._threads:
            chosen = next_run(self._waiting, now, self._late_share)
            run = chosen.run
            run.lone = run.batch.lone and self.lone_run is not None
            if run.lone and self._running:
                break
            self._waiting.remove(run)
            if chosen.contested:
                self._late_share.ran(run.median_s, late=chosen.late, contested=True)
            run.started = now
            self._running.add(run)
            self._engine_threads.submit(self._run_engine, run)
        if not self._waiting and not self._running:
            self._idle.set()

    def _expire(self, now: float) -> None:
        """Ends the strict inputs that would miss their deadline even alone right now: lost work is never run."""
        for run in [run for run in self._waiting if now + run.median_s > run.deadline]:
            lost = [place for place in run.places if self._is_lost(run.batch.rows[place], now)]
            if lost:
                self.totals.expired += len(lost)
                self._waiting.remove(run)
                if len(lost) < len(run.places):
                    self._enter(run.batch, [place for place in run.places if place not in lost])
                for place in lost:
                    run.batch.resolve(place, Failure(FailureKind.EXPIRED))

    def _is_lost(self, row: Row, now: float) -> bool:
        return row.strict and now + self._medians.median_s(1, len(row.token_ids)) > row.deadline

    def _run_engine(self, run: _Run) -> None:
        """Runs on the engine's thread. An exception of the engine becomes the failure of all inputs."""
        run.started = self._clock()
        try:
            engine_run = self.lone_run if run.lone and self.lone_run is not None else self._engine_run
            run.outcome = guarded(lambda: self._logits(run.rows, engine_run))
        finally:
            run.ended = self._clock()
            self._loop.call_soon_threadsafe(self._finished, run)

    def _logits(self, rows: Sequence[Row], engine_run: EngineRun) -> Logits:
        batch = padded([row.token_ids for row in rows], self._pad_id, [row.token_types for row in rows])
        logits = engine_run(batch.token_ids, batch.attention_mask, batch.token_types)
        if len(logits) != len(rows):
            raise ValueError(f"the engine gave {len(logits)} rows for {len(rows)} inputs")
        return logits

    def _finished(self, run: _Run) -> None:
        """Takes a run back on the loop. Inputs that failed together run again one by one: only the culprit fails.

        What failed in a lone run has another try in a usual one, and no further lone run is made.
        """
        self._running.discard(run)
        self._count(run)
        failed = isinstance(run.outcome, Failure)
        again = failed and (len(run.places) > 1 or run.lone) and not run.batch.done.done()
        if failed and run.lone:
            log.warning("a lone run has failed: no more are made")
            self.lone_run, run.batch.lone = None, False
        for place in run.places if again else ():
            self._enter(run.batch, (place,))
        self._begin()  # the engine works on while the answers go out
        if not again:
            run.resolve()

    def _count(self, run: _Run) -> None:
        rows, failed = run.rows, isinstance(run.outcome, Failure)
        size, left = len(rows), run.batch.done.done()
        helped = 0 if failed or left else sum(run.ended <= row.deadline for row in rows)
        self.totals.batches += 1
        self.totals.sizes[size] += 1
        self.totals.inputs += size
        self.totals.real_tokens += sum(len(row.token_ids) for row in rows)
        self.totals.padded_tokens += size * max(len(row.token_ids) for row in rows)
        self.totals.engine_failures += failed
        self.totals.lone += run.lone
        self.totals.busy_s += run.service_time_s
        self.totals.wasted_s += run.service_time_s * (1 - helped / size)
