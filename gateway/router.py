"""The router: which checkpoints are served, what each can promise a request at this moment, and what is decided.

Every checkpoint is forecast behind the work that is more urgent; `policy.decide` decides on that snapshot. `/classify`,
`/route`, `punctual explain` and the simulator ask the same code. It runs nothing and is told the time.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from gateway.api.headers import RequestTerms
from gateway.catalogs.catalog import Catalog, CatalogEntry, Task, Tier
from gateway.forecasting.forecaster import Forecaster, PooledCalibration
from gateway.forecasting.load import IDLE, LoadTracker, QueueAhead
from gateway.forecasting.service_time import RequestShape, service_time_model
from gateway.model.deadline import Clock, Deadline
from gateway.model.errors import UnknownCheckpoint, UnknownTask
from gateway.model.manifest import VariantManifest
from gateway.model.messages import ClassifyParameters, LoadReport, Parameters, SummarizeParameters
from gateway.scheduling.arrivals import ArrivalStats
from gateway.scheduling.policy import Candidate, Decision, Shortlist, Terms, decide, settled
from gateway.scheduling.scheduler import Batch, Scheduler, WaitingRequest

LEAST_STEP = 0.5
"""How many points of quality a checkpoint is worth more, at the least, than the next below it in rank."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in. `arrived_s` is on the gateway's clock; `domain` is what the client says of it.

    `asked` is what of it decides its cost.
    """

    task: str
    inputs: tuple[str, ...]
    parameters: Parameters
    terms: RequestTerms
    arrived_s: float
    domain: str | None = None
    asked: RequestShape = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", RequestShape(tuple(map(len, self.inputs)), self.parameters))


@dataclass(frozen=True, slots=True)
class Served:
    """A checkpoint as it is served: its catalog entry, the manifest of its variant, its forecaster."""

    entry: CatalogEntry
    manifest: VariantManifest
    forecaster: Forecaster


def utilities_of(entries: Iterable[CatalogEntry]) -> dict[str, float]:
    """What each checkpoint of one task is worth, by name: its score in points, made to rise with its quality.

    Where ranks order checkpoints their scores may stem from several data sets and run against the order; a better one
    is then worth `LEAST_STEP` more than the one below it.
    """
    utilities: dict[str, float] = {}
    standing = utility = -math.inf
    for entry in sorted(entries, key=lambda one: (one.quality.standing, one.quality.value)):
        quality = entry.quality
        if quality.value > utility:
            utility = quality.value
        elif quality.standing > standing:
            utility += LEAST_STEP
        standing, utilities[entry.name] = quality.standing, utility
    return utilities


def served_of(catalog: Catalog, manifests: Mapping[str, VariantManifest]) -> dict[str, Served]:
    """Every checkpoint of the catalog by its name, each with a forecaster of its own in the surroundings of its kind.

    How long a summary gets is uncertain in ways that the scoring of labels is not, so kinds do not stand in for one
    another.
    """
    pooled: defaultdict[str, PooledCalibration] = defaultdict(PooledCalibration)
    served: dict[str, Served] = {}
    for entry in catalog.checkpoints:
        manifest = manifests[entry.name]
        forecaster = Forecaster(service_time_model(manifest), pooled[manifest.kind], entry.threads)
        served[entry.name] = Served(entry, manifest, forecaster)
    return served


class Router:
    """Decides requests on what the forecasters and the load book know at this moment. It runs nothing."""

    def __init__(self, catalog: Catalog, served: Mapping[str, Served], load: LoadTracker, clock: Clock) -> None:
        self.served = served
        self._catalog = catalog
        self._load = load
        self._clock = clock
        self._tasks = catalog.tasks
        self.task_routers = {task.value: self._task_router(task) for task in self._tasks}
        beside_one_another(self.task_routers.values())

    def task(self, name: str) -> Task:
        """The task of that name. Raises UnknownTask where no checkpoint has it."""
        if name not in self._tasks:
            raise UnknownTask(self._tasks)
        return Task(name)

    def deadline(self, request: Request) -> Deadline:
        """Anchors the request's budget, or its task's default, at its arrival. Raises UnknownTask."""
        task = self.task(request.task)
        budget_s = request.terms.budget_s
        if budget_s is None:
            budget_s = self._catalog.budget_s(task)
        return Deadline(request.arrived_s, budget_s)

    def arrived(self, request: Request, deadline: Deadline) -> None:
        """Takes note of a request that is to be answered, whatever becomes of it."""
        self.task_routers[request.task].arrived(request.asked, deadline.budget_s, request.arrived_s)

    def decide(
        self, request: Request, deadline: Deadline, price: float | None = None, *, every: bool = False
    ) -> Decision:
        """Forecasts the checkpoints of the task and decides on that snapshot. Raises UnknownCheckpoint.

        `price` is what a core-second costs, in points of quality: that of the moment where none is given. Checkpoints
        are looked at no further than can matter, unless `every` one is to be told.
        """
        task_router, terms = self.task_routers[request.task], request.terms
        if terms.pinned is not None and terms.pinned not in task_router.by_name:
            raise UnknownCheckpoint([entry.name for entry in self._catalog.of_task(request.task)])
        asked_for = Terms(terms.strict, terms.min_tier, terms.pinned, request.domain)
        return task_router.decide(
            request.asked, asked_for, terms.percentile, deadline, self._clock(), price, every=every
        )

    def held(self, request: Request, decision: Decision, deadline: Deadline) -> WaitingRequest:
        """The request as it waits in its task's room."""
        task_router = self.task_routers[request.task]
        return task_router.held(request.asked, decision, request.terms.percentile, deadline, self._clock())

    def settle(self, request: Request, decision: Decision, release: Batch, deadline: Deadline) -> Decision:
        """What is decided now that the request's run can begin."""
        task_router = self.task_routers[request.task]
        return task_router.settle(request.asked, decision, release, request.terms.percentile, deadline, self._clock())

    def _task_router(self, task: Task) -> TaskRouter:
        entries = self._catalog.of_task(task)
        utilities = utilities_of(entries)
        names = tuple(entry.name for entry in entries)
        offers = [
            Offer(
                name=entry.name,
                tier=entry.tier,
                quality=entry.quality.standing,
                utility=utilities[entry.name],
                domain=entry.domain,
                forecaster=self.served[entry.name].forecaster,
                slots=partial(self._slots, entry),
                threads=entry.threads,
                others_s=partial(self._load.others_s, entry.name),
            )
            for entry in entries
        ]
        return TaskRouter(offers, self._load.ahead, partial(self._load.cores, names))

    def _slots(self, entry: CatalogEntry) -> int:
        return self._load.replicas(entry.name) * entry.runs


PRICE_AGE_S = 0.005
"""How old a price may be that a request is decided at when it comes; a run that begins is priced anew."""

_USUAL_PERCENTILE = 95.0


class Offer:
    """A checkpoint as it is offered for every request alike; its worth is in points of quality.

    `lanes` says how many runs its replicas make at once, and is 0 while none is up; `others_s` how long what other
    gateways sent them would keep it waiting, at an instant.
    """

    __slots__ = (
        "_others_s",
        "_slots",
        "domain",
        "forecaster",
        "max_batch",
        "name",
        "quality",
        "threads",
        "tier",
        "utility",
    )

    def __init__(
        self,
        name: str,
        tier: Tier,
        quality: float,
        utility: float,
        domain: str | None,
        forecaster: Forecaster,
        slots: Callable[[], int],
        threads: int = 1,
        others_s: Callable[[float], float] = lambda now_s: 0.0,
    ) -> None:
        self.name, self.tier, self.quality, self.utility, self.domain = name, tier, quality, utility, domain
        self.forecaster = forecaster
        self.max_batch = forecaster.cost.max_batch
        self._slots = slots
        self.threads = threads
        self._others_s = others_s

    @property
    def slots(self) -> int:
        """How many runs its replicas make at once."""
        return self._slots()

    def others_s(self, now_s: float) -> float:
        """How long what other gateways sent its replicas would keep a request waiting."""
        return self._others_s(now_s)

    def run_s(self, inputs: int, characters: int) -> float:
        """The median core-seconds of one run of so many inputs of so many characters each."""
        return self.forecaster.run_s(inputs, characters)

    def reach_s(self, run_s: float, now_s: float) -> float:
        """What a request takes by the 95th percentile, overhead included, in a run expected to take `run_s`."""
        return self.forecaster.reach_s(run_s, _USUAL_PERCENTILE, now_s) + self._others_s(now_s)


class TaskRouter:
    """Forecasts, decides and holds the requests of one task."""

    def __init__(
        self, offers: Sequence[Offer], ahead_of: Callable[[str, float], QueueAhead | None], cores: Callable[[], float]
    ) -> None:
        """`ahead_of` says what is queued at a checkpoint's replicas, None where none is up; `cores` what it may use."""
        self.offers = tuple(sorted(offers, key=lambda offer: (-offer.quality, -offer.utility)))
        self.by_name = {offer.name: offer for offer in self.offers}
        self.arrivals = ArrivalStats()
        self.room = Scheduler(self.offers, self.arrivals)
        self._ahead_of = ahead_of
        self._cores = cores
        self._place = 0
        self._price = 0.0
        self._priced_s = -math.inf

    def arrived(self, asked: RequestShape, budget_s: float, now_s: float) -> None:
        """Takes note of an arrival, whatever becomes of it."""
        self.arrivals.arrived(now_s, budget_s, asked.characters[0])
        self.room.cores = self._cores()

    def decide(
        self,
        asked: RequestShape,
        terms: Terms,
        percentile: float,
        deadline: Deadline,
        now_s: float,
        price: float | None = None,
        *,
        every: bool = False,
    ) -> Decision:
        """Forecasts the checkpoints behind all that is more urgent, and decides on that snapshot.

        They are looked at from the best down and no further than can matter, unless `every` one is to be told. Where no
        price is given, it is that of the moment.
        """
        remaining_s = deadline.remaining_s(now_s)
        price = self.price(now_s) if price is None else price
        wait_s = self.room.wait_s(now_s + remaining_s, now_s)
        search: Shortlist | None = None
        candidates: list[Candidate] = []
        ahead_of, waits = self._ahead_of, wait_s > 0  # asked for every candidate: each look-up counts
        for offer in self.offers:
            if search is not None and search.over(offer.quality, offer.utility):
                break
            forecast = None
            name = offer.name
            if (ahead := ahead_of(name, now_s)) is not None:
                if waits and wait_s > ahead.backlog_s:
                    ahead = QueueAhead(wait_s)
                forecast = offer.forecaster.forecast(asked, ahead, percentile, now_s, remaining_s)
            candidates.append(Candidate(name, offer.tier, offer.quality, offer.domain, forecast, offer.utility))
            if search is not None:
                search.look(candidates[-1])
            elif forecast is not None and forecast.quantile_s <= remaining_s and not every:
                search = Shortlist(candidates, remaining_s, terms, price)
        return decide(candidates, remaining_s, terms, deadline.elapsed_s(now_s), price)

    def price(self, now_s: float) -> float:
        """The congestion price, in points of quality a core-second; not older than `PRICE_AGE_S`."""
        if now_s - self._priced_s > PRICE_AGE_S:
            self._price, self._priced_s = self.room.price(now_s), now_s
        return self._price

    def held(
        self, asked: RequestShape, decision: Decision, percentile: float, deadline: Deadline, now_s: float
    ) -> WaitingRequest:
        """The request as it waits. It may have any checkpoint that its terms allow.

        A strict one waits for as long as its optimistic forecast fits, by which it was let in; best effort goes behind
        the others once it is more likely late than not, for it is answered even so.
        """
        self._place += 1
        eligible = [offer for offer in self.offers if decision.terms.allow(offer)]
        texts, characters = len(asked.characters), sum(asked.characters)
        reserve_s = 0.0
        if percentile != _USUAL_PERCENTILE:
            fastest = min(eligible, key=lambda one: (one.run_s(texts, asked.characters[0]) / one.threads, one.name))
            run_s = fastest.run_s(texts, asked.characters[0])
            reserve_s = fastest.forecaster.reach_s(run_s, percentile, now_s) - fastest.reach_s(run_s, now_s)
        idle = (one.forecaster.forecast(asked, IDLE, percentile, now_s, 0.0) for one in eligible if one.slots)
        takes_s = (one.least_s if decision.terms.strict else one.service_time_s for one in idle)
        return WaitingRequest(
            place=self._place,
            deadline_s=deadline.at_s - reserve_s,
            characters=characters // texts,
            texts=texts,
            strict=decision.terms.strict,
            eligible=None if len(eligible) == len(self.offers) else frozenset(one.name for one in eligible),
            last_s=deadline.at_s - min(takes_s, default=0.0),
        )

    def settle(
        self,
        asked: RequestShape,
        decision: Decision,
        release: Batch,
        percentile: float,
        deadline: Deadline,
        now_s: float,
    ) -> Decision:
        """What was decided when the request's run could begin: which checkpoint, at what price, forecast anew."""
        remaining_s = deadline.remaining_s(now_s)
        inputs = sum(held.texts for held in release.members)
        offer = self.by_name[release.checkpoint]
        ahead = QueueAhead(offer.others_s(now_s), None, inputs - len(asked.characters))
        forecast = offer.forecaster.forecast(asked, ahead, percentile, now_s, remaining_s)
        chosen = Candidate(offer.name, offer.tier, offer.quality, offer.domain, forecast, offer.utility)
        return settled(decision, chosen, remaining_s, release.price)


def beside_one_another(task_routers: Collection[TaskRouter]) -> None:
    """Has the desks of one node's tasks leave room for one another when they price its cores."""
    for task_router in task_routers:
        task_router.room.neighbours = tuple(other.room for other in task_routers if other is not task_router)


def explain(
    catalog: Catalog,
    manifests: Mapping[str, VariantManifest],
    task: str,
    text: str,
    budget_s: float | None,
    percentile: float,
    strict: bool,
    domain: str | None = None,
    price: float | None = None,
) -> Decision:
    """Runs the gateway's own router with every checkpoint up and nothing queued. Raises UnknownTask.

    `price` is what a core-second costs, in points of quality; an idle gateway asks none.
    """
    now_s = time.monotonic()
    load = LoadTracker()
    for entry in catalog.checkpoints:
        load.reported(entry.name, "idle", LoadReport(0.0, 0), now_s)
    router = Router(catalog, served_of(catalog, manifests), load, lambda: now_s)
    terms = RequestTerms(budget_s, percentile, strict, None, None, "explain", None)
    parameters: Parameters = SummarizeParameters() if task == Task.SUMMARIZE else ClassifyParameters()
    request = Request(task, (text,), parameters, terms, now_s, domain)
    return router.decide(request, router.deadline(request), price, every=True)
