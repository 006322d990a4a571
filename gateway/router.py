"""The router: which checkpoints are served, what each can promise a request now, and what is decided.

Every checkpoint is forecast behind the more urgent work, and `policy.decide` decides on that snapshot. A request that
waits is decided twice: on arrival, to refuse at once what cannot be in time, and when its batch begins, to state what
was promised then. `/classify`, `/route`, `punctual explain` and the simulator use the same code. It starts nothing.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.forecasting.forecaster import USUAL_PERCENTILE, Forecaster, PooledCalibration, ServedCheckpoint
from gateway.forecasting.load import IDLE, LoadTracker, QueueAhead
from gateway.model.deadline import Clock, Deadline
from gateway.model.errors import UnknownCheckpoint, UnknownTask
from gateway.model.faults import Note, attempt, log_fault
from gateway.model.manifest import VariantManifest
from gateway.model.messages import LoadReport
from gateway.model.request import Request, RequestShape, Terms
from gateway.scheduling.arrivals import ArrivalStats
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.policy import Candidate, Decision, Shortlist, barred, bind, decide
from gateway.scheduling.scheduler import Batch, Scheduler
from gateway.tasks import TASKS, service_time_model
from gateway.tasks.base import Task

LEAST_STEP = 0.5
"""Least step in utility from one rank to the next better one, in points of quality. Set by hand."""

PRICE_AGE_S = 0.005
"""Longest age of the price that an arriving request is decided at, in seconds; a batch is always priced anew.

Set by hand.
"""


class Router:
    """Decides requests on what the forecasters and the load tracker know now. It starts nothing."""

    def __init__(
        self,
        catalog: Catalog,
        manifests: Mapping[str, VariantManifest],
        load: LoadTracker,
        clock: Clock,
        note: Note = log_fault,
    ) -> None:
        """Serves the catalog's checkpoints, each by the manifest of its variant. `note` takes internal faults."""
        self.manifests = manifests
        self.served = served_checkpoints(catalog, manifests, load)
        self.entries = {entry.name: entry for entry in catalog.checkpoints}
        self._catalog = catalog
        self._clock = clock
        self._note = note
        self._tasks = catalog.tasks
        self.task_routers = {
            task: TaskRouter([self.served[entry.name] for entry in catalog.of_task(task)], load, note)
            for task in self._tasks
        }
        beside_one_another(self.task_routers.values())

    def task(self, name: str) -> Task:
        """Returns the task of that name. Raises UnknownTask if no checkpoint serves it."""
        if name not in self._tasks:
            raise UnknownTask(self._tasks)
        return TASKS[name]

    def deadline(self, request: Request) -> Deadline:
        """Anchors the request's budget, or its task's default, at its arrival. Raises UnknownTask."""
        task = self.task(request.task)
        budget_s = request.terms.budget_s
        if budget_s is None:
            budget_s = self._catalog.budget_s(task.name)
        return Deadline(request.arrived_s, budget_s)

    def arrived(self, request: Request, deadline: Deadline) -> None:
        """Counts an arrival in the statistics of its task, whatever its outcome."""
        task_router = self.task_routers[request.task]
        attempt(
            "learning",
            self._note,
            lambda: task_router.arrived(request.shape, deadline.budget_s, request.arrived_s),
            lambda: None,
        )

    def decide(
        self, request: Request, deadline: Deadline, price: float | None = None, *, every: bool = False
    ) -> Decision:
        """Forecasts the checkpoints of the task and decides on that snapshot. Raises UnknownCheckpoint.

        `price` is in points of quality per core-second; None takes the present one. Checkpoints that cannot change the
        decision are skipped unless `every` is set.
        """
        task_router, terms = self.task_routers[request.task], request.terms
        if terms.pinned is not None and terms.pinned not in task_router.by_name:
            raise UnknownCheckpoint([entry.name for entry in self._catalog.of_task(request.task)])
        now_s = self._clock()
        return attempt(
            "forecast",
            self._note,
            lambda: task_router.decide(request.shape, terms, deadline, now_s, price, every=every),
            lambda: task_router.decide_plainly(terms, deadline, now_s),
        )

    def queued(self, request: Request, deadline: Deadline) -> QueuedRequest:
        """Returns the request as it waits for its batch."""
        task_router = self.task_routers[request.task]
        now_s, terms = self._clock(), request.terms
        return attempt(
            "forecast",
            self._note,
            lambda: task_router.queued(request.shape, terms, deadline, now_s),
            lambda: task_router.queued_plainly(request.shape, terms, deadline),
        )

    def bind(self, request: Request, decision: Decision, batch: Batch, deadline: Deadline) -> Decision:
        """Decides again now that the request's batch can begin."""
        task_router = self.task_routers[request.task]
        now_s = self._clock()
        return attempt(
            "forecast",
            self._note,
            lambda: task_router.bind(request.shape, decision, batch, deadline, now_s),
            lambda: task_router.bind_plainly(decision, batch, deadline, now_s),
        )


class TaskRouter:
    """Forecasts, decides and queues the requests of one task."""

    def __init__(self, checkpoints: Sequence[ServedCheckpoint], load: LoadTracker, note: Note = log_fault) -> None:
        """Takes the task's checkpoints in any order. `note` takes faults of pricing."""
        self.checkpoints = tuple(sorted(checkpoints, key=lambda one: (-one.quality, -one.utility)))
        self.by_name = {one.name: one for one in self.checkpoints}
        self.arrivals = ArrivalStats()
        self.scheduler = Scheduler(self.checkpoints, self.arrivals, note)
        self._load = load
        self._names = tuple(sorted(self.by_name))
        self._places = 0
        self._price = 0.0
        self._priced_s = -math.inf

    def arrived(self, shape: RequestShape, budget_s: float, now_s: float) -> None:
        """Counts an arrival, and updates the number of cores that the scheduler may use."""
        self.arrivals.arrived(now_s, budget_s, shape.characters[0])
        self.scheduler.cores = self._load.cores(self._names)

    def decide(
        self,
        shape: RequestShape,
        terms: Terms,
        deadline: Deadline,
        now_s: float,
        price: float | None = None,
        *,
        every: bool = False,
    ) -> Decision:
        """Forecasts the checkpoints behind all more urgent work, and decides on that snapshot.

        Goes from the best checkpoint down and stops where the rest cannot change the decision, unless `every` is set. A
        `price` of None takes the present one.
        """
        remaining_s, percentile = deadline.remaining_s(now_s), terms.percentile
        price = self.price(now_s) if price is None else price
        wait_s = self.scheduler.wait_s(now_s + remaining_s, now_s)
        shortlist: Shortlist | None = None
        candidates: list[Candidate] = []
        ahead_of, waits = self._load.ahead, wait_s > 0  # looked up once, not for every candidate
        for one in self.checkpoints:
            if shortlist is not None and shortlist.over(one.quality, one.utility):
                break
            forecast = None
            name = one.name
            if (ahead := ahead_of(name, now_s)) is not None:
                if waits and wait_s > ahead.backlog_s:
                    ahead = QueueAhead(wait_s)
                forecast = one.forecaster.forecast(shape, ahead, percentile, now_s, remaining_s)
            candidates.append(Candidate(name, one.tier, one.quality, one.domain, forecast, one.utility))
            if shortlist is not None:
                shortlist.look(candidates[-1])
            elif forecast is not None and forecast.quantile_s <= remaining_s and not every:
                shortlist = Shortlist(candidates, remaining_s, terms, price)
        return decide(candidates, remaining_s, terms, deadline.elapsed_s(now_s), price)

    def decide_plainly(self, terms: Terms, deadline: Deadline, now_s: float) -> Decision:
        """Decides by the latency profiles alone, at no price: used if forecasting fails."""
        candidates = [
            Candidate(
                one.name, one.tier, one.quality, one.domain, one.plain_forecast(terms.percentile, now_s), one.utility
            )
            for one in self.checkpoints
        ]
        return decide(candidates, deadline.remaining_s(now_s), terms, deadline.elapsed_s(now_s))

    def price(self, now_s: float) -> float:
        """The capacity price, in points of quality per core-second, at most `PRICE_AGE_S` old."""
        if now_s - self._priced_s > PRICE_AGE_S:
            self._price, self._priced_s = self.scheduler.price(now_s), now_s
        return self._price

    def queued(self, shape: RequestShape, terms: Terms, deadline: Deadline, now_s: float) -> QueuedRequest:
        """Returns the request as it waits, for any checkpoint that its terms allow.

        A strict request waits as long as its optimistic forecast fits, the one it was admitted by. Best effort goes
        behind the others once it is more likely late than not, since it is answered even then.
        """
        self._places += 1
        eligible = [one for one in self.checkpoints if barred(one, terms) is None]
        texts, characters = len(shape.characters), sum(shape.characters)
        reserve_s = 0.0
        if terms.percentile != USUAL_PERCENTILE:
            fastest = min(eligible, key=lambda one: (one.run_s(texts, shape.characters[0]) / one.threads, one.name))
            run_s = fastest.run_s(texts, shape.characters[0])
            reserve_s = fastest.forecaster.reach_s(run_s, terms.percentile, now_s) - fastest.reach_s(run_s, now_s)
        idle = (one.forecaster.forecast(shape, IDLE, terms.percentile, now_s, 0.0) for one in eligible if one.slots)
        takes_s = (one.least_s if terms.strict else one.service_time_s for one in idle)
        return QueuedRequest(
            place=self._places,
            deadline_s=deadline.at_s - reserve_s,
            characters=characters // texts,
            texts=texts,
            strict=terms.strict,
            eligible=None if len(eligible) == len(self.checkpoints) else frozenset(one.name for one in eligible),
            last_s=deadline.at_s - min(takes_s, default=0.0),
        )

    def queued_plainly(self, shape: RequestShape, terms: Terms, deadline: Deadline) -> QueuedRequest:
        """Returns the request as it waits until its very deadline: used if forecasting fails."""
        self._places += 1
        eligible = frozenset(one.name for one in self.checkpoints if barred(one, terms) is None)
        texts, characters = len(shape.characters), sum(shape.characters)
        return QueuedRequest(
            self._places, deadline.at_s, characters // texts, texts, terms.strict, eligible, last_s=deadline.at_s
        )

    def bind(self, shape: RequestShape, decision: Decision, batch: Batch, deadline: Deadline, now_s: float) -> Decision:
        """Decides when the request's batch can begin: its checkpoint and price, with a new forecast."""
        remaining_s = deadline.remaining_s(now_s)
        inputs = sum(member.texts for member in batch.members)
        one = self.by_name[batch.checkpoint]
        ahead = QueueAhead(one.others_s(now_s), None, inputs - len(shape.characters))
        forecast = one.forecaster.forecast(shape, ahead, decision.terms.percentile, now_s, remaining_s)
        chosen = Candidate(one.name, one.tier, one.quality, one.domain, forecast, one.utility)
        return bind(decision, chosen, remaining_s, batch.price)

    def bind_plainly(self, decision: Decision, batch: Batch, deadline: Deadline, now_s: float) -> Decision:
        """Decides when the request's batch can begin, by the profile alone: used if forecasting fails."""
        one = self.by_name[batch.checkpoint]
        forecast = one.forecaster.plain(decision.terms.percentile)
        chosen = Candidate(one.name, one.tier, one.quality, one.domain, forecast, one.utility)
        return bind(decision, chosen, deadline.remaining_s(now_s), batch.price)


def served_checkpoints(
    catalog: Catalog, manifests: Mapping[str, VariantManifest], load: LoadTracker
) -> dict[str, ServedCheckpoint]:
    """Returns every checkpoint of the catalog by name, each with a forecaster of its own.

    Variants of one kind share a calibration. The length of a summary is uncertain in ways that scoring labels is not,
    so kinds do not stand in for each other.
    """
    pooled: defaultdict[str, PooledCalibration] = defaultdict(PooledCalibration)
    served: dict[str, ServedCheckpoint] = {}
    utilities: dict[str, float] = {}
    for task in catalog.tasks:
        utilities |= utilities_of(catalog.of_task(task))
    for entry in catalog.checkpoints:
        manifest = manifests[entry.name]
        served[entry.name] = ServedCheckpoint(
            name=entry.name,
            tier=entry.tier,
            quality=entry.quality.standing,
            utility=utilities[entry.name],
            domain=entry.domain,
            forecaster=Forecaster(service_time_model(manifest), pooled[manifest.kind], entry.threads),
            load=load,
            threads=entry.threads,
            slots_per_replica=entry.slots,
        )
    return served


def utilities_of(entries: Iterable[CatalogEntry]) -> dict[str, float]:
    """Returns the utility of each checkpoint of one task by name: its score in points, made to rise with quality.

    Ranked checkpoints may have scores on several data sets, which can contradict the ranks. A better checkpoint then
    has `LEAST_STEP` more utility than the next below it.
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


def beside_one_another(task_routers: Collection[TaskRouter]) -> None:
    """Makes the schedulers of one node's tasks leave cores to each other when they price them."""
    for task_router in task_routers:
        task_router.scheduler.neighbours = tuple(one.scheduler for one in task_routers if one is not task_router)


def explain(
    catalog: Catalog,
    manifests: Mapping[str, VariantManifest],
    task: str,
    text: str,
    terms: Terms,
    price: float | None = None,
) -> Decision:
    """Decides as an idle gateway would: every checkpoint up, nothing queued. Raises UnknownTask.

    `price` is in points of quality per core-second; None is the price of an idle gateway, 0.
    """
    now_s = time.monotonic()
    load = LoadTracker()
    for entry in catalog.checkpoints:
        load.reported(entry.name, "idle", LoadReport(0.0, 0), now_s)
    router = Router(catalog, manifests, load, lambda: now_s)
    request = Request(task, (text,), router.task(task).parameters(), terms, now_s)
    return router.decide(request, router.deadline(request), price, every=True)
