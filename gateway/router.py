"""The router: which checkpoints are served, which are still to come, and what a client's terms mean for them.

It reads the catalog and the manifests into deciders, one a task, and the scheduler over them. A checkpoint without a
manifest is coming: it joins once its manifest is known. `/route` and `punctual explain` decide here without submitting
anything. It starts nothing.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import TypeAlias

from gateway.advising.candidates import Held, Offered
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.forecasting.forecaster import Forecaster, PooledCalibration, ServedCheckpoint
from gateway.forecasting.lengths import Counter, Lengths, estimated, is_sampled
from gateway.forecasting.load import LoadTracker
from gateway.model.coming import Coming
from gateway.model.deadline import Clock, Deadline
from gateway.model.errors import CheckpointUnavailable, InvalidRequest, UnknownCheckpoint, UnknownTask
from gateway.model.faults import Note, log_fault
from gateway.model.manifest import VariantManifest
from gateway.model.messages import LoadReport, Parameters
from gateway.model.profile import LoneRuns
from gateway.model.request import CHECKPOINT, MIN_TIER, Request, RequestShape, Terms
from gateway.scheduling.policy import Decision
from gateway.scheduling.scheduler import Decider, Scheduler, Ticket
from gateway.tasks import TASKS, service_time_model
from gateway.tasks.base import Task, Unable

LEAST_STEP = 0.5
"""Least step in utility from one rank to the next better one, in points of quality. Set by hand."""


MakeScheduler: TypeAlias = Callable[[Mapping[str, Decider], Note], Scheduler]
"""Makes the scheduler of a node from the decider of each task."""


class Router:
    """Decides requests on what the forecasters and the load tracker know now. It starts nothing."""

    def __init__(
        self,
        catalog: Catalog,
        manifests: Mapping[str, VariantManifest],
        load: LoadTracker,
        clock: Clock,
        note: Note = log_fault,
        counters: Mapping[str, Counter] | None = None,
        scheduler: MakeScheduler = Scheduler,
        chance: Random | None = None,
    ) -> None:
        """Serves the catalog's checkpoints, each by the manifest of its variant; those without one are coming.

        A task without any manifest answers once one of its checkpoints has joined. `note` takes internal faults.
        `counters` has the token counter of each checkpoint; those with one tokenizer share one. Without it tokens are
        estimated. `scheduler` makes the scheduler: ours, or that of another policy. `chance` draws where long texts are
        sampled; by default nobody can foretell it.
        """
        self.manifests = dict(manifests)
        self._pooled: defaultdict[str, PooledCalibration] = defaultdict(PooledCalibration)
        self._lengths, self._tokenizers = lengths_of(catalog, manifests, counters or {}, chance or Random())
        self.entries = {entry.name: entry for entry in catalog.checkpoints}
        self._catalog = catalog
        self._load = load
        self._clock = clock
        self._tasks = catalog.tasks
        deciders: dict[str, Decider] = {}
        for task, places in self._tokenizers.items():
            served = served_checkpoints(catalog, task, manifests, load, self._pooled, tokenizers=places)
            deciders[task] = Decider([*served.values()], load, note)
        known = {name: entry.task for name, entry in self.entries.items() if name in manifests}
        self.served = {name: deciders[task].by_name[name] for name, task in known.items()}
        self.coming = {name: Coming(name) for name in self.entries if name not in self.served}
        self.scheduler = scheduler(deciders, note)
        defaults = {task: catalog.default_checkpoint(task) for task in self._tasks}
        self.fixed = {task: name for task, name in defaults.items() if name is not None}

    def told(self, coming: Coming) -> None:
        """Notes how far a checkpoint is that is still to come; one that has joined stays."""
        if coming.checkpoint in self.coming:
            self.coming[coming.checkpoint] = coming

    def join(self, name: str, manifest: VariantManifest, counter: Counter = estimated) -> None:
        """Takes in a checkpoint that was coming: requests that come from now on may go to it."""
        catalog, entry = self._catalog.only((name,)), self.entries[name]
        for task in reversed(entry.tasks):
            worth, places = utilities_of(self._catalog.of_task(task)), self._tokenizers[task]
            one = served_checkpoints(catalog, task, {name: manifest}, self._load, self._pooled, worth, places)[name]
            self._lengths[task].take(places[name], counter)
            self.scheduler.deciders[task].join(one)
        self.manifests[name], self.served[name] = manifest, one
        del self.coming[name]

    @property
    def ready(self) -> bool:
        """True if every task has a checkpoint up that answers without a domain's name, or has none of that kind.

        A task whose checkpoints will not come, such as one whose weights cannot be fetched, keeps no other waiting.
        """
        return all(self._is_up(task) or self._is_given_up(task) for task in self._tasks)

    def _is_up(self, task: str) -> bool:
        entries = self._catalog.general(task)
        return any(entry.name in self.served and self._load.replicas(entry.name) for entry in entries)

    def _is_given_up(self, task: str) -> bool:
        names = [entry.name for entry in self._catalog.general(task)]
        return all(name in self.coming and not self.coming[name].expected for name in names)

    def offered(self) -> Offered:
        """Returns what is served, for advice: the variants with the memory that their replicas take."""
        resident = {name: self._load.memory_bytes(name) for name in self.manifests}
        held = {name: Held(one, resident_bytes=resident[name] or None) for name, one in self.manifests.items()}
        return Offered(self._catalog, held, served=True)

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

    def submit(self, request: Request, deadline: Deadline, *, again: bool = False) -> Ticket:
        """Gives a request to the scheduler. Raises what `_terms` raises.

        `again` is set for one that lost its replica: its arrival is not counted twice.
        """
        terms = self._terms(request)
        shape = self.shape(request)
        return self.scheduler.submit(request.task, shape, terms, deadline, self._clock(), again=again)

    def shape(self, request: Request) -> RequestShape:
        """Counts the tokens of the request's texts, of equal ones those of one where the task runs them once."""
        inputs: Sequence[str] = request.inputs
        parameters = request.parameters
        if len(inputs) > 1 and TASKS[request.task].runs_equal_texts_once:
            inputs, parameters = parameters.of_distinct(inputs)
        texts = len(inputs) - parameters.shared
        copies = (len(request.inputs) - request.parameters.shared) / texts
        return RequestShape(self._lengths[request.task].of(inputs), parameters, is_sampled(inputs), copies)

    def decide(
        self, request: Request, deadline: Deadline, price: float | None = None, *, every: bool = False
    ) -> Decision:
        """Decides a request as it would be decided now, and submits nothing. Raises what `_terms` raises.

        `price` is in points of quality per core-second; None takes the present one. Checkpoints that cannot change the
        decision are skipped unless `every` is set.
        """
        terms = self._terms(request)
        now_s, task, shape = self._clock(), request.task, self.shape(request)
        price = self.scheduler.price(task, now_s) if price is None else price
        lone = self.scheduler.may_be_lone(task)
        return self.scheduler.decide(task, shape, terms, deadline, now_s, price, every=every, lone=lone)

    def _terms(self, request: Request) -> Terms:
        """The request's terms, with the task's default domain, or the checkpoint pinned that answers a fixed task.

        Raises UnknownCheckpoint, InvalidRequest if no checkpoint, or the fixed one, can do what is asked, and
        CheckpointUnavailable if it is not served, or not yet.
        """
        task, terms = request.task, request.terms
        served = self.scheduler.deciders[task].by_name
        name = terms.pinned or self._default(task, terms)
        if name is None and served:
            domain, able = terms.domain or self._catalog.defaults.domain.get(task), self._able(request, served)
            changed = domain != terms.domain or able is not None
            return replace(terms, domain=domain, able=able) if changed else terms
        if name is None or name not in served:
            entries = self._catalog.of_task(task)
            if name is None:
                raise CheckpointUnavailable([entry.name for entry in entries])
            if terms.pinned is None or any(entry.name == name for entry in entries):
                raise CheckpointUnavailable([name])
            raise UnknownCheckpoint([entry.name for entry in entries])
        if task in self.fixed:
            TASKS[task].check(self.manifests[name], request.parameters)
        self._able(request, (name,))
        return terms if terms.pinned else replace(terms, pinned=name)

    def for_model(self, task: Task, asked: Terms) -> Terms:
        """What a `model` asks for: of a task whose checkpoint is fixed a tier means its best one, always the same."""
        if asked.min_tier is None or not task.fixed_checkpoint:
            return asked
        name = self._catalog.best_of_tier(task.name, asked.min_tier)
        return asked if name is None else Terms(pinned=name)

    def _default(self, task: str, terms: Terms) -> str | None:
        """Who answers a task without a pin; None if it is routed. Raises InvalidRequest if it has less than the tier.

        Nobody stands in for it: a header that is added must not change whose answers a client compares.
        """
        name = self.fixed.get(task)
        entry = self.entries.get(name or "")
        if entry is not None and terms.min_tier is not None and entry.tier.rank < terms.min_tier.rank:
            message = f"{name} answers without {CHECKPOINT}, and is of the tier {entry.tier}"
            raise InvalidRequest(f"{MIN_TIER}: {message}", [{"header": MIN_TIER, "message": message}])
        return name

    def _able(self, request: Request, among: Iterable[str]) -> frozenset[str] | None:
        """The checkpoints that can do what the request's parameters ask for; None if all can.

        Raises InvalidRequest if none can, and CheckpointUnavailable if one that is still to come, and may be asked,
        might.
        """
        able = TASKS[request.task].able
        if able is None:
            return None
        try:
            return frozenset(able({name: self.manifests[name] for name in among}, request.parameters))
        except Unable:
            coming = self._may_come(request.task, request.terms)
            if coming:
                raise CheckpointUnavailable(coming) from None
            raise

    def _may_come(self, task: str, terms: Terms) -> list[str]:
        """The checkpoints that are still to come, and may be asked by the request's other terms."""
        domains = (None, terms.domain or self._catalog.defaults.domain.get(task))
        return [
            entry.name
            for entry in (self._catalog.routed(task) if terms.pinned is None else ())
            if entry.name in self.coming
            and self.coming[entry.name].expected
            and entry.domain in domains
            and (terms.min_tier is None or entry.tier.rank >= terms.min_tier.rank)
        ]


def lengths_of(
    catalog: Catalog, manifests: Mapping[str, VariantManifest], counters: Mapping[str, Counter], chance: Random
) -> tuple[dict[str, Lengths], dict[str, dict[str, int]]]:
    """Returns what counts the tokens of each task, and for each task the place of each checkpoint's tokenizer in it.

    A checkpoint that is coming has a place of its own, so that it can join while requests wait.
    """
    lengths: dict[str, Lengths] = {}
    places: dict[str, dict[str, int]] = {}
    for task in catalog.tasks:
        of_task: list[Counter] = []
        at = places[task] = {}
        for entry in catalog.of_task(task):
            counter = counters.get(entry.name, estimated)
            if counter not in of_task or entry.name not in manifests:
                of_task.append(counter)
                at[entry.name] = len(of_task) - 1
            else:
                at[entry.name] = of_task.index(counter)
        lengths[task] = Lengths(of_task, chance)
    return lengths, places


def served_checkpoints(
    catalog: Catalog,
    task: str,
    manifests: Mapping[str, VariantManifest],
    load: LoadTracker,
    pooled: defaultdict[str, PooledCalibration] | None = None,
    worth: Mapping[str, float] | None = None,
    tokenizers: Mapping[str, int] | None = None,
) -> dict[str, ServedCheckpoint]:
    """Returns the checkpoints of a task that have a manifest by name, each with a forecaster of its own for it.

    Variants of one kind share a calibration in `pooled`. The length of a summary is uncertain in ways that scoring
    labels is not, so kinds do not stand in for each other. `worth` is the utility by name if the catalog is a part of
    one. `tokenizers` has the place of each checkpoint's tokenizer among those of its task; 0 where it is missing.
    """
    pooled = defaultdict(PooledCalibration) if pooled is None else pooled
    entries = catalog.of_task(task)
    worth = utilities_of(entries) if worth is None else worth
    return {
        entry.name: ServedCheckpoint(
            name=entry.name,
            tier=entry.tier,
            quality=entry.quality.standing,
            utility=worth[entry.name],
            domain=entry.domain,
            forecaster=Forecaster(
                service_time_model(manifests[entry.name], task),
                pooled[manifests[entry.name].kind],
                entry.threads,
                (tokenizers or {}).get(entry.name, 0),
                lone_runs(entry, manifests[entry.name]),
            ),
            load=load,
            threads=entry.threads,
            slots_per_replica=entry.slots,
            shared=len(entry.tasks) > 1,
        )
        for entry in entries
        if entry.name in manifests
    }


def lone_runs(entry: CatalogEntry, manifest: VariantManifest) -> LoneRuns | None:
    """Returns how much faster a lone run of the variant is; None if its replicas have too few processors for one."""
    lone = LoneRuns.from_document(manifest.profile)
    return lone if lone is not None and lone.threads <= entry.threads * entry.slots else None


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


def explain(
    catalog: Catalog,
    manifests: Mapping[str, VariantManifest],
    task: str,
    text: str,
    terms: Terms,
    price: float | None = None,
    counters: Mapping[str, Counter] | None = None,
    parameters: Parameters | None = None,
) -> Decision:
    """Decides as an idle gateway would: every checkpoint up, nothing queued. Raises UnknownTask, or InvalidRequest.

    `price` is in points of quality per core-second; None is the price of an idle gateway, 0. `parameters` are the
    task's own defaults where absent.
    """
    now_s = time.monotonic()
    load = LoadTracker()
    for entry in catalog.checkpoints:
        load.reported(entry.name, "idle", LoadReport(0.0, 0, lone=True), now_s)
    router = Router(catalog, manifests, load, lambda: now_s, counters=counters)
    asked = router.task(task).parameters() if parameters is None else parameters
    request = Request(task, (text,), asked, terms, now_s)
    return router.decide(request, router.deadline(request), price, every=True)
