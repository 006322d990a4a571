"""The gateway in the simulator: the live scheduler, forecasts and prices on a virtual clock.

Several ingresses share the node. Each learns of the others and of its own runs with the scenario's delay. Published
policies run in the same shell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gateway.forecasting.forecaster import Forecaster, PooledCalibration, ServedCheckpoint
from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Deadline
from gateway.model.faults import Part
from gateway.model.messages import Answer, InputReport, LoadReport, Parameters, ReplicaTimings
from gateway.model.request import RequestShape, Terms
from gateway.scheduling.ruled import Rule, RuledScheduler
from gateway.scheduling.scheduler import Decider, Scheduler, Stage, Ticket
from gateway.scheduling.task_queue import Batch
from gateway.tasks import TASKS
from gateway.tasks.service_time import Slowdown, StepSharing
from loadtests.simulator.replica import BatchingReplica, SharingReplica, WritingReplicas
from loadtests.simulator.world import World
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

_SLOWDOWN_WEIGHT = 0.1


class VariantCost:
    """The service-time model of a simulated variant."""

    def __init__(self, variant: Variant) -> None:
        """Uses the variant's medians and spread."""
        self.sigma = variant.times.sigma
        self.max_batch = variant.max_batch
        self.joins: StepSharing | None = variant.joins
        self._variant = variant
        self.slowdown = Slowdown(_SLOWDOWN_WEIGHT)

    def run_s(self, inputs: int, tokens: int) -> float:
        """The median of one run, in seconds."""
        return self.slowdown.value * self._variant.batch_s(inputs, tokens)

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """The same time twice: it does not depend on the time left."""
        seconds = self.slowdown.value * self._median_s(len(tokens), companions, tokens[0])
        return seconds, seconds

    def learn(self, tokens: Sequence[int], parameters: Parameters, answer: Answer) -> None:
        """Learns how long a run took."""
        timings, texts = answer.timings, len(tokens)
        median_s = self._median_s(texts, timings.batch_size - texts, max(tokens))
        self.slowdown.learn(timings.service_time_s, median_s)

    def _median_s(self, texts: int, companions: int, tokens: int) -> float:
        """The median of a request's texts beside others; those whose steps it joins have been read."""
        median_s = self._variant.batch_s(texts + companions, tokens)
        return median_s - companions * self.joins.reading_s(tokens) if self.joins else median_s

    def forget(self) -> None:
        """Resets the slowdown to 1."""
        self.slowdown = Slowdown(_SLOWDOWN_WEIGHT)


@dataclass(frozen=True, slots=True)
class Setup:
    """The number of ingresses, the delay of their reports, and the overhead of an answer, in seconds."""

    ingresses: int
    report_delay_s: float
    overhead_s: float


class Ingress:
    """One gateway process: a scheduler, and the replicas that it sends batches to."""

    def __init__(
        self,
        world: World,
        scheduler: Scheduler,
        replicas: Mapping[str, Replicas],
        setup: Setup,
        insist: frozenset[int],
    ) -> None:
        """`replicas` are by variant name; requests with a sequence in `insist` are not refused."""
        self._insist = insist
        self._world = world
        self._scheduler = scheduler
        self._replicas = replicas
        self._setup = setup
        self._waiting: dict[Ticket, Offered] = {}
        self._tickets: dict[Offered, Ticket] = {}
        self._wake_s: float | None = None

    def arrived(self, request: Offered) -> None:
        """Submits the request: it is refused, begins or waits."""
        now_s = self._world.now_s
        asked = RequestShape(((request.tokens,) * request.texts,), TASKS[request.task].parameters())
        terms = Terms(percentile=request.percentile, strict=request.strict, domain=request.domain)
        deadline = Deadline(now_s, request.budget_s)
        insisted = request.sequence in self._insist
        ticket = self._scheduler.submit(request.task, asked, terms, deadline, now_s, insist=insisted)
        match ticket.stage:
            case Stage.WAITING:
                self._waiting[ticket] = request
                self._look()
            case Stage.BEGUN:
                self._send(ticket, [request])
            case _:
                self._world.refuse(request)

    def ended(self) -> None:
        """Fails every request that is still queued."""
        for request in self._waiting.values():
            self._world.fail(request)
        self._waiting.clear()

    def _look(self) -> None:
        now_s = self._world.now_s
        batches: dict[Batch | None, tuple[Ticket, list[Offered]]] = {}
        for ticket in self._scheduler.poll(now_s):
            request = self._waiting.pop(ticket)
            if ticket.stage is Stage.BEGUN:
                self._tickets[request] = ticket
                batches.setdefault(ticket.batch, (ticket, []))[1].append(request)
            else:
                self._world.fail(request)
        for ticket, members in batches.values():
            self._send(ticket, members)
        wake_s = self._scheduler.wake_s(now_s)
        if wake_s is not None and self._wake_s != wake_s:
            self._wake_s = wake_s
            self._world.at(wake_s, self._woken, wake_s)

    def _woken(self, wake_s: float) -> None:
        if self._wake_s == wake_s:
            self._wake_s = None
            self._look()

    def _send(self, first: Ticket, members: list[Offered]) -> None:
        """Sends a batch, by the ticket of its first member."""
        self._tickets[members[0]] = first
        checkpoint, forecast = first.promise
        enter = self._replicas[checkpoint].enter
        self._world.after(self._setup.report_delay_s, enter, members, self._ended, forecast.lone)

    def _ended(self, members: Sequence[Offered], service_s: float, answered: bool, texts: int) -> None:
        """Ends members of one batch for their clients, and hears of it a moment later."""
        setup, world = self._setup, self._world
        for request in members:
            if answered:
                checkpoint, _ = self._tickets[request].promise
                world.finish(request, checkpoint, world.now_s + setup.overhead_s - setup.report_delay_s)
            else:
                world.fail(request)
        world.after(setup.report_delay_s, self._completed, members, service_s if answered else None, texts)

    def _completed(self, members: Sequence[Offered], service_s: float | None, texts: int) -> None:
        setup, now_s = self._setup, self._world.now_s
        way_back_s = setup.overhead_s - 2 * setup.report_delay_s
        for request in members:
            ticket, answer = self._tickets.pop(request), None
            if service_s is not None:
                _, forecast = ticket.promise
                decided_s = ticket.decided_s - request.arrived_s
                request.predicted_s = decided_s + forecast.median_s
                request.quantile_s = decided_s + forecast.quantile_s
                answer = _answer(ticket, now_s + way_back_s - ticket.decided_s - setup.overhead_s, service_s, texts)
            self._scheduler.completed(ticket, now_s, answer, way_back_s=way_back_s)
        self._look()


def _answer(ticket: Ticket, at_replica_s: float, service_s: float, texts: int) -> Answer:
    """The answer of a simulated replica, where the request was for `at_replica_s` seconds; it has no outputs."""
    tokens = sum(ticket.shape.tokens[0])
    timings = ReplicaTimings(at_replica_s - service_s, service_s, at_replica_s, texts)
    return Answer((), InputReport(tokens, tokens, False), timings)


Replicas: TypeAlias = BatchingReplica | SharingReplica | WritingReplicas


class Gateway:
    """A simulated gateway: requests go to its ingresses round robin."""

    def __init__(self, ingresses: Sequence[Ingress]) -> None:
        """Takes at least one ingress."""
        self._ingresses = ingresses

    def arrived(self, request: Offered) -> None:
        """Passes the request to the next ingress."""
        self._ingresses[request.sequence % len(self._ingresses)].arrived(request)

    def ended(self) -> None:
        """Closes every ingress."""
        for ingress in self._ingresses:
            ingress.ended()


class Punctual(Gateway):
    """The gateway with our policy."""

    def __init__(
        self,
        world: World,
        variants: Sequence[Variant],
        cores: int,
        setup: Setup,
        insist: frozenset[int] = frozenset(),
    ) -> None:
        """Each variant is up with a slot on every core. Requests with a sequence in `insist` are not refused."""
        replicas = {one.name: _replica(world, one, cores) for one in variants}
        share = max(1.0, cores / setup.ingresses)
        super().__init__(
            [
                Ingress(
                    world, Scheduler(_deciders(variants, share, cores, lone=True), note=_raise), replicas, setup, insist
                )
                for _ in range(setup.ingresses)
            ]
        )


class Ruled(Gateway):
    """The gateway with a published policy: one ingress, which decides in no time and shares the cores with nothing."""

    def __init__(
        self,
        world: World,
        variants: Sequence[Variant],
        rules: Mapping[str, Rule[Variant]],
        cores: int,
        overhead_s: float,
    ) -> None:
        """Takes the variants of all tasks and a rule for each task; answers reach clients after `overhead_s`."""
        scheduler = RuledScheduler(_deciders(variants, cores, cores, lone=False), note=_raise, rules=rules)
        replicas = {one.name: BatchingReplica(world, one, cores) for one in variants}
        super().__init__([Ingress(world, scheduler, replicas, Setup(1, 0.0, overhead_s), frozenset())])


def _replica(world: World, variant: Variant, cores: int) -> Replicas:
    """The replica of a variant by how the live one answers: in runs of a batch, by time slices, or in shared steps."""
    if variant.joins:
        return WritingReplicas(world, variant, cores)
    return (BatchingReplica if variant.max_batch > 1 else SharingReplica)(world, variant, cores)


def _raise(part: Part, error: Exception) -> None:
    """Raises a fault that the live gateway would degrade on."""
    raise error


def _deciders(variants: Sequence[Variant], share: float, slots: int, *, lone: bool) -> dict[str, Decider]:
    """The decider of each task; every variant has one idle replica with this many slots. `lone` allows lone runs."""
    load = LoadTracker()
    for variant in variants:
        load.reported(variant.name, "simulated", LoadReport(0.0, 0, cores=share, lone=True), 0.0)
    deciders: dict[str, Decider] = {}
    for task in dict.fromkeys(variant.task for variant in variants):
        pooled = PooledCalibration()
        of_task = [variant for variant in variants if variant.task == task]
        ranks = range(len(of_task), 0, -1)
        offers = [
            ServedCheckpoint(
                name=one.name,
                tier=one.tier,
                quality=float(rank),
                utility=one.quality,
                domain=one.domain,
                forecaster=Forecaster(VariantCost(one), pooled, lone=one.lone if lone else None),
                load=load,
                slots_per_replica=slots,
            )
            for rank, one in zip(ranks, of_task, strict=True)
        ]
        deciders[task] = Decider(offers, load, note=_raise)
    return deciders
