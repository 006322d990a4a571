"""The gateway's surroundings for tests: a clock that a test advances, and replicas that follow a script.

The catalog and the manifests that come with them are real, and small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from by_hand import SELF_TEST, entry_of, manifest_of

from gateway.catalogs.catalog import Catalog, CatalogEntry, Limits
from gateway.model.faults import Part
from gateway.model.manifest import ClassifierManifest, Precision, Verification
from gateway.model.messages import Answer, Delta, Emit, Failure, InputReport, ReplicaTimings, Work, to_nobody
from gateway.model.outcome import Outcome
from gateway.model.profile import LatencyProfile, ProfileCell, ProfileDocument
from gateway.model.request import Terms
from gateway.model.tier import Tier
from gateway.observability.record import RequestRecord
from gateway.scheduling.loop import Backend, Result
from gateway.tasks.classify import LabelScore

SWIFT, EVEN, GRAND = "swift", "even", "grand"
MEDIANS_S = {SWIFT: 0.002, EVEN: 0.010, GRAND: 0.050}
"""Service time of one short text in seconds, by checkpoint."""

TERMS = Terms(
    budget_s=1.0, percentile=95.0, strict=False, min_tier=None, pinned=None, request_id="r-1", traceparent=None
)
ANSWER = Answer(
    ((LabelScore("positive", 0.75), LabelScore("negative", 0.25)),),
    InputReport(tokens=4, kept=4, truncated=False),
    ReplicaTimings(queueing_delay_s=0.001, service_time_s=0.002, total_s=0.003, batch_size=1),
)

Behaviour: TypeAlias = Callable[[str, Work], Answer | Failure | None]
"""What a checkpoint returns for a request; None hangs until it is cancelled."""


@dataclass
class FakeClock:
    """A monotonic clock that stands until it is advanced."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


@dataclass(frozen=True)
class Dispatch:
    """One request that the backend got."""

    checkpoint: str
    work: Work
    service_time_s: float


@dataclass
class FakeBackend:
    """A `Backend` that behaves as scripted and records the requests that it gets.

    `cancelled` counts those of batches that were cancelled. A batch hangs if one of its requests does. `fault` is
    raised by every dispatch, though no backend should raise: a fault of the gateway's own. `deltas` are emitted for
    each request that is streamed, once `told_after` was called; with a `pause`, the results come once that is over.
    """

    behaviour: Behaviour = lambda checkpoint, work: ANSWER
    dispatches: list[Dispatch] = field(default_factory=list)
    cancelled: int = 0
    fault: Exception | None = None
    deltas: Sequence[Delta] = ()
    pause: asyncio.Event | None = None
    told_after: Callable[[], object] = lambda: None

    def dispatch(
        self,
        checkpoint: str,
        batch: Sequence[Work],
        service_time_s: float,
        done: Callable[[Sequence[Result]], None],
        emit: Emit = to_nobody,
    ) -> Callable[[], None]:
        """Give the loop a turn, as the transport does, then behave."""
        if self.fault is not None:
            raise self.fault
        self.dispatches += [Dispatch(checkpoint, work, service_time_s / len(batch)) for work in batch]

        def behave() -> None:
            self.told_after()
            self._emit(batch, emit)
            if self.pause is None:
                end()
            else:
                pausing.append(asyncio.create_task(end_after(self.pause)))

        async def end_after(pause: asyncio.Event) -> None:
            await pause.wait()
            end()

        def end() -> None:
            results = [self.behaviour(checkpoint, work) for work in batch]
            answered = [one for one in results if one is not None]
            if len(answered) == len(batch):
                done(answered)

        pausing: list[asyncio.Task[None]] = []
        turn = asyncio.get_running_loop().call_soon(behave)

        def cancel() -> None:
            turn.cancel()
            for one in pausing:
                one.cancel()
            self.cancelled += len(batch)

        return cancel

    def _emit(self, batch: Sequence[Work], emit: Emit) -> None:
        for place in [at for at, work in enumerate(batch) if work.streamed]:
            for delta in self.deltas:
                emit(place, delta)


async def dispatched(backend: Backend, *batch: Work, service_time_s: float = 0.0) -> list[Result]:
    """Dispatch a batch to the checkpoint `c` and wait for its results. Cancelling the wait cancels the batch."""
    future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
    cancel = backend.dispatch("c", batch, service_time_s, lambda results: future.set_result(list(results)))
    try:
        return await future
    except asyncio.CancelledError:
        cancel()
        raise


def reraise(part: Part, error: Exception) -> None:
    """Raise a fault where none is expected."""
    raise error


def scripted(*results: Answer | Failure | None) -> Behaviour:
    """Return a behaviour that gives each result in turn and repeats the last."""
    left = list(results)
    return lambda checkpoint, work: left.pop(0) if len(left) > 1 else left[0]


@dataclass
class Kept:
    """An observer that keeps the records."""

    records: list[RequestRecord] = field(default_factory=list)

    def observe(self, record: RequestRecord) -> None:
        """Keep the record."""
        self.records.append(record)

    @property
    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of the records."""
        return [record.outcome for record in self.records]


def entry(name: str, tier: Tier, value: float, domain: str | None = None) -> CatalogEntry:
    """Return the entry of a classifier with this quality, in points."""
    return entry_of(name, "classify", tier, value, domain=domain)


def catalog(limits: Limits | None = None) -> Catalog:
    """Return three classifiers: swift (realtime), even (balanced) and grand (quality), each slower and better."""
    return Catalog(
        name="by-hand",
        limits=limits or Limits(),
        checkpoints=(
            entry(SWIFT, Tier.REALTIME, 80.0),
            entry(EVEN, Tier.BALANCED, 85.0),
            entry(GRAND, Tier.QUALITY, 90.0),
        ),
    )


def cell(batch: int, tokens: int, p50_s: float, p95_s: float | None = None) -> ProfileCell:
    """Return one cell of a profile; its p95 is a fifth above the median unless given."""
    p95_s = p95_s or 1.2 * p50_s
    return ProfileCell(batch=batch, tokens=tokens, samples=9, p50_s=p50_s, p95_s=p95_s, min_s=p50_s, max_s=p95_s)


def profile_document(median_s: float) -> ProfileDocument:
    """Return a profile of `median_s` for one row of 16 tokens, in proportion to rows and tokens."""
    cells = tuple(cell(b, n, median_s * b * n / 16) for b in (1, 2, 4, 8) for n in (16, 64))
    return ProfileDocument(threads=1, measured_on="nothing", cells=cells)


def latency_profile(median_s: float) -> LatencyProfile:
    """Return that profile as the forecaster reads it."""
    return LatencyProfile.from_document(profile_document(median_s))


def manifest(checkpoint: str, median_s: float) -> ClassifierManifest:
    """Return the manifest of a variant that takes up to 64 tokens."""
    verification = Verification(
        texts=1, data_set="by hand", label_agreement=1, label_agreement_floor=1, largest_logit_difference=0
    )
    return manifest_of(
        ClassifierManifest,
        checkpoint,
        "classify",
        precision=Precision.INT8,
        labels=("negative", "positive"),
        max_tokens=64,
        verification=verification,
        self_test=SELF_TEST,
        profile=profile_document(median_s),
    )
