"""The replica of a variant that answers in one pass: reads texts, runs them in padded batches, and shares out the rows.

A kind says how a request's texts are tokenised and what a row of its engine means, and so may a task that reads
variants of several kinds. It knows no task.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from deployments.engines.base import Engine, Logits, guarded
from deployments.replica.batcher import Batcher, Row, Scored
from deployments.replica.tokens import INLINE_CHARACTERS, Encoded
from deployments.replica.totals import Totals
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Emit, Failure, InputReport, LoadReport, ReplicaTimings, Work, to_nobody
from gateway.model.profile import LatencyProfile

AskedT = TypeVar("AskedT")
"""What `encode` has to tell `outputs` of a request: its parameters, or more."""
Input = TypeVar("Input")


class Reading(ABC, Generic[AskedT]):
    """How a task reads a variant: what is run for a request, and what the rows of the engine mean."""

    answers_take_long = False
    """Whether the outputs of long texts take long to make; they are then made on a thread."""

    @abstractmethod
    def encode(self, work: Work) -> tuple[AskedT, list[Encoded]] | Failure:
        """Tokenises the texts of a request, or gives the first failure. Any thread may call it.

        A kind that takes long texts in windows gives several rows for one text.
        """

    @abstractmethod
    def outputs(self, asked: AskedT, logits: Sequence[Logits]) -> tuple[object, ...]:
        """The outputs of a request, from one row of the engine for each that `encode` gave, padding included."""

    def characters(self, work: Work) -> int:
        """The characters that `encode` tokenises."""
        return sum(map(len, work.inputs))

    def report(self, asked: AskedT, encoded: Sequence[Encoded]) -> InputReport:
        """What was read of the texts of a request."""
        return input_report(encoded)


@dataclass(frozen=True, slots=True)
class _Read:
    """A request's inputs as token ids, and what makes its outputs of them.

    `rows` are the distinct inputs, and `places` has each input's row. Apart, dynamic int8 would answer equal inputs by
    the scale of the run that each is in, so that one request could hold two answers to one text.
    """

    outputs: Callable[[Sequence[Logits]], tuple[object, ...]]
    report: Callable[[], InputReport]
    rows: Sequence[Row]
    places: Sequence[int]


class BatchedReplica(Reading[AskedT]):
    """Serves one variant. A subclass tokenises requests and makes outputs, but for tasks with readings of their own."""

    def __init__(self, batcher: Batcher, clock: Clock, readings: Mapping[str, Reading[Any]] | None = None) -> None:
        """Takes a batcher that has not started, and by name the tasks that read the variant in a way of their own."""
        self.batcher = batcher
        self._clock = clock
        self._readings = readings or {}

    def start(self) -> None:
        """Opens the queue on the running loop."""
        self.batcher.start()

    async def stop(self, grace_s: float) -> None:
        """Admits no more work and finishes what it can within `grace_s` seconds."""
        await self.batcher.stop(grace_s)

    async def handle(self, batch: Sequence[Work], emit: Emit = to_nobody) -> Sequence[Answer | Failure]:
        """Answers a batch: one result for each request, in order. Cancelling it withdraws its queued inputs.

        Nothing is emitted: one pass of the engine gives a whole answer.
        """
        arrived = self._clock()
        is_short = sum(self._reading(work).characters(work) for work in batch) <= INLINE_CHARACTERS
        if is_short:
            read = self._read_all(batch, arrived)
        else:
            read = await asyncio.to_thread(self._read_all, batch, arrived)
        rows = [row for one in read if isinstance(one, _Read) for row in one.rows]
        lone = all(work.lone for work in batch)
        scored = await self.batcher.submit(rows, lone=lone) if rows else []
        if is_short or not self.answers_take_long:
            return self._answered_all(read, scored, arrived)
        return await asyncio.to_thread(self._answered_all, read, scored, arrived)

    def load(self) -> LoadReport:
        """Reports the load, which goes out with every answer."""
        return self.batcher.load()

    def totals(self) -> Totals:
        """The counts since the start."""
        return self.batcher.totals

    def _reading(self, work: Work) -> Reading[Any]:
        return self._readings.get(work.task, self)

    def _read_all(self, batch: Sequence[Work], arrived: float) -> list[_Read | Failure]:
        """Reads each request. One that cannot be read, for whatever reason, fails alone."""
        return [guarded(partial(self._read, work, arrived)) for work in batch]

    def _read(self, work: Work, arrived: float) -> _Read | Failure:
        """Tokenises the inputs of a request, or gives the first failure."""
        reading = self._reading(work)
        found = reading.encode(work)
        if isinstance(found, Failure):
            return found
        asked, encoded = found
        places: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        at = [places.setdefault((tuple(one.token_ids), tuple(one.token_types)), len(places)) for one in encoded]
        rows = [Row(ids, arrived + work.remaining_s, work.strict, types) for ids, types in places]
        return _Read(partial(reading.outputs, asked), partial(reading.report, asked, encoded), rows, at)

    def _answered_all(
        self, read: Sequence[_Read | Failure], scored: Sequence[Scored | Failure], arrived: float
    ) -> list[Answer | Failure]:
        results = iter(scored)
        return [
            one if isinstance(one, Failure) else guarded(partial(self._answered, one, results, arrived)) for one in read
        ]

    def _answered(self, read: _Read, scored: Iterator[Scored | Failure], arrived: float) -> Answer | Failure:
        """Takes the next results for a request's rows, and makes its answer, or gives the first failure."""
        results = list(islice(scored, len(read.rows)))
        failed = next((one for one in results if isinstance(one, Failure)), None)
        if failed is not None:
            return failed
        of_input = [one for place in read.places if isinstance(one := results[place], Scored)]
        outputs = read.outputs([one.logits for one in of_input])
        return Answer(outputs, read.report(), _timings(of_input, self._clock() - arrived))


def batcher_of(
    entry: CatalogEntry, engine: Engine, profile: LatencyProfile, pad_id: int, max_queued: int, clock: Clock
) -> Batcher:
    """A batcher over an engine, with the entry's slots and priority. It starts nothing."""
    return Batcher(
        engine.run, profile, clock, max_queued, pad_id=pad_id, threads=entry.slots, niceness=entry.niceness or 0
    )


def encoded_all(inputs: Sequence[Input], encode: Callable[[Input], Encoded | Failure]) -> list[Encoded] | Failure:
    """Every input as it is encoded, or the first failure, with its index."""
    encoded: list[Encoded] = []
    for at, given in enumerate(inputs):
        one = encode(given)
        if isinstance(one, Failure):
            return replace(one, index=at)
        encoded.append(one)
    return encoded


def input_report(encoded: Sequence[Encoded]) -> InputReport:
    """What was read of these inputs."""
    return InputReport(
        sum(one.tokens_total for one in encoded),
        sum(one.kept for one in encoded),
        any(one.truncated for one in encoded),
    )


def _timings(scored: Sequence[Scored], total_s: float) -> ReplicaTimings:
    """Counts queueing until the first batch began, and service from then to the end of the last batch."""
    if len(scored) == 1:
        one = scored[0]
        return ReplicaTimings(one.queueing_delay_s, one.service_time_s, total_s, one.batch_size)
    first_s = min(one.queueing_delay_s for one in scored)
    last_s = max(one.queueing_delay_s + one.service_time_s for one in scored)
    return ReplicaTimings(first_s, last_s - first_s, total_s, max(one.batch_size for one in scored))
