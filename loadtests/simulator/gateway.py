"""The gateway in the simulator: the live router, scheduler, forecasts and prices on a virtual clock.

Several ingresses share the node. Each learns of the others and of its own runs with the scenario's delay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from deployments.replica.batch_forming import BatchLimits
from deployments.replica.classify import BATCH_LIMITS
from gateway.forecasting.forecaster import Forecaster, PooledCalibration, ServedCheckpoint
from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Deadline
from gateway.model.faults import Part
from gateway.model.messages import Answer, LoadReport
from gateway.model.request import RequestShape, Terms
from gateway.router import TaskRouter, beside_one_another
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.policy import Decision, Reason
from gateway.scheduling.scheduler import Batch
from gateway.tasks import TASKS
from gateway.tasks.service_time import Slowdown
from loadtests.simulator.replica import BatchingReplica, SharingReplica
from loadtests.simulator.world import World
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

_SLOWDOWN_WEIGHT = 0.1


class VariantCost:
    """The service-time model of a simulated variant. Characters are tokens here."""

    def __init__(self, variant: Variant) -> None:
        """Uses the variant's medians and spread."""
        self.sigma = variant.times.sigma
        self.max_batch = variant.max_batch
        self._variant = variant
        self.slowdown = Slowdown(_SLOWDOWN_WEIGHT)

    def run_s(self, inputs: int, characters: int) -> float:
        """The median of one run, in seconds."""
        return self.slowdown.value * self._variant.median_s(inputs, characters)

    def service_times_s(self, asked: RequestShape, available_s: float, companions: int = 0) -> tuple[float, float]:
        """The same time twice: it does not depend on the time left."""
        seconds = self.run_s(len(asked.characters) + companions, asked.characters[0])
        return seconds, seconds

    def learn(self, asked: RequestShape, answer: Answer) -> None:
        """Learns nothing: the length of a simulated text is known."""

    def learn_run(self, inputs: int, characters: int, seconds: float) -> None:
        """Learns how long a run took."""
        self.slowdown.learn(seconds, self._variant.median_s(inputs, characters))

    def forget(self) -> None:
        """Resets the slowdown to 1."""
        self.slowdown = Slowdown(_SLOWDOWN_WEIGHT)


@dataclass(frozen=True, slots=True)
class Setup:
    """The number of ingresses, the delay of their reports, and the overhead of an answer, in seconds."""

    ingresses: int
    report_delay_s: float
    overhead_s: float


@dataclass(slots=True, eq=False)
class _Open:
    """A queued request with the decision made at its arrival."""

    request: Offered
    asked: RequestShape
    decision: Decision
    deadline: Deadline


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A request on its way to a replica, with the decision that bound it, made at `decided_s`."""

    batch: Batch
    request: Offered
    decision: Decision
    decided_s: float


class Ingress:
    """One gateway process, with a router for each task."""

    def __init__(
        self,
        world: World,
        task_routers: Mapping[str, TaskRouter],
        replicas: Mapping[str, Replicas],
        setup: Setup,
        insist: frozenset[int],
    ) -> None:
        """`replicas` are by variant name; requests with a sequence in `insist` are not refused."""
        self._insist = insist
        self._world = world
        self._task_routers = task_routers
        self._replicas = replicas
        self._setup = setup
        self._open: dict[QueuedRequest, _Open] = {}
        self._wakes: dict[str, float] = {}

    def arrived(self, request: Offered) -> None:
        """Refuses the request, or queues it."""
        now_s = self._world.now_s
        task_router = self._task_routers[request.task]
        asked = RequestShape((request.tokens,) * request.texts, TASKS[request.task].parameters())
        deadline = Deadline(now_s, request.budget_s)
        task_router.arrived(asked, request.budget_s, now_s)
        terms = Terms(percentile=request.percentile, strict=request.strict, domain=request.domain)
        decision = task_router.decide(asked, terms, deadline, now_s)
        hopeless = decision.chosen is None or (decision.reason is Reason.BEST_EFFORT and task_router.scheduler.full)
        if hopeless and request.sequence not in self._insist:
            self._world.refuse(request)
            return
        held = task_router.queued(asked, terms, deadline, now_s)
        self._open[held] = _Open(request, asked, decision, deadline)
        task_router.scheduler.enter(held)
        self._fill(request.task)

    def ended(self) -> None:
        """Fails every request that is still queued."""
        for one in self._open.values():
            self._world.fail(one.request)
        self._open.clear()

    def _fill(self, task: str) -> None:
        now_s = self._world.now_s
        task_router = self._task_routers[task]
        for held in task_router.scheduler.expired(now_s):
            self._world.fail(self._open.pop(held).request)
        while (batch := task_router.scheduler.next_batch(now_s)) is not None:
            self._send(task_router, batch)
        wake_s = task_router.scheduler.wake_s(now_s)
        if wake_s is not None and self._wakes.get(task) != wake_s:
            self._wakes[task] = wake_s
            self._world.at(wake_s, self._woken, task, wake_s)

    def _woken(self, task: str, wake_s: float) -> None:
        if self._wakes.get(task) == wake_s:
            del self._wakes[task]
            self._fill(task)

    def _send(self, task_router: TaskRouter, batch: Batch) -> None:
        now_s = self._world.now_s
        for held in batch.members:
            one = self._open.pop(held)
            decision = task_router.bind(one.asked, one.decision, batch, one.deadline, now_s)
            self._world.after(self._setup.report_delay_s, self._enter, _Sent(batch, one.request, decision, now_s))

    def _enter(self, sent: _Sent) -> None:
        replica, place = self._replicas[sent.batch.checkpoint], sent.batch.members[0].place
        replica.enter(sent.request, partial(self._ended, sent), place)

    def _ended(self, sent: _Sent, request: Offered, service_s: float, answered: bool) -> None:
        setup, world = self._setup, self._world
        if answered:
            world.finish(request, sent.batch.checkpoint, world.now_s + setup.overhead_s - setup.report_delay_s)
        else:
            world.fail(request)
        world.after(setup.report_delay_s, self._learn, sent, service_s, answered)

    def _learn(self, sent: _Sent, service_s: float, answered: bool) -> None:
        request, batch, chosen = sent.request, sent.batch, sent.decision.chosen
        assert chosen is not None and chosen.forecast is not None, "a batched request has a decision"
        task_router = self._task_routers[request.task]
        if answered:
            request.predicted_s = sent.decided_s - request.arrived_s + chosen.forecast.latency_s
            request.quantile_s = sent.decided_s - request.arrived_s + chosen.forecast.quantile_s
        if answered and batch.left == len(batch.members):
            forecaster = task_router.by_name[batch.checkpoint].forecaster
            latency_s = request.finished_s - sent.decided_s
            forecaster.learn_latency(chosen.forecast, latency_s, self._setup.overhead_s, self._world.now_s)
            if isinstance(forecaster.model, VariantCost):
                inputs = sum(held.texts for held in batch.members)
                forecaster.model.learn_run(inputs, request.tokens, service_s)
        task_router.scheduler.ended(batch)
        self._fill(request.task)


Replicas = BatchingReplica | SharingReplica


class Punctual:
    """The gateway as a policy: requests go to its ingresses round robin."""

    def __init__(
        self,
        world: World,
        variants: Sequence[Variant],
        cores: int,
        setup: Setup,
        insist: frozenset[int] = frozenset(),
    ) -> None:
        """Each variant is up with a slot on every core. Requests with a sequence in `insist` are not refused."""
        replicas: dict[str, Replicas] = {}
        for variant in variants:
            if variant.max_batch > 1:
                limits = BatchLimits(variant.max_batch, max(BATCH_LIMITS.max_batch_tokens, 1 << 20), 0.15)
                replicas[variant.name] = BatchingReplica(world, variant, cores, limits)
            else:
                replicas[variant.name] = SharingReplica(world, variant, cores)
        share = max(1.0, cores / setup.ingresses)
        self._ingresses = [
            Ingress(world, _task_routers(variants, share, cores), replicas, setup, insist)
            for _ in range(setup.ingresses)
        ]

    def arrived(self, request: Offered) -> None:
        """Passes the request to the next ingress."""
        self._ingresses[request.sequence % len(self._ingresses)].arrived(request)

    def ended(self) -> None:
        """Closes every ingress."""
        for ingress in self._ingresses:
            ingress.ended()


def _raise(part: Part, error: Exception) -> None:
    """Raises a fault that the live gateway would degrade on."""
    raise error


def _task_routers(variants: Sequence[Variant], share: float, slots: int) -> dict[str, TaskRouter]:
    """A router for each task; every variant has one idle replica with this many slots."""
    load = LoadTracker()
    for variant in variants:
        load.reported(variant.name, "simulated", LoadReport(0.0, 0, cores=share), 0.0)
    task_routers: dict[str, TaskRouter] = {}
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
                forecaster=Forecaster(VariantCost(one), pooled),
                load=load,
                slots_per_replica=slots,
            )
            for rank, one in zip(ranks, of_task, strict=True)
        ]
        task_routers[task] = TaskRouter(offers, load, note=_raise)
    beside_one_another(task_routers.values())
    return task_routers
