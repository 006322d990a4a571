"""The ablations: each constant and mechanism of the scheduling policy, and what stands in its place when it is off.

An ablation is data. `applied` puts its values where the policy looks them up, in the process that plays the run, and
takes them back; the policy itself has no switches. A test holds that every place named here exists, and that every
number of the policy is either ablated or listed in `NOT_ABLATED` with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from gateway.forecasting.forecaster import Forecast, Forecaster, PooledCalibration, ServedCheckpoint
from gateway.model.profile import LoneRuns
from gateway.scheduling import batching, price
from gateway.scheduling.batching import PlannedBatch, QueuedRequest, SchedulingContext
from gateway.scheduling.price import CapacityPrice
from gateway.tasks.service_time import ServiceTimeModel
from loadtests.simulator.gateway import VariantCost
from loadtests.workload.variants import Variant

FULL = "the whole policy"
"""The name of the policy with nothing switched off."""

_BATCHING, _PRICE = "gateway.scheduling.batching", "gateway.scheduling.price"
_QUEUE, _ARRIVALS = "gateway.scheduling.task_queue", "gateway.scheduling.arrivals"
_SCHEDULER, _LATE = "gateway.scheduling.scheduler", "gateway.scheduling.late_share"
_CALIBRATION, _FORECASTER = "gateway.forecasting.calibration", "gateway.forecasting.forecaster"

_LENGTHS = "gateway.forecasting.lengths"
_OF_LENGTHS = (
    *("COUNTED", "SAMPLES", "FEWEST_SAMPLES", "USUAL_SAMPLE", "SHORTEST_SAMPLE"),
    *("TOKENS_PER_CHARACTER", "SPECIAL_TOKENS"),
)

_ENDLESS = 10**9


@dataclass(frozen=True, slots=True)
class Ablation:
    """One thing switched off: `about` says in a sentence how the policy goes on without it.

    `replaced` maps places, as `package.module:attribute.of.it`, to what stands there instead. `kept` is the reason why
    the thing stays even if it earns no quality; empty if there is none.
    """

    name: str
    about: str
    replaced: Mapping[str, object]
    kept: str = ""


def place_of(target: str) -> tuple[object, str]:
    """The object that holds a place, and the attribute's name. Raises ImportError or AttributeError for no such."""
    module, _, path = target.partition(":")
    *holders, attribute = path.split(".")
    holder: object = import_module(module)
    for name in holders:
        holder = getattr(holder, name)
    getattr(holder, attribute)
    return holder, attribute


@contextmanager
def applied(ablation: Ablation | None) -> Iterator[None]:
    """Switches the thing off within the block, in this process; None switches nothing off."""
    places = [(*place_of(target), value) for target, value in (ablation.replaced if ablation else {}).items()]
    modules = {import_module(target.partition(":")[0]) for target in (ablation.replaced if ablation else {})}
    before = [getattr(holder, attribute) for holder, attribute, _ in places]
    try:
        for holder, attribute, value in places:
            setattr(holder, attribute, value)
        _forget(modules)
        yield
    finally:
        for (holder, attribute, _), value in zip(places, before, strict=True):
            setattr(holder, attribute, value)
        _forget(modules)


def _forget(modules: set[ModuleType]) -> None:
    """Clears the modules' caches, whose entries may rest on another value."""
    for module in modules:
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def _none(*_: object) -> None:
    return None


def _zero(*_: object) -> float:
    return 0.0


def _usual(of: Forecaster, usual: Forecast, *_: object) -> Forecast:
    return usual


_price = CapacityPrice.price
_next_batch = batching.next_batch
_build_forecaster = Forecaster.__init__
_build_pooled = PooledCalibration.__init__
_build_cost = VariantCost.__init__


def _free_of_charge(of: CapacityPrice, waiting: Sequence[int], cores: float, busy_s: float, now_s: float) -> float:
    """Core time costs nothing; overload is still noticed."""
    _price(of, waiting, cores, busy_s, now_s)
    return 0.0


def _price_of_rate(of: CapacityPrice, waiting: int, rate: float, cores: float) -> float:
    """The price at which the arrivals just fill the cores, whatever waits."""
    return price.price_of(of._usual, price.STEADY_UTILISATION * cores / max(rate, 1e-6))


def _urgent_first(
    waiting: Sequence[QueuedRequest],
    checkpoint: ServedCheckpoint,
    context: SchedulingContext,
    least_utility: float,
    tolerances_s: Sequence[float],
) -> PlannedBatch | None:
    """The best batch with the most urgent request, under overload as well."""
    able = [queued for queued in waiting if queued.may(checkpoint.name)]
    if not able or able[0] is not waiting[0]:
        return None
    group = batching._group_with(able[0], able, checkpoint)
    return batching._with_most_urgent(group, checkpoint, context, least_utility, tolerances_s)


def _doubtful_first(
    waiting: Sequence[QueuedRequest], checkpoints: Sequence[ServedCheckpoint], context: SchedulingContext
) -> PlannedBatch | None:
    """The best batch with the most urgent request; if no checkpoint is sure to reach it, that request alone."""
    batch = _next_batch(waiting, checkpoints, context)
    if batch is None or (context.utility_left <= 1e-9 and context.crowded) or waiting[0] in batch.members:
        return batch
    if not any(waiting[0].may(one.name) for one in checkpoints):
        return batch
    return batching._alone(waiting, checkpoints)


def _one_by_one(most: int) -> list[int]:
    return [1]


def _one_calibration(
    of: Forecaster, model: ServiceTimeModel, pooled: PooledCalibration | None = None, lone: LoneRuns | None = None
) -> None:
    """Idle and queued forecasts share their errors."""
    _build_forecaster(of, model, pooled, lone=lone)
    of._queued = of._idle


def _batches_of_writers(of: VariantCost, variant: Variant) -> None:
    """Nothing joins: texts of one batch begin together, and the next batch when all of them have ended."""
    _build_cost(of, variant)
    of.joins = None


def _one_pool(of: PooledCalibration) -> None:
    _build_pooled(of)
    of.queued = of.idle


_CONTRACT = "a late best-effort request is answered all the same"
_COMPUTING = "it bounds the time that a decision takes"

ABLATIONS = (
    # The batching rule.
    Ablation("batches", "A batch that is chosen by its gain has one request.", {f"{_BATCHING}:sizes": _one_by_one}),
    Ablation(
        "length buckets",
        "Texts of any lengths share a batch.",
        {f"{_BATCHING}:LENGTH_RATIO": 1e9},
        "padding costs engine time, and most scenarios have texts of one length",
    ),
    Ablation(
        "overload rule",
        "Under overload, too, each batch has the most urgent request.",
        {f"{_BATCHING}:_best_of": _urgent_first},
    ),
    Ablation(
        "doubtful last",
        "A request that no checkpoint is sure to reach runs in its turn, alone, and not after the others.",
        {f"{_QUEUE}:next_batch": _doubtful_first},
    ),
    Ablation("lenience", "Under overload a request must be worth its whole price.", {f"{_BATCHING}:LENIENCE": 1.0}),
    Ablation(
        "batch budget share",
        "Under overload a batch may take as long as its members can bear.",
        {f"{_BATCHING}:BATCH_BUDGET_SHARE": math.inf},
    ),
    Ablation(
        "requests to come",
        "A batch counts nothing for the requests that come while it holds the core.",
        {f"{_BATCHING}:_lost": _zero},
    ),
    # The price.
    Ablation("price", "Core time costs nothing.", {f"{_PRICE}:CapacityPrice.price": _free_of_charge}),
    Ablation(
        "price by backlog",
        "The long-run price depends on the arrival rate, not on the queue.",
        {f"{_PRICE}:CapacityPrice._in_the_long_run": _price_of_rate},
    ),
    Ablation(
        "long-run price",
        "Only rushes within half a second have a price.",
        {f"{_PRICE}:CapacityPrice._in_the_long_run": _zero},
    ),
    Ablation("rush price", "Only the long run has a price.", {f"{_PRICE}:price_of": _zero}),
    Ablation("utilisation", "The rush price gives all of the core time out.", {f"{_PRICE}:UTILISATION": 1.0}),
    Ablation(
        "steady utilisation",
        "The long-run price gives all of the core time out.",
        {f"{_PRICE}:STEADY_UTILISATION": 1.0},
    ),
    Ablation("cycle", "In the long run a batch may take a whole budget.", {f"{_PRICE}:CYCLE": 1.0}),
    Ablation(
        "lasting",
        "After a rush its mean rate holds until it is forgotten.",
        {f"{_PRICE}:LASTING": math.inf},
        "nobody is degraded for long by a rush that is over",
    ),
    Ablation(
        "price age",
        "Each arrival is decided at a price of its own.",
        {f"{_SCHEDULER}:PRICE_AGE_S": 0.0},
        _COMPUTING,
    ),
    # What is known of the arrivals.
    Ablation("memory", "The recent rate is that of two seconds, not of half a one.", {f"{_ARRIVALS}:MEMORY_S": 2.0}),
    Ablation(
        "remembered",
        "64 arrivals are remembered, not 256.",
        {f"{_ARRIVALS}:REMEMBERED": 64},
        "a sample has some size",
    ),
    Ablation(
        "mean length",
        "The mean length of a text is that of the last one.",
        {f"{_ARRIVALS}:_SMOOTHING": 1.0},
        "most scenarios have texts of one length",
    ),
    # The queue.
    Ablation(
        "pressed cores",
        "A batch of little headroom keeps no core from other tasks.",
        {f"{_QUEUE}:PRESSED_S": -math.inf},
    ),
    Ablation("look ahead", "All queued requests are considered.", {f"{_QUEUE}:LOOK_AHEAD": _ENDLESS}, _COMPUTING),
    Ablation(
        "joining",
        "A request waits until the texts under way have ended, and those that wait then begin together.",
        {"loadtests.simulator.gateway:VariantCost.__init__": _batches_of_writers},
        "answers come sooner, which a budget does not reward",
    ),
    Ablation(
        "shared steps",
        "A request waits until the text under way has ended, and then steps alone.",
        {f"{_QUEUE}:TaskQueue._joining": _none, f"{_QUEUE}:TaskQueue.joinable": _none},
    ),
    Ablation(
        "waiting time",
        "An arrival is decided as if nothing waited before it.",
        {f"{_QUEUE}:TaskQueue.wait_s": _zero},
        "a request that cannot be in time hears it at once",
    ),
    Ablation(
        "late core share",
        "Late requests get a core only if no timely one wants it.",
        {f"{_QUEUE}:LATE_CORE_SHARE": 0.0},
        _CONTRACT,
    ),
    Ablation(
        "late share",
        "At a replica late work gets an engine only if no timely work wants it.",
        {f"{_LATE}:LATE_SHARE": 0.0, f"{_LATE}:LateShare.__init__.__defaults__": (0.0,)},
        _CONTRACT,
    ),
    Ablation("late requests", "A late request is given up.", {f"{_QUEUE}:MOST_LATE": 0}, _CONTRACT),
    # The idle node.
    Ablation(
        "begin at once",
        "On an idle node, too, a request goes through the queue.",
        {f"{_QUEUE}:TaskQueue.begin_at_once": _none},
        "an idle gateway answers sooner, which the simulator's clock does not see",
    ),
    Ablation(
        "alone",
        "A client that is alone is priced as any.",
        {f"{_SCHEDULER}:ALONE_AFTER": _ENDLESS},
        "a client that is alone is never degraded",
    ),
    Ablation(
        "few expected",
        "On an idle node a request begins at once, however many are expected.",
        {f"{_SCHEDULER}:FEW_EXPECTED": math.inf},
    ),
    # The forecast.
    Ablation(
        "calibration",
        "Forecasts keep the spread of the latency profile.",
        {f"{_CALIBRATION}:ENOUGH": _ENDLESS},
        "forecasts keep the coverage that they claim",
    ),
    Ablation(
        "window",
        "A calibration keeps its 1,024 latest errors, not 128.",
        {f"{_CALIBRATION}:WINDOW": 1024, f"{_CALIBRATION}:ResidualWindow.__init__.__defaults__": (1024,)},
        "a sample has some size",
    ),
    Ablation(
        "adaptive level",
        "The level of a quantile does not follow the coverage.",
        {f"{_CALIBRATION}:_STEP": 0.0},
        "forecasts keep the coverage that they claim",
    ),
    Ablation(
        "forgotten errors",
        "An error is never too old.",
        {f"{_CALIBRATION}:MAX_AGE_S": math.inf, f"{_FORECASTER}:MAX_AGE_S": math.inf},
        "a checkpoint that was slow once can show that it has recovered",
    ),
    Ablation(
        "prior widening",
        "Before it has errors, a forecast is as wide upwards as downwards.",
        {f"{_CALIBRATION}:_PRIOR_WIDENING": 1.0},
        "the first answers of a live gateway vary more upwards than simulated ones",
    ),
    Ablation(
        "errors apart",
        "Errors behind queued work and on an idle replica are kept together.",
        {
            f"{_FORECASTER}:Forecaster.__init__": _one_calibration,
            f"{_FORECASTER}:PooledCalibration.__init__": _one_pool,
        },
        "work of other gateways is not held against the idle gateway after it, and the scenarios have one gateway",
    ),
    Ablation(
        "lone runs",
        "A request that finds the node empty has one core, as any other.",
        {f"{_FORECASTER}:Forecaster.hurried": _usual},
        "who is alone hears sooner, and the scenarios below have hardly anybody who is",
    ),
    Ablation(
        "optimistic admission",
        "A strict request is refused if it is more likely late than not, not only if it is almost surely late.",
        {f"{_CALIBRATION}:LEAST_SHARE": 0.5},
        "a refusal is right 95 times in 100",
    ),
    Ablation(
        "learnt overhead",
        "The overhead stays at its first guess, 1.5 ms.",
        {f"{_FORECASTER}:_SMOOTHING": 0.0},
        "the overhead of a host is not known beforehand",
    ),
)

NOT_ABLATED: Mapping[str, str] = {
    f"{_PRICE}:_NARROWEST": "a bound of a numerical search",
    f"{_PRICE}:_HALVINGS": "the steps of a numerical search",
    f"{_PRICE}:_STRAIGHT": "where a formula would divide by zero",
    f"{_PRICE}:_ROUNDING": "where a formula would take the logarithm of zero",
    f"{_PRICE}:_STEPS": "how finely a cache is kept",
    f"{_PRICE}:_SIZES": "the batch sizes that are tried",
    f"{_PRICE}:HORIZONS_S": "the grid of the rush price, which is ablated",
    f"{_ARRIVALS}:_RELEARNT_EVERY": "how often the statistics are computed anew",
    f"{_ARRIVALS}:_BUDGETS": "the size of a sample",
    f"{_ARRIVALS}:_SHORTEST_S": "where a rate would divide by zero",
    f"{_QUEUE}:_TICK_S": "the tick of a timer",
    "gateway.scheduling.loop:LOOK_S": "live only: a simulated replica neither comes nor goes",
    f"{_CALIBRATION}:_MOST_SHIFT": "a limit of the adaptive level, which is ablated",
    f"{_CALIBRATION}:_MOST_KNOWN": "the size of a cache",
    f"{_FORECASTER}:_LEAST_SIGMA": "errors are divided by it",
    f"{_FORECASTER}:_FIRST_OVERHEAD_S": "the guess before the first answer",
    f"{_FORECASTER}:_LEAST_OVERHEAD_S": "a limit of one observation",
    f"{_FORECASTER}:_PLAIN_TOKENS": "used only if forecasting fails",
    f"{_FORECASTER}:_PLAIN_SPREAD": "used only if forecasting fails",
    f"{_BATCHING}:SHORTEST": "the length below which the engine takes as long for fewer tokens",
    f"{_FORECASTER}:USUAL_PERCENTILE": "the default of a header",
    **{f"{_LENGTHS}:{name}": "live only: the tokens of simulated requests are known" for name in _OF_LENGTHS},
}
"""The numbers of the policy that no ablation names, each with the reason."""


def ablation_of(name: str) -> Ablation | None:
    """The ablation of that name; None for the whole policy. Raises KeyError for an unknown name."""
    return None if name == FULL else {one.name: one for one in ABLATIONS}[name]
