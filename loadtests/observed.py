"""`punctual bench observed`: a real Prometheus over a gateway under mixed load: what it has, and whether that is true.

The gateway starts, is warmed up, is scraped; then the load begins. So what Prometheus sees grow is the load alone.
`observed_counts` compares both sides' counts, and `observed_report` shows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from gateway.catalogs.catalog import Catalog
from loadtests.observed_counts import MOST_APART, TaskCounts, counted_both
from loadtests.offering.calls import Handling
from loadtests.offering.checkpoints import live_variants
from loadtests.offering.experiment import Experiment, Ran, Terms, planned
from loadtests.offering.overrides import overridden
from loadtests.offering.process import generating
from loadtests.offering.stock import held_out
from loadtests.panels import Query, panel_queries
from loadtests.processes import gateway
from loadtests.prometheus import Prometheus, Rule, Sample, now_s, watching
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.reading import read_scenario

SCRAPE_EVERY_S = 1

COUNTER = "sum by (task, outcome) (punctual_requests_total)"
WINDOWS = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "2h": 7200.0, "6h": 21600.0}
"""Of the recording rules for attainment, by the suffix of their names."""


@dataclass(frozen=True)
class ObservedSettings:
    """A scenario at one load, offered for `seconds` after a warm-up that Prometheus does not see."""

    scenario: str = "live-watched"
    seconds: float = 120.0
    warm_up_seconds: float = 3.0
    seed: int = 1


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
class ObservedReport:
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


@dataclass(frozen=True)
class Target:
    """One promise, whether it is kept, and what was found."""

    what: str
    met: bool
    found: str


def targets(report: ObservedReport) -> tuple[Target, ...]:
    """What the command is for; a run whose generator was late keeps nothing."""
    asked, tasks = report.asked, report.tasks
    unlike = [one.task for one in tasks if not one.agree]
    apart = {one.task: one.apart for one in tasks}
    close = bool(tasks) and all(gap is not None and round(gap, 9) <= MOST_APART for gap in apart.values())
    points = ", ".join(f"{task} {'-' if gap is None else f'{gap:.2%}'}" for task, gap in apart.items())
    silent = (asked.queries - len(asked.silent_queries), asked.recorded - len(asked.silent_rules))
    return (
        Target("the load was offered as planned", not report.invalid, report.invalid or "sent in time"),
        Target(
            "each request is counted once, as it ended",
            bool(tasks) and not unlike,
            f"not so: {', '.join(unlike)}" if unlike else "both sides agree on every outcome",
        ),
        Target(
            f"attainment by PromQL within {MOST_APART:.0%} of the client's, by its clock and as told",
            close,
            f"apart by {points}",
        ),
        Target(
            "every query of every dashboard returns data",
            not asked.silent_queries,
            f"{silent[0]} of {asked.queries}",
        ),
        Target(
            "every recording rule returns data, and no rule fails",
            not asked.silent_rules and not asked.ailing,
            f"{silent[1]} of {asked.recorded}, {len(asked.ailing)} failing",
        ),
    )


def observed(
    catalog: Catalog, variants: Mapping[str, Path], settings: ObservedSettings, console: Console
) -> ObservedReport:
    """Serves the catalog, offers the load and asks; minutes. Raises LoadTestError."""
    scenario = read_scenario(settings.scenario)
    queries = panel_queries()
    started = perf_counter()
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
    return ObservedReport(
        settings=settings,
        host=read_host().kind,
        rate_per_s=ran.result.rate_per_s,
        rule=rule,
        tasks=counted_both(ran.landings, before, after, by_rule),
        asked=asked,
        scrapes=scrapes,
        scrapes_failed=scrapes - answered,
        invalid="" if ran.result.valid else ran.result.note,
        lasted_s=perf_counter() - started,
    )


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
    """The shortest of the recorded windows that holds so many seconds; of more than all, the longest."""
    return next((name for name, held_s in WINDOWS.items() if seconds <= held_s), list(WINDOWS)[-1])


@contextmanager
def _offering(scenario: Scenario, url: str, console: Console) -> Iterator[Callable[[str, float, int], Ran]]:
    """Offers so many seconds of the scenario under a seed, all of them counted, and says so by a name."""
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
