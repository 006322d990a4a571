"""`punctual bench decision`: the time that the gateway itself takes for a request to made-up classifiers.

First the decision alone, among 1 to 32 of them. Text lengths vary at random; between decisions the chosen checkpoint
answers and its forecaster learns, as in service; this is not timed. Then `Service.handle` whole, from the request to
its record, without HTTP: the backend answers at once, on a clock that the benchmark moves.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from time import perf_counter
from typing import Annotated

import typer

from gateway.catalogs.catalog import Catalog, CatalogEntry, Quality
from gateway.forecasting.load import LoadTracker
from gateway.model.manifest import ClassifierManifest, GoldenInput, Precision, SelfTest, SourceOf, Verification
from gateway.model.messages import Answer, Emit, InputReport, LoadReport, ReplicaTimings, Work, to_nobody
from gateway.model.profile import ProfileCell, ProfileDocument
from gateway.model.request import Request, Terms
from gateway.model.tier import Tier
from gateway.router import Router
from gateway.scheduling.loop import Result
from gateway.scheduling.policy import Decision
from gateway.service import Service
from gateway.tasks.classify import ClassifyParameters
from loadtests import options
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.bench.measuring.rounds import Spread, shown

COUNTS = (1, 3, 8, 32)
"""The numbers of candidates."""

CEILING_S = 50e-6
"""The target: a decision among the most candidates takes less, in seconds."""

HANDLED = 3
"""The number of classifiers behind `Service.handle`."""

WAITING = (0, 40)
"""The numbers of requests that wait while others are handled."""

_BUDGETS_S = (0.002, 2.0)
_NO_BUDGET_S = 1e-4
_CHARACTERS = (5.0, 2000.0)
_TICK_S = 0.004
_BACKLOG_S = 0.05
_PRICE = 20.0
_WINDOW = 512


class Situation(StrEnum):
    """The candidates' state when a request arrives."""

    IDLE = "idle"
    LOADED = "loaded"
    PRICED = "loaded, at a price"
    HOPELESS = "loaded, none fits, strict"


@dataclass(frozen=True)
class DecisionSettings:
    """The number of rounds and of decisions in each. Equal seeds give equal decisions."""

    rounds: int = 7
    decisions: int = 1000
    seed: int = 11


@dataclass(frozen=True, slots=True)
class Timing:
    """The median time of a decision in each round, in seconds."""

    situation: Situation
    candidates: int
    rounds_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The median of the rounds, in seconds."""
        return median(self.rounds_s)


def command(
    rounds: options.Rounds = DecisionSettings.rounds,
    decisions: Annotated[int, typer.Option(min=2, help="in each round")] = DecisionSettings.decisions,
    seed: Annotated[int, typer.Option(help="of texts, budgets and load")] = DecisionSettings.seed,
    json: options.Json = None,
) -> None:
    """Measures the time that the gateway takes to choose a checkpoint."""
    raise typer.Exit(present(measure(DecisionSettings(rounds, decisions, seed)), options.console, json=json))


def measure(settings: DecisionSettings) -> Report:
    """Times every situation, and judges it with the most candidates."""
    return report_of(timed(settings), settings, handling(settings))


def report_of(timings: Sequence[Timing], settings: DecisionSettings, handled: Sequence[Handling] = ()) -> Report:
    """One row per situation, one column per number of candidates; then the whole of `Service.handle`."""
    rows = []
    for situation in Situation:
        spreads = [Spread.of(one.rounds_s) for one in timings if one.situation is situation]
        rows.append((situation, *(shown(spread, ".1f", 1e6) for spread in spreads)))
    whole = [("idle" if not one.waiting else f"{one.waiting} wait", _shown(one.rounds_s)) for one in handled]
    return Report(
        tables=[
            Table(
                "µs a decision",
                ("situation", *(f"{count} candidates" for count in COUNTS)),
                rows,
                f"median of {settings.rounds} rounds' medians (minimum to maximum)",
            ),
            Table(
                "µs in Service.handle",
                ("gateway", f"{HANDLED} candidates"),
                whole,
                f"median of {settings.rounds} rounds (minimum to maximum); its median if idle, else its mean",
            ),
        ],
        document={"settings": settings, "timings": timings, "handled": handled},
        verdicts=[_verdict(one) for one in timings if one.candidates == COUNTS[-1]],
    )


def _shown(rounds_s: Sequence[float]) -> str:
    return shown(Spread.of(rounds_s), ".1f", 1e6)


def _verdict(timing: Timing) -> Verdict:
    met = timing.median_s < CEILING_S
    took = f"{1e6 * timing.median_s:.1f} µs, {'' if met else 'not '}below {1e6 * CEILING_S:.0f}"
    return Verdict(f"{timing.situation}: {timing.candidates} candidates take {took}", met)


def timed(settings: DecisionSettings) -> list[Timing]:
    """Times every situation with every number of candidates, once in each round."""
    cases = [(situation, count) for situation in Situation for count in COUNTS]
    rounds_s: dict[tuple[Situation, int], list[float]] = {case: [] for case in cases}
    gc.collect()  # once: it looks at all that the process holds, which in a large one takes seconds
    for number in range(settings.rounds):
        for situation, count in cases:
            rounds_s[situation, count].append(_round_s(situation, count, settings.decisions, settings.seed + number))
    return [Timing(situation, count, tuple(rounds_s[situation, count])) for situation, count in cases]


@dataclass(frozen=True, slots=True)
class Handling:
    """The time of `Service.handle` in each round, in seconds a request, while `waiting` others wait."""

    waiting: int
    rounds_s: tuple[float, ...]


@dataclass(slots=True)
class _Replicas:
    """A backend whose replicas answer when told, on a clock that each answer moves by its forecast."""

    now_s: float = 1000.0
    _sent: deque[tuple[int, float, Callable[[Sequence[Result]], None]]] = field(default_factory=deque)

    def dispatch(
        self,
        checkpoint: str,
        batch: Sequence[Work],
        service_time_s: float,
        done: Callable[[Sequence[Result]], None],
        emit: Emit = to_nobody,
    ) -> Callable[[], None]:
        """Answers once `answer` is called; one that is dispatched alone is answered in the loop's next turn."""
        self._sent.append((len(batch), service_time_s, done))
        if batch[0].request_id == "at once":
            asyncio.get_running_loop().call_soon(self.answer)
        return lambda: None

    def answer(self) -> None:
        """Answers all that was sent."""
        for _ in range(len(self._sent)):
            size, service_time_s, done = self._sent.popleft()
            self.now_s += service_time_s
            timings = ReplicaTimings(0.0, service_time_s, service_time_s, size)
            done([Answer((), InputReport(16, 16, truncated=False), timings)] * size)


def handling(settings: DecisionSettings) -> list[Handling]:
    """Times `Service.handle` on an idle gateway, and while others wait."""
    rounds_s: dict[int, list[float]] = {waiting: [] for waiting in WAITING}
    for _ in range(settings.rounds):
        for waiting in WAITING:
            gc.collect()
            rounds_s[waiting].append(asyncio.run(_handled_s(waiting, settings.decisions)))
    return [Handling(waiting, tuple(found)) for waiting, found in rounds_s.items()]


async def _handled_s(waiting: int, requests: int) -> float:
    """Seconds in `Service.handle` a request: one after the other, or with so many that wait for two cores."""
    replicas, load = _Replicas(), LoadTracker()
    entries = tuple(_entry(number) for number in range(HANDLED))
    catalog = Catalog(name="made-up", checkpoints=entries)
    manifests = {entry.name: _manifest(entry.name, 0.002 * 1.5**at) for at, entry in enumerate(entries)}
    for name in manifests:
        load.reported(name, "replica", LoadReport(0.0, 0, cores=2.0), replicas.now_s)
    router = Router(catalog, manifests, load, lambda: replicas.now_s)
    service = Service(router, replicas, load, 1024, (), lambda: replicas.now_s)

    def request(identity: str) -> Request:
        return Request("classify", ("x" * 60,), ClassifyParameters(), Terms(request_id=identity), replicas.now_s)

    async def client(times: int) -> None:
        for _ in range(times):
            await service.handle(request("waits"))

    if not waiting:
        took_s = []
        for _ in range(requests):
            asked, began = request("at once"), perf_counter()
            await service.handle(asked)
            took_s.append(perf_counter() - began)
            replicas.now_s += _TICK_S
        return median(took_s)
    clients = [asyncio.create_task(client(requests // waiting + 1)) for _ in range(waiting)]
    began = perf_counter()
    while not all(one.done() for one in clients):
        await asyncio.sleep(0)
        replicas.answer()
    return (perf_counter() - began) / (waiting * (requests // waiting + 1))


class Scene:
    """A router over made-up classifiers, with a simulated clock and random requests."""

    def __init__(self, situation: Situation, candidates: int, seed: int) -> None:
        self._situation = situation
        self._rng = random.Random(seed)
        self._now_s = 1000.0
        self._load = LoadTracker()
        entries = tuple(_entry(number) for number in range(candidates))
        catalog = Catalog(name="made-up", checkpoints=entries)
        manifests = {entry.name: _manifest(entry.name, 0.001 * 1.1**at) for at, entry in enumerate(entries)}
        self._router = Router(catalog, manifests, self._load, lambda: self._now_s)

    def decide(self) -> tuple[Decision, float]:
        """Decides one request that arrives now. Returns the decision and its duration in seconds."""
        self._report()
        text = "x" * round(self._log_uniform(_CHARACTERS))
        hopeless = self._situation is Situation.HOPELESS
        budget_s = _NO_BUDGET_S if hopeless else self._log_uniform(_BUDGETS_S)
        terms = Terms(budget_s=budget_s, strict=hopeless, request_id="made-up")
        request = Request("classify", (text,), ClassifyParameters(), terms, self._now_s)
        deadline = self._router.deadline(request)
        price = _PRICE if self._situation is Situation.PRICED else 0.0
        began = perf_counter()
        decision = self._router.decide(request, deadline, price)
        took_s = perf_counter() - began
        self._answer(request, decision)
        self._now_s += _TICK_S
        return decision, took_s

    def _report(self) -> None:
        idle = self._situation is Situation.IDLE
        for name in self._router.served:
            backlog_s = 0.0 if idle else self._rng.uniform(0.0, _BACKLOG_S)
            self._load.reported(name, "replica", LoadReport(backlog_s, 0), self._now_s)

    def _answer(self, request: Request, decision: Decision) -> None:
        """Lets the forecaster of the chosen checkpoint learn from an answer close to the forecast."""
        if decision.chosen is None or (forecast := decision.chosen.forecast) is None:
            return
        service_s = forecast.service_time_s * self._rng.lognormvariate(0.0, 0.1)
        tokens = min(2 + len(request.inputs[0]) // 4, _WINDOW)
        timings = ReplicaTimings(forecast.queueing_delay_s, service_s, service_s, 1)
        answer = Answer((), InputReport(tokens, tokens, truncated=tokens == _WINDOW), timings)
        latency_s = forecast.queueing_delay_s + service_s + 0.001
        self._router.served[decision.chosen.name].forecaster.learn(
            forecast, self._router.shape(request), answer, latency_s, self._now_s
        )

    def _log_uniform(self, bounds: tuple[float, float]) -> float:
        least, most = bounds
        return math.exp(self._rng.uniform(math.log(least), math.log(most)))


def _round_s(situation: Situation, candidates: int, decisions: int, seed: int) -> float:
    """The median duration of a round's decisions, after half as many warm-up decisions."""
    scene = Scene(situation, candidates, seed)
    for _ in range(decisions // 2):
        scene.decide()
    return median(scene.decide()[1] for _ in range(decisions))


def _entry(number: int) -> CatalogEntry:
    quality = Quality(metric="accuracy", value=60.0 + number, data_set="none", reference="made up")
    return CatalogEntry(
        name=f"made-up-{number:02d}",
        task="classify",
        tier=list(Tier)[number % 3],
        family="none",
        source="starter:made-up",
        quality=quality,
        licence="none",
    )


def _manifest(checkpoint: str, median_s: float) -> ClassifierManifest:
    """A classifier whose service time is `median_s` for one text of 16 tokens, proportional to batch and length."""
    verification = Verification(
        texts=1, data_set="none", label_agreement=1, label_agreement_floor=1, largest_logit_difference=0
    )
    return ClassifierManifest(
        checkpoint=checkpoint,
        task="classify",
        family="none",
        engine="onnx",
        precision=Precision.INT8,
        source=SourceOf(location="starter:made-up", revision="", sha256=""),
        max_tokens=_WINDOW,
        files={},
        cpu_features=(),
        profile=ProfileDocument(threads=1, measured_on="nothing", cells=tuple(_cells(median_s))),
        made_with={},
        labels=("one", "other"),
        verification=verification,
        self_test=SelfTest(tolerance=1.0, golden=(GoldenInput(text="", token_ids=(), logits=()),)),
    )


def _cells(median_s: float) -> Iterator[ProfileCell]:
    for batch in (1, 2, 4, 8):
        for tokens in (16, 64, 128, 256, _WINDOW):
            p50_s = median_s * batch * tokens / 16
            yield ProfileCell(
                batch=batch, tokens=tokens, samples=1, p50_s=p50_s, p95_s=1.2 * p50_s, min_s=p50_s, max_s=1.2 * p50_s
            )
