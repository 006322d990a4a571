"""`punctual bench observed`: a real Prometheus watches a gateway under mixed load. Are its counts true?

The gateway starts, is warmed up and is scraped; then the load begins, so that the counters grow by the load alone. The
load is counted twice: by the client that offers it, and by the gateway, as Prometheus has its counters. *In time by the
client's clock* counts from the intended send time, so it includes what the gateway cannot see: the way to it and back,
and a generator that sent late. *In time as reported* is what `X-SLA-Met` said.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, TypeAlias

import typer
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from gateway.catalogs.catalog import Catalog
from gateway.model.errors import (
    BudgetInfeasible,
    CheckpointUnavailable,
    DeadlineExceeded,
    InferenceFailed,
    InputTooLong,
    InvalidRequest,
    Overloaded,
)
from gateway.model.outcome import Outcome
from loadtests import options
from loadtests.bench.peers.prometheus import Prometheus, Query, Rule, Sample, now_s, panel_queries, watching
from loadtests.bench.peers.servers import gateway
from loadtests.bench.report import Report, Table, Verdict, present
from loadtests.generator.calls import Handling, held_out
from loadtests.generator.checkpoints import live_variants
from loadtests.generator.experiment import Experiment, Ran, Terms, planned
from loadtests.generator.open_loop import generating
from loadtests.generator.results import ANSWERED, Result
from loadtests.workload.arrivals import Fate
from loadtests.workload.scenario import Scenario, overridden, read_scenario

SCRAPE_EVERY_S = 1

COUNTER = "sum by (task, outcome) (punctual_requests_total)"
WINDOWS = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "2h": 7200.0, "6h": 21600.0}
"""Of the recording rules for attainment, by the suffix of their names."""

MOST_APART = 0.01
"""How far attainment by PromQL may be from the client's own, as a share."""

NOT_OFFERED = (Outcome.INVALID, Outcome.TOO_LONG)
"""Outcomes of requests that could not be served at all. Attainment leaves them out, as the recording rules do."""

UNREPORTED = "unreported"
"""The outcome of a request without an answer: the gateway may know more of it than its client."""

_BY_CODE = {
    problem.code: problem.outcome
    for problem in (
        BudgetInfeasible,
        CheckpointUnavailable,
        DeadlineExceeded,
        InferenceFailed,
        InputTooLong,
        InvalidRequest,
        Overloaded,
    )
}

Counts: TypeAlias = Mapping[str, int]
"""How many requests of a task ended how, by the name of the outcome."""


@dataclass(frozen=True)
class ObservedSettings:
    """A scenario at one load, offered for `seconds` after a warm-up that Prometheus does not see."""

    scenario: str = "live-watched"
    seconds: float = 120.0
    warm_up_seconds: float = 3.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """The requests of one task: how they ended by what clients got, and by what Prometheus has counted.

    `in_time` is by the client's clock, `by_rule` the attainment that the recording rule has, where it has one.
    """

    task: str
    reported: Counts
    counted: Counts
    in_time: int
    by_rule: float | None = None

    @property
    def agree(self) -> bool:
        """Whether each request was counted once, as it ended; of one without an answer, only that it was counted."""
        if sum(self.reported.values()) != sum(self.counted.values()):
            return False
        return all(self.counted.get(how, 0) >= count for how, count in self.reported.items() if how != UNREPORTED)

    @property
    def by_client(self) -> float | None:
        """Attainment by the client's clock."""
        return _share(self.in_time, _offered(self.reported))

    @property
    def by_answers(self) -> float | None:
        """Attainment by the gateway's own answers (`X-SLA-Met`)."""
        return _share(self.reported.get(Outcome.IN_TIME, 0), _offered(self.reported))

    @property
    def by_promql(self) -> float | None:
        """Attainment by the difference of the counters."""
        return _share(self.counted.get(Outcome.IN_TIME, 0), _offered(self.counted))

    @property
    def apart(self) -> float | None:
        """How far attainment by PromQL is from the other two, the larger of both; None if any of them is unknown."""
        if self.by_promql is None or self.by_client is None or self.by_answers is None:
            return None
        return max(abs(self.by_promql - self.by_client), abs(self.by_promql - self.by_answers))


@dataclass(frozen=True)
class Asked:
    """What was asked of Prometheus, queries of panels and recorded series, and which of it has no data.

    `ailing` are rules that it could not evaluate, with what it said of them.
    """

    queries: int
    silent_queries: tuple[Query, ...]
    recorded: int
    silent_rules: tuple[str, ...]
    ailing: tuple[str, ...]


@dataclass(frozen=True)
class Observed:
    """The conditions, both sides' counts, and what else Prometheus had.

    `rule` is the recording rule beside which attainment is set. `scrapes` counts those of the load's time,
    `scrapes_failed` those of them that the gateway did not answer in time. `invalid` says why the load's own figures
    are not to be trusted, if so.
    """

    settings: ObservedSettings
    host: str
    rate_per_s: float
    rule: str
    tasks: tuple[TaskCounts, ...]
    asked: Asked
    scrapes: int
    scrapes_failed: int
    invalid: str
    lasted_s: float


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    scenario: Annotated[str, typer.Option(help="a shipped scenario's name, or a file")] = ObservedSettings.scenario,
    seconds: Annotated[float, typer.Option(parser=options.positive, help="of load")] = ObservedSettings.seconds,
    seed: Annotated[int, typer.Option(help="of arrivals and texts")] = ObservedSettings.seed,
    json: options.Json = None,
) -> None:
    """Has a real Prometheus watch a gateway under load, and compares its counts with the client's."""
    settings = ObservedSettings(scenario, seconds, seed=seed)
    report = measure(*options.prepared(catalog, cache), settings, options.console)
    raise typer.Exit(present(report, options.console, json=json))


def measure(catalog: Catalog, variants: Mapping[str, Path], settings: ObservedSettings, console: Console) -> Report:
    """Serves the catalog, offers the load and asks; minutes. Raises LoadTestError."""
    scenario = read_scenario(settings.scenario)
    queries = panel_queries()
    start_s = perf_counter()
    with ExitStack() as while_up:
        with console.status("starting the gateway"):
            url = while_up.enter_context(gateway(catalog, variants)).url
        offer = while_up.enter_context(_offering(scenario, url, console))
        offer("warming up", settings.warm_up_seconds, settings.seed + 1)
        with console.status("starting Prometheus"):
            prometheus = while_up.enter_context(watching(url, SCRAPE_EVERY_S))
        began_s = now_s()
        ran = offer("offering", settings.seconds, settings.seed)
        ended_s = now_s()
        with console.status("waiting for the last scrape and the rules"):
            prometheus.await_settled()
        settled_s = now_s()
        rule = f"task:punctual_attainment:ratio_rate{window_of(settled_s - began_s)}"
        before, after = (prometheus.ask(COUNTER, at_s) for at_s in (began_s, settled_s))
        by_rule = {one.metric["task"]: one.number for one in prometheus.ask(rule, settled_s)}
        asked = asked_of(prometheus.ask, prometheus.rules(), queries, ended_s)
        scrapes, answered = _scrapes(prometheus, began_s, ended_s)
    found = Observed(
        settings=settings,
        host=read_host().kind,
        rate_per_s=ran.result.rate_per_s,
        rule=rule,
        tasks=counted_both(ran.results, before, after, by_rule),
        asked=asked,
        scrapes=scrapes,
        scrapes_failed=scrapes - answered,
        invalid="" if ran.result.valid else ran.result.note,
        lasted_s=perf_counter() - start_s,
    )
    return report_of(found)


def report_of(found: Observed) -> Report:
    """Both sides' counts by outcome, attainment four ways, what had no data by its name, and a verdict a target."""
    asked = found.asked
    silent = [f"no data: {query.where}: {query.expr}" for query in asked.silent_queries]
    silent += [f"no data, or failing: {name}" for name in (*asked.silent_rules, *asked.ailing)]
    scrapes = (
        f"{found.scrapes} scrapes while the load lasted, of which {found.scrapes_failed} were not answered in time"
    )
    ways = ("by_client", "by_answers", "by_promql", "by_rule")
    return Report(
        tables=[_outcomes(found), _attainment(found)],
        document={
            **vars(found),
            "attainment": {one.task: {way: getattr(one, way) for way in ways} for one in found.tasks},
        },
        verdicts=targets(found),
        remarks=[scrapes],
        cautions=silent,
    )


def targets(found: Observed) -> list[Verdict]:
    """What the command is for. A run whose generator was late misses the first."""
    asked, tasks = found.asked, found.tasks
    unlike = [one.task for one in tasks if not one.agree]
    apart = {one.task: one.apart for one in tasks}
    close = bool(tasks) and all(gap is not None and round(gap, 9) <= MOST_APART for gap in apart.values())
    points = ", ".join(f"{task} {_share_text(gap)}" for task, gap in apart.items())
    queries, rules = asked.queries - len(asked.silent_queries), asked.recorded - len(asked.silent_rules)
    attainment = f"attainment by PromQL within {MOST_APART:.0%} of the client's, by its clock and as reported"
    counted_once = bool(tasks) and not unlike
    wanted = (
        ("the load was offered as planned", not found.invalid, found.invalid or "sent in time"),
        (
            "each request is counted once, as it ended",
            counted_once,
            f"not so: {', '.join(unlike)}" if unlike else "both sides agree on every outcome",
        ),
        (attainment, close, f"apart by {points}"),
        ("every query of every dashboard returns data", not asked.silent_queries, f"{queries} of {asked.queries}"),
        (
            "every recording rule returns data, and no rule fails",
            not asked.silent_rules and not asked.ailing,
            f"{rules} of {asked.recorded}, {len(asked.ailing)} failing",
        ),
    )
    return [Verdict(f"{what}: {'met' if met else 'MISSED'}: {said}", met) for what, met, said in wanted]


def _outcomes(found: Observed) -> Table:
    """One row for each outcome that occurred."""
    settings = found.settings
    rows = []
    for how in (*Outcome, UNREPORTED):
        counts = [count for one in found.tasks for count in (one.reported.get(how, 0), one.counted.get(how, 0))]
        if any(counts):
            rows.append((how, *map(str, counts)))
    sums = [sum(counts.values()) for one in found.tasks for counts in (one.reported, one.counted)]
    return Table(
        f"{settings.scenario} at {found.rate_per_s:g} requests/s for {settings.seconds:g} s on {found.host}",
        ("outcome", *(heading for one in found.tasks for heading in (f"{one.task}, reported", "counted"))),
        [*rows, ("all", *map(str, sums))],
        "as the gateway reported to clients, and as Prometheus counted",
    )


def _attainment(found: Observed) -> Table:
    shares = [(one.task, one.by_client, one.by_answers, one.by_promql, one.by_rule, one.apart) for one in found.tasks]
    return Table(
        "attainment",
        ("task", "client's clock", "X-SLA-Met", "PromQL, counters", "recording rule", "apart by"),
        [(task, *map(_share_text, values)) for task, *values in shares],
        f"client's clock: from the intended send time; rule: {found.rule}; apart: counters from the first two",
    )


def _share_text(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def asked_of(
    ask: Callable[[str, float], Sequence[Sample]], rules: Sequence[Rule], queries: Sequence[Query], at_s: float
) -> Asked:
    """Asks every query and every recorded series at one instant. NaN is no data. Raises what `ask` does."""

    def silent(expr: str) -> bool:
        return all(math.isnan(one.number) for one in ask(expr, at_s))

    recorded = sorted({rule.name for rule in rules if rule.type == "recording"})
    return Asked(
        queries=len(queries),
        silent_queries=tuple(query for query in queries if silent(query.expr)),
        recorded=len(recorded),
        silent_rules=tuple(name for name in recorded if silent(name)),
        ailing=tuple(f"{rule.name}: {rule.last_error}" for rule in rules if rule.health != "ok"),
    )


def window_of(seconds: float) -> str:
    """The shortest of the recorded windows that holds `seconds`, or the longest if none does."""
    return next((name for name, held_s in WINDOWS.items() if seconds <= held_s), list(WINDOWS)[-1])


@contextmanager
def _offering(scenario: Scenario, url: str, console: Console) -> Iterator[Callable[[str, float, int], Ran]]:
    """Gives a function that offers the scenario for some seconds under a seed, with a progress bar of that name."""
    variants, stock, terms = live_variants(url), held_out(), Terms(url)
    with generating() as generator:

        def offer(name: str, seconds: float, seed: int) -> Ran:
            given = {"seconds": seconds, "warmup_s": 0.0, "seeds": (seed,), "loads": scenario.loads[:1]}
            short = overridden(scenario, given | {"cvs": scenario.cvs[:1]})
            (one,) = planned(short, [Handling("gateway")])
            experiment = Experiment(short, variants, stock, terms, generator.fire)
            with Progress(console=console, refresh_per_second=1) as bar:
                line = bar.add_task(f"{name} {scenario.name}", total=seconds)
                capacity = experiment.reckoned_capacity()
                return experiment.run(one, capacity, lambda age_s: bar.update(line, completed=min(age_s, seconds)))

        yield offer


def _scrapes(prometheus: Prometheus, began_s: float, ended_s: float) -> tuple[int, int]:
    """How many scrapes there were between two instants, and how many of them the gateway answered."""
    window = f"up[{max(1, round(ended_s - began_s))}s]"
    found = [prometheus.ask(f"sum({of}_over_time({window}))", ended_s) for of in ("count", "sum")]
    made, answered = (round(one[0].number) if one else 0 for one in found)
    return made, answered


def counted_both(
    results: Sequence[Result], before: Iterable[Sample], after: Iterable[Sample], by_rule: Mapping[str, float]
) -> tuple[TaskCounts, ...]:
    """The counts of each task that either side knows of, in the order of their names.

    The samples are of a counter with the labels `task` and `outcome`, at an instant before the first request and at
    one after the last. A series that was not there before began at 0.
    """
    reported: dict[str, Counter[str]] = {}
    for one in results:
        reported.setdefault(one.task, Counter())[reported_outcome(one)] += 1
    counted = _differences(before, after)
    in_time = Counter(one.task for one in results if one.fate is Fate.IN_TIME)
    tasks = sorted(reported.keys() | {task for task, counts in counted.items() if counts})
    return tuple(
        TaskCounts(one, reported.get(one, {}), counted.get(one, {}), in_time[one], by_rule.get(one)) for one in tasks
    )


def reported_outcome(landing: Result) -> str:
    """How the gateway said that a request had ended; `UNREPORTED` where it did not say."""
    if landing.fate in ANSWERED:
        met = landing.prediction.met if landing.prediction else None
        return UNREPORTED if met is None else Outcome.IN_TIME if met else Outcome.LATE
    return _BY_CODE.get(landing.detail.rpartition(" ")[2], UNREPORTED)


def _differences(before: Iterable[Sample], after: Iterable[Sample]) -> dict[str, Counter[str]]:
    """By task and outcome, if not 0. A counter that started again gives a number below 0: it lacks some requests."""
    began = {(one.metric["task"], one.metric["outcome"]): one.number for one in before}
    grown: dict[str, Counter[str]] = {}
    for one in after:
        task, outcome = one.metric["task"], one.metric["outcome"]
        difference = round(one.number - began.get((task, outcome), 0.0))
        if difference:
            grown.setdefault(task, Counter())[outcome] = difference
    return grown


def _offered(counts: Counts) -> int:
    return sum(count for how, count in counts.items() if how not in NOT_OFFERED)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
