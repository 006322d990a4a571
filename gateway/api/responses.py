"""From what was decided and what happened to what the client reads: response headers, JSON documents and events.

The documents are structs: they encode as they are, and the OpenAPI document is generated from them. Seconds become
milliseconds here and nowhere else on the way out. A task's own endpoint has the form of its task; other interfaces have
forms of their own over the same answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins
from msgspec.structs import asdict

from gateway.api import bodies, streaming
from gateway.catalogs.catalog import CatalogEntry, SourceKind
from gateway.forecasting.forecaster import Forecast
from gateway.model.coming import Coming, ComingState
from gateway.model.deadline import budget_ms, ms
from gateway.model.errors import InternalError, Problem, ms_above
from gateway.model.manifest import SourceOf, VariantManifest
from gateway.model.messages import Answer, Delta, FinishReason, Generation
from gateway.model.outcome import Outcome
from gateway.model.profile import CellMs
from gateway.model.request import BUDGET, CHECKPOINT, FIRST_BUDGET, Request
from gateway.model.tier import Tier
from gateway.observability.record import RequestRecord
from gateway.refusals import min_admitted_first_s, min_admitted_s
from gateway.router import lone_runs
from gateway.scheduling.policy import Assessed, Decision, Reason, Refusal, Verdict
from gateway.service import Finished
from gateway.tasks.base import Event, Fact, RequestBody, Streaming, Task


class Routing(Struct, frozen=True):
    """The decision on a request, and how it turned out."""

    checkpoint: str
    tier: Tier
    reason: Reason
    budget_ms: Annotated[float, Meta(description="the budget that was in effect")]
    predicted_latency_ms: Annotated[float, Meta(description="the median forecast, from the arrival")]
    forecast_quantile_ms: Annotated[float, Meta(description="the forecast at the percentile, from the arrival")]
    sla_met: Annotated[bool, Meta(description="in time, and not by the text's first sentence standing in")]
    outcome: Annotated[Outcome, Meta(description="how the request ended")]
    attempts: Annotated[int, Meta(description="replicas that were tried")]
    batch_size: Annotated[int | None, Meta(description="inputs in the batch that carried the request")]
    first_token_budget_ms: Annotated[
        float | None, Meta(description="the budget for the first text of a streamed answer, if it had one")
    ]
    first_token_quantile_ms: Annotated[
        float | None, Meta(description="when that was forecast at the percentile, of a streamed answer")
    ]
    first_token_met: Annotated[bool | None, Meta(description="whether it came within that budget, if it had one")]


class Timings(Struct, frozen=True, kw_only=True):
    """The spans of a request in milliseconds, those that it has."""

    route: Annotated[float | UnsetType, Meta(description="reading and deciding")] = UNSET
    queue: Annotated[float | UnsetType, Meta(description="waiting for a core, and at the replica")] = UNSET
    infer: Annotated[float | UnsetType, Meta(description="the engine's run")] = UNSET
    first_token: Annotated[
        float | UnsetType, Meta(description="from the arrival to the first text, of an answer that was streamed")
    ] = UNSET
    total: Annotated[float, Meta(description="from the arrival to the answer")]
    predicted: Annotated[float | UnsetType, Meta(description="the median forecast")] = UNSET


class InputDetails(Struct, frozen=True):
    """The tokens of all inputs together: how many they had, and how many the engine was given."""

    tokens: int
    truncated: bool
    kept: int


class WindowedInputDetails(InputDetails, frozen=True):
    """The tokens of all inputs together, each counted once, and the overlapping windows that they were taken in."""

    windows: int


class GenerationDetails(Struct, frozen=True):
    """How one text was written."""

    finish_reason: Annotated[
        FinishReason, Meta(description="by itself, its length, the deadline, or for the text is too short to summarise")
    ]
    steps: Annotated[int, Meta(description="steps of the engine")]
    tokens: Annotated[int, Meta(description="tokens of the text that was written")]
    beams: Annotated[int, Meta(description="beams of the search, as planned for the budget")]
    max_new_tokens: Annotated[int, Meta(description="the most tokens, as planned for the budget")]
    pieces: Annotated[int, Meta(description="pieces that the input was taken in")]
    headroom_ms: Annotated[float, Meta(description="what was left of the budget after the last step")]
    lead: Annotated[bool, Meta(description="nothing usable was written in time: this is the input's first sentence")]


class Details(Struct, frozen=True):
    """The answer to `details=true`: the outputs, the decision, where the time went, and what became of the input."""

    outputs: Any
    routing: Routing
    timings_ms: Timings
    input: InputDetails
    ignored: Annotated[Sequence[str], Meta(description="what was sent and changes nothing, by its path in the body")]


class WrittenDetails(Details, frozen=True):
    """The details where texts were written: how, of each input."""

    generation: list[GenerationDetails]


class RouteForecast(Struct, frozen=True):
    """The forecast of one candidate, in milliseconds."""

    queueing_delay: float
    service_time: float
    least: Annotated[float, Meta(description="optimistic: one answer in twenty comes sooner")]
    latency: Annotated[float, Meta(description="the median")]
    at_percentile: Annotated[float, Meta(description="the forecast at the percentile that was asked for")]
    at_percentile_idle: Annotated[float, Meta(description="the forecast at the percentile with nothing queued")]
    first_token_at_percentile: Annotated[
        float | None, Meta(description="of the first text, where that has a budget of its own")
    ]
    first_token_at_percentile_idle: Annotated[float | None, Meta(description="likewise with nothing queued")]


class RouteCandidate(Struct, frozen=True):
    """One candidate as the decision saw it."""

    checkpoint: str
    tier: Tier
    quality: Annotated[float, Meta(description="what orders the candidates")]
    worth: Annotated[float, Meta(description="points of quality, as the price counts them")]
    worth_after_price: Annotated[float | None, Meta(description="null while no replica is up")]
    verdict: Verdict
    cost_ms: Annotated[float | None, Meta(description="core-milliseconds; null while no replica is up")]
    forecast_ms: Annotated[RouteForecast | None, Meta(description="null while no replica is up")]


class RouteDecision(Struct, frozen=True):
    """The answer of `POST /route`: what would be decided, and what was found of every candidate."""

    task: str
    budget_ms: float
    percentile: float
    mode: Literal["best-effort", "strict"]
    checkpoint: Annotated[str | None, Meta(description="null where the request would be refused")]
    tier: Tier | None
    reason: Reason | None
    refusal: Refusal | None
    price: Annotated[float, Meta(description="the capacity price: points of quality for a core-second")]
    ceiling: Annotated[float | None, Meta(description="the quality above which nothing is worth its price, if any")]
    retry_after_ms: float | None
    min_feasible_ms: Annotated[
        float | None, Meta(description="the least budget that an idle gateway keeps at the percentile")
    ]
    min_admitted_ms: Annotated[float | None, Meta(description="the least budget that strict would let in now")]
    candidates: list[RouteCandidate]
    ignored: Annotated[Sequence[str], Meta(description="what was sent and changes nothing, by its path in the body")]
    first_token_budget_ms: Annotated[float | None, Meta(description="the budget for the first text, if it has one")]
    min_feasible_first_token_ms: Annotated[
        float | None, Meta(description="the least that an idle gateway keeps of it, beside a feasible budget")
    ]
    min_admitted_first_token_ms: Annotated[
        float | None, Meta(description="the least of it that strict would let in now")
    ]


class CheckpointVariant(Struct, frozen=True):
    """The variant of a checkpoint that is served."""

    variant: Annotated[str, Meta(description="engine and precision")]
    kind: Annotated[str, Meta(description="what kind of model it is; each kind adds members of its own")]


class LoneShare(Struct, frozen=True):
    """The time of a lone run of so many tokens, as a share of that of a usual run."""

    tokens: int
    share: float


class LoneTimes(Struct, frozen=True):
    """What runs gain that have the node for themselves, and more threads than others."""

    threads: int
    shares: list[LoneShare]


class ServiceTimes(Struct, frozen=True):
    """The latency profile: service times by batch size and tokens, and where they were measured.

    `lone_runs` is null if none were measured, or if replicas make none.
    """

    threads: int
    measured_on: str
    service_time_ms: list[CellMs]
    lone_runs: LoneTimes | None


class CheckpointLoad(Struct, frozen=True):
    """The load of a checkpoint at this moment; null while no replica is up."""

    replicas_up: int
    backlog_ms: float | None
    memory_bytes: int | None


class CheckpointState(Struct, frozen=True, kw_only=True):
    """What is known of a served variant, and its load."""

    max_tokens: Annotated[int, Meta(description="the window: tokens of one input")]
    provenance: SourceOf
    verification: Annotated[
        dict[str, Any] | UnsetType, Meta(description="how it compares with its source, as its kind does")
    ] = UNSET
    latency_profile: ServiceTimes
    load: CheckpointLoad


class Checkpoint(dict[str, object]):
    """One checkpoint: its `CatalogEntry`, `CheckpointVariant`, what its kind adds, and its `CheckpointState`."""


class ComingCheckpoint(Struct, frozen=True):
    """A checkpoint of the catalog that is not served yet."""

    name: str
    task: str
    tier: Tier
    family: str
    source: str
    state: Annotated[ComingState, Meta(description="what it waits for; failed: it will not come before a new start")]
    reason: Annotated[str, Meta(description="why, in a sentence")]


class Checkpoints(Struct, frozen=True):
    """The catalog: the checkpoints that are served, and those that are not yet."""

    checkpoints: Sequence[Checkpoint]
    coming: Sequence[ComingCheckpoint]
    defaults: Annotated[
        Mapping[str, str],
        Meta(description="who answers without a pin, by task, where answers of different checkpoints do not compare"),
    ]


class Alive(Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(Struct, frozen=True):
    """Whether every task has a checkpoint with a replica.

    `missing` are the served checkpoints that have none, `coming` those that are not served yet.
    """

    ready: bool
    missing: Sequence[str]
    coming: Sequence[Coming]


FIRST_MET = "X-First-Token-Met"
"""The header that says whether the first text came within its budget."""

OUTCOME = "X-Outcome"
"""The header that says how the request ended."""


def decimal(number: float) -> str:
    """The number without an exponent, and without more decimals than it has, of which at most six."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def headers_of(record: RequestRecord) -> dict[str, str]:
    """The contract's response headers on a request's way, of which it has as many as it got to."""
    headers = {OUTCOME: record.outcome.value, **decided_headers(record)}
    if record.checkpoint is not None:
        headers["X-SLA-Met"] = "true" if record.met else "false"
    if record.truncated:
        headers["X-Input-Truncated"] = "true"
    if record.finish_reason is not None:
        headers["X-Finish-Reason"] = record.finish_reason
    headers["Server-Timing"] = _server_timing(record)
    return headers


def decided_headers(record: RequestRecord) -> dict[str, str]:
    """Those of the contract's response headers that are known before the answer."""
    headers: dict[str, str] = {}
    if record.budget_s is not None:
        headers[BUDGET] = decimal(budget_ms(record.budget_s))
    if record.first_budget_s is not None:
        headers[FIRST_BUDGET] = decimal(budget_ms(record.first_budget_s))
        if record.first_delta_s is not None or record.answered:
            headers[FIRST_MET] = "true" if record.first_met else "false"
    if record.checkpoint is not None:
        headers[CHECKPOINT] = record.checkpoint
        headers["X-Tier"] = record.tier or ""
        headers["X-Route-Reason"] = record.reason or ""
    if record.predicted_s is not None:
        headers["X-Predicted-Latency-Ms"] = decimal(ms(record.predicted_s))
    if record.quantile_s is not None:
        headers["X-Forecast-Quantile-Ms"] = decimal(ms(record.quantile_s))
    return headers


def detailed_document(
    finished: Finished, answer: Answer, ignored: Sequence[str], facts: Mapping[str, str | int] | None = None
) -> dict[str, object]:
    """The answer's body where details were asked for: outputs with routing, timings, input, what was ignored, facts."""
    record = finished.record
    timings = Timings(**{name: ms(seconds) for name, seconds in _spans(record).items()})
    taken = InputDetails(record.tokens, record.truncated, record.kept)
    if answer.input.windows:
        taken = WindowedInputDetails(record.tokens, record.truncated, record.kept, answer.input.windows)
    document = Details(answer.outputs, _routing(record), timings, taken, ignored)
    if answer.generation:
        generation = [_generation(one) for one in answer.generation]
        document = WrittenDetails(answer.outputs, document.routing, timings, taken, ignored, generation)
    return {**asdict(document), "facts": facts} if facts else asdict(document)


def decision_document(request: Request, decision: Decision, budget_s: float, ignored: Sequence[str]) -> RouteDecision:
    """The body of `/route`: what would be decided and why, every candidate with its forecast and verdict."""
    chosen = decision.chosen
    return RouteDecision(
        task=request.task,
        budget_ms=budget_ms(budget_s),
        percentile=request.terms.percentile,
        mode="strict" if request.terms.strict else "best-effort",
        checkpoint=chosen.name if chosen else None,
        tier=chosen.tier if chosen else None,
        reason=decision.reason,
        refusal=decision.refusal,
        price=round(decision.price, 3),
        ceiling=decision.ceiling if math.isfinite(decision.ceiling) else None,
        retry_after_ms=ms_above(decision.retry_after_s) if decision.retry_after_s else None,
        min_feasible_ms=ms_above(decision.min_feasible_s) if decision.min_feasible_s else None,
        min_admitted_ms=ms_above(min_admitted_s(decision)) if decision.min_feasible_s else None,
        candidates=[_candidate(assessed, decision.price) for assessed in decision.assessed],
        ignored=ignored,
        first_token_budget_ms=None if (first_s := request.terms.first_token_s) is None else budget_ms(first_s),
        min_feasible_first_token_ms=ms_above(least_s) if (least_s := decision.min_feasible_first_s) else None,
        min_admitted_first_token_ms=ms_above(min_admitted_first_s(decision)) if least_s else None,
    )


def utility_left(assessed: Assessed, price: float) -> float | None:
    """What is left of a candidate's worth when its core time is paid for, in points; None of one that is down."""
    forecast = assessed.candidate.forecast
    return None if forecast is None else assessed.candidate.utility - price * forecast.cost_s


def checkpoint_document(
    entry: CatalogEntry,
    manifest: VariantManifest,
    replicas: int,
    backlog_s: float | None,
    memory_bytes: int | None,
) -> Checkpoint:
    """One checkpoint as `/checkpoints` shows it: catalog entry, provenance, verification, profile, live load.

    Of a source that is a folder only the last part is shown: where it lies on the host is nobody else's business.
    """
    source, provenance = _shown_source(entry), manifest.source
    if entry.kind is SourceKind.FOLDER:
        provenance = provenance.model_copy(update={"location": PurePath(provenance.location).name})
    profile, lone = manifest.profile, lone_runs(entry, manifest)
    shares = [] if lone is None else [LoneShare(at, round(lone.share(at), 3)) for at in lone.lengths]
    lone_times = None if lone is None else LoneTimes(lone.threads, shares)
    state = CheckpointState(
        max_tokens=manifest.max_tokens,
        provenance=provenance,
        verification=manifest.model_dump(mode="json", include={"verification"}).get("verification", UNSET),
        latency_profile=ServiceTimes(profile.threads, profile.measured_on, profile.cells_ms(), lone_times),
        load=CheckpointLoad(replicas, None if backlog_s is None else ms(backlog_s), memory_bytes),
    )
    return Checkpoint(
        **entry.model_dump(mode="json") | {"source": source},
        **to_builtins(CheckpointVariant(manifest.variant, manifest.kind)),
        **manifest.details(),
        **to_builtins(state, enc_hook=SourceOf.model_dump),
    )


def coming_document(entry: CatalogEntry, coming: Coming) -> ComingCheckpoint:
    """One checkpoint that is not served yet, as `/checkpoints` shows it."""
    return ComingCheckpoint(
        entry.name, entry.task, entry.tier, entry.family, _shown_source(entry), coming.state, coming.reason
    )


def _shown_source(entry: CatalogEntry) -> str:
    return PurePath(entry.source).name if entry.kind is SourceKind.FOLDER else entry.source


def _routing(record: RequestRecord) -> Routing:
    assert record.checkpoint and record.tier and record.reason, "what is answered was decided"
    return Routing(
        checkpoint=record.checkpoint,
        tier=Tier(record.tier),
        reason=Reason(record.reason),
        budget_ms=budget_ms(record.budget_s or 0.0),
        predicted_latency_ms=ms(record.predicted_s or 0.0),
        forecast_quantile_ms=ms(record.quantile_s or 0.0),
        sla_met=record.met,
        outcome=record.outcome,
        attempts=record.attempts,
        batch_size=record.batch_size,
        first_token_budget_ms=None if record.first_budget_s is None else budget_ms(record.first_budget_s),
        first_token_quantile_ms=None if record.first_quantile_s is None else ms(record.first_quantile_s),
        first_token_met=record.first_met,
    )


def _candidate(assessed: Assessed, price: float) -> RouteCandidate:
    candidate, forecast = assessed.candidate, assessed.candidate.forecast
    left = utility_left(assessed, price)
    return RouteCandidate(
        checkpoint=candidate.name,
        tier=candidate.tier,
        quality=candidate.quality,
        worth=candidate.utility,
        worth_after_price=None if left is None else round(left, 3),
        verdict=assessed.verdict,
        cost_ms=None if forecast is None else ms(forecast.cost_s),
        forecast_ms=None if forecast is None else _forecast(forecast),
    )


def _forecast(forecast: Forecast) -> RouteForecast:
    return RouteForecast(
        queueing_delay=ms(forecast.queueing_delay_s),
        service_time=ms(forecast.service_time_s),
        least=ms(forecast.least_s),
        latency=ms(forecast.median_s),
        at_percentile=ms(forecast.quantile_s),
        at_percentile_idle=ms(forecast.idle_quantile_s),
        first_token_at_percentile=None if forecast.first is None else ms(forecast.first.quantile_s),
        first_token_at_percentile_idle=None if forecast.first is None else ms(forecast.first.idle_quantile_s),
    )


def _generation(one: Generation) -> GenerationDetails:
    return GenerationDetails(
        finish_reason=one.finish_reason,
        steps=one.steps,
        tokens=one.tokens,
        beams=one.beams,
        max_new_tokens=one.max_new_tokens,
        pieces=one.pieces,
        headroom_ms=ms(one.headroom_s),
        lead=one.lead,
    )


def _server_timing(record: RequestRecord) -> str:
    """The spans; that of the engine says what was run, where that is told in steps."""
    spans = {name: f"{name};dur={decimal(ms(seconds))}" for name, seconds in _spans(record).items()}
    if record.steps:
        spans["infer"] += f';desc="{record.steps} steps {record.output_tokens} tokens"'
    return ", ".join(spans.values())


def _spans(record: RequestRecord) -> Mapping[str, float]:
    spans = {
        "route": record.route_s,
        "queue": record.queueing_delay_s,
        "infer": record.service_time_s,
        "first_token": record.first_delta_s,
        "total": record.latency_s,
        "predicted": record.predicted_s,
    }
    return {name: seconds for name, seconds in spans.items() if seconds is not None}


Told: TypeAlias = Sequence[tuple[Fact, str | int]]
"""What a task tells of the checkpoint that answered."""


@dataclass(frozen=True, slots=True)
class Events:
    """The events of one answer: what one delta makes, what its end does, whichever that is, and what goes wrong."""

    delta: Callable[[Delta], Event]
    end: Callable[[Finished], Sequence[Event]]
    fault: Callable[[Problem], Event] = streaming.error_event


class Form(Protocol):
    """The form of the answer to one request."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that a plain answer has beside those of the contract."""

    def document(self, finished: Finished, answer: Answer, told: Told) -> object:
        """The body of a plain answer."""

    def problem(self, finished: Finished) -> Problem:
        """Why there is no answer, by the places of the client's own body."""

    def events(self, begun: RequestRecord, told: Told) -> Events:
        """The events of an answer, of which the record is known as it stood at its first delta."""


@dataclass(frozen=True, slots=True)
class TaskForm:
    """The form of a task's own endpoint. `client` is the client's `User-Agent`, which may be empty.

    `unused` names headers that were sent and change nothing.
    """

    task: Task
    body: RequestBody
    details: bool
    client: str
    unused: Sequence[str] = ()

    @property
    def headers(self) -> Mapping[str, str]:
        """That the answer depends on who asks, where the task looks at that."""
        document = None if self.details else self.task.document
        return {"Vary": "User-Agent"} if document is not None and document.depends else {}

    def document(self, finished: Finished, answer: Answer, told: Told) -> object:
        """The details if they were asked for; else what the task makes of its outputs, or these as they are."""
        if self.details:
            return self._details(finished, answer, told)
        if self.task.document is not None:
            return self.task.document.of(self.body, answer.outputs, self.client)
        return answer.outputs

    def problem(self, finished: Finished) -> Problem:
        """The problem with the place in the body of the text that it is about."""
        return bodies.placed(finished.problem or InternalError(), self.body)

    def events(self, begun: RequestRecord, told: Told) -> Events:
        """The task's events; at the end come the details, with `finish_reason` beside, or what went wrong."""
        streams = self.task.streams or Streaming()

        def end(finished: Finished) -> Sequence[Event]:
            if finished.answer is None:
                return (streaming.error_event(self.problem(finished)),)
            details, reason = self._details(finished, finished.answer, told), finished.record.finish_reason
            return streams.end(self.body, {**details, "finish_reason": reason} if reason else details)

        return Events(lambda delta: streams.delta(self.body, delta), end)

    def _details(self, finished: Finished, answer: Answer, told: Told) -> dict[str, object]:
        facts = {fact.name: value for fact, value in told}
        return detailed_document(finished, answer, [*self.unused, *bodies.ignored(self.body)], facts)
