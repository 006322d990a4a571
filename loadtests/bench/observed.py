"""`punctual bench observed`: compares a real Prometheus's counts with the client's, under mixed load.

The gateway is warmed up and scraped before the load begins, so that its counters grow by the load alone. *In time by
the client's clock* counts from the intended send time; it includes the network and a late generator, which the gateway
cannot see. *In time as reported* is the gateway's header `X-SLA-Met`.
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
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.bench.peers.prometheus import Prometheus, Query, Rule, Sample, now_s, panel_queries, watching
from loadtests.bench.peers.servers import gateway
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
"""The windows of the recording rules for attainment in seconds, by the suffix of the rule's name."""

MOST_APART = 0.01
"""The largest allowed difference between attainment by PromQL and by the client, as a share."""

NOT_OFFERED = (Outcome.INVALID, Outcome.TOO_LONG)
"""Outcomes of requests that no checkpoint could serve. Attainment leaves them out, as the recording rules do."""

UNREPORTED = "unreported"
"""The outcome of a request whose client got no answer; the gateway may have counted any outcome."""

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
"""The number of one task's requests by outcome."""


@dataclass(frozen=True)
class ObservedSettings:
    """A scenario at one load, offered for `seconds` after a warm-up that is not counted."""

    scenario: str = "live-watched"
    seconds: float = 120.0
    warm_up_seconds: float = 3.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """One task's requests by outcome, as reported to clients and as counted by Prometheus.

    `in_time` is by the client's clock; `by_rule` is the attainment of the recording rule, if it has a value.
    """

    task: str
    reported: Counts
    counted: Counts
    in_time: int
    by_rule: float | None = None

    @property
    def agree(self) -> bool:
        """True if every request was counted once, with its outcome; unanswered requests may have any outcome."""
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
        """Attainment by the increase of Prometheus's counters."""
        return _share(self.counted.get(Outcome.IN_TIME, 0), _offered(self.counted))

    @property
    def apart(self) -> float | None:
        """The larger difference of attainment by PromQL from the other two; None if one is unknown."""
        if self.by_promql is None or self.by_client is None or self.by_answers is None:
            return None
        return max(abs(self.by_promql - self.by_client), abs(self.by_promql - self.by_answers))


@dataclass(frozen=True)
class Asked:
    """The number of panel queries and recorded series, and those of them without data.

    `ailing` are rules that Prometheus could not evaluate, with its errors.
    """

    queries: int
    silent_queries: tuple[Query, ...]
    recorded: int
    silent_rules: tuple[str, ...]
    ailing: tuple[str, ...]


@dataclass(frozen=True)
class Observed:
    """The conditions of a run, the counts by client and by Prometheus, and the queries.

    `rule` is the recording rule to compare attainment with. `scrapes` counts scrapes during the load, `scrapes_failed`
    those that the gateway did not answer in time. `invalid` says why the load is invalid; empty if it is valid.
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
    scenario: Annotated[str, typer.Option(help="name of a shipped scenario, or a file")] = ObservedSettings.scenario,
    seconds: Annotated[float, typer.Option(parser=options.positive, help="of load")] = ObservedSettings.seconds,
    seed: Annotated[int, typer.Option(help="of arrivals and texts")] = ObservedSettings.seed,
    json: options.Json = None,
) -> None:
    """Compares the counts of a real Prometheus with the client's, under load."""
    settings = ObservedSettings(scenario, seconds, seed=seed)
    report = measure(*options.prepared(catalog, cache), settings, options.console)
    raise typer.Exit(present(report, options.console, json=json))


def measure(catalog: Catalog, variants: Mapping[str, Path], settings: ObservedSettings, console: Console) -> Report:
    """Serves the catalog, offers the load and queries Prometheus; takes minutes. Raises LoadTestError."""
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
    """Counts by outcome, attainment by four measurements, queries without data, and a verdict per target."""
    asked = found.asked
    silent = [f"no data: {query.where}: {query.expr}" for query in asked.silent_queries]
    silent += [f"no data, or failing: {name}" for name in (*asked.silent_rules, *asked.ailing)]
    scrapes = f"{found.scrapes} scrapes during the load, of which {found.scrapes_failed} were not answered in time"
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
    """The five targets as verdicts. The first is missed if the generator was late."""
    asked, tasks = found.asked, found.tasks
    differing = [one.task for one in tasks if not one.agree]
    apart = {one.task: one.apart for one in tasks}
    close = bool(tasks) and all(gap is not None and round(gap, 9) <= MOST_APART for gap in apart.values())
    points = ", ".join(f"{task} {_share_text(gap)}" for task, gap in apart.items())
    queries, rules = asked.queries - len(asked.silent_queries), asked.recorded - len(asked.silent_rules)
    attainment = f"attainment by PromQL within {MOST_APART:.0%} of the client's, by its clock and as reported"
    counted_once = bool(tasks) and not differing
    wanted = (
        ("the load was offered as planned", not found.invalid, found.invalid or "sent in time"),
        (
            "each request is counted once, as it ended",
            counted_once,
            f"not so: {', '.join(differing)}" if differing else "both sides agree on every outcome",
        ),
        (attainment, close, f"difference {points}"),
        ("every query of every dashboard returns data", not asked.silent_queries, f"{queries} of {asked.queries}"),
        (
            "every recording rule returns data, and no rule fails",
            not asked.silent_rules and not asked.ailing,
            f"{rules} of {asked.recorded}, {len(asked.ailing)} failing",
        ),
    )
    return [Verdict(f"{what}: {'met' if met else 'MISSED'}: {detail}", met) for what, met, detail in wanted]


def _outcomes(found: Observed) -> Table:
    """One row per outcome that occurred."""
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
        "reported: by the gateway to clients; counted: by Prometheus",
    )


def _attainment(found: Observed) -> Table:
    shares = [(one.task, one.by_client, one.by_answers, one.by_promql, one.by_rule, one.apart) for one in found.tasks]
    return Table(
        "attainment",
        ("task", "client's clock", "X-SLA-Met", "PromQL, counters", "recording rule", "difference"),
        [(task, *map(_share_text, values)) for task, *values in shares],
        f"client's clock: from the intended send time; rule: {found.rule}; difference: of counters from the first two",
    )


def _share_text(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def asked_of(
    ask: Callable[[str, float], Sequence[Sample]], rules: Sequence[Rule], queries: Sequence[Query], at_s: float
) -> Asked:
    """Evaluates every query and every recorded series at one instant. NaN is no data. Raises `ask`'s errors."""

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
    """The shortest recorded window of at least `seconds`, else the longest."""
    return next((name for name, held_s in WINDOWS.items() if seconds <= held_s), list(WINDOWS)[-1])


@contextmanager
def _offering(scenario: Scenario, url: str, console: Console) -> Iterator[Callable[[str, float, int], Ran]]:
    """Yields a function that offers the scenario: `offer(progress bar name, seconds, seed)`."""
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
    """The number of scrapes between two instants, and of those that the gateway answered."""
    window = f"up[{max(1, round(ended_s - began_s))}s]"
    found = [prometheus.ask(f"sum({of}_over_time({window}))", ended_s) for of in ("count", "sum")]
    made, answered = (round(one[0].number) if one else 0 for one in found)
    return made, answered


def counted_both(
    results: Sequence[Result], before: Iterable[Sample], after: Iterable[Sample], by_rule: Mapping[str, float]
) -> tuple[TaskCounts, ...]:
    """The counts of each task that client or Prometheus knows, sorted by task.

    The samples are of a counter with labels `task` and `outcome`, before the first request and after the last. A
    series without an earlier sample starts at 0.
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


def reported_outcome(result: Result) -> str:
    """The outcome that the gateway reported to the client, else `UNREPORTED`."""
    if result.fate in ANSWERED:
        return (result.prediction.outcome if result.prediction else None) or UNREPORTED
    return _BY_CODE.get(result.detail.rpartition(" ")[2], UNREPORTED)


def _differences(before: Iterable[Sample], after: Iterable[Sample]) -> dict[str, Counter[str]]:
    """The non-zero increases by task and outcome. A counter that restarted may give a negative one."""
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
