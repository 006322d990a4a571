"""A scenario in words, as the page of its results begins: what arrived, of what kind, and what served it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests.results.counting import described
from loadtests.results.run import RunResult
from loadtests.scenarios.model import ArrivalModel, Scenario


def in_words(scenario: Scenario, runs: Sequence[RunResult]) -> tuple[str, ...]:
    """A few sentences each on the runs, the arrivals, the requests and the node."""
    return tuple(_sentences(scenario, runs))


def _sentences(scenario: Scenario, runs: Sequence[RunResult]) -> Iterator[str]:
    policies = len({run.policy for run in runs})
    seeds = len({run.seed for run in runs})
    modes = " and ".join(sorted({run.mode for run in runs}, reverse=True))
    offered = sum(run.offered for run in runs)
    yield (
        f"{_many(len(runs), 'run')} ({modes}): {_many(policies, 'policy', 'policies')}, {_many(seeds, 'seed')}, "
        f"{scenario.seconds:g} s each after {scenario.warmup_s:g} s uncounted; {offered:,} requests counted."
    )
    yield _arrivals(scenario.arrivals, runs)
    total = sum(one.share for one in scenario.requests)
    kinds = "; ".join(f"{100 * one.share / total:.0f} % {described(one)}" for one in scenario.requests)
    yield f"Requests: {kinds}."
    node, source = scenario.node, scenario.catalog
    served = f"the catalog {source.manifests}" if source.manifests else f"measured samples ({source.profile})"
    ingress = _many(scenario.ingress.count, "gateway process", "gateway processes")
    yield (
        f"Served by {served} on {_many(node.cores, 'core')}, {ingress}; each "
        f"request costs {node.overhead_ms:g} ms outside queue and engine."
    )


def _arrivals(arrivals: ArrivalModel, runs: Sequence[RunResult]) -> str:
    rates = sorted({run.rate_per_s for run in runs})
    span = f"{rates[0]:.3g}" if rates[0] == rates[-1] else f"{rates[0]:.3g} to {rates[-1]:.3g}"
    unit = "" if arrivals.rate_per_s else "; load 1 is the capacity of the quality tier"
    how = {
        "poisson": "as a Poisson process",
        "gamma": "with gamma-distributed gaps of the coefficient of variation (CV) given",
        "step": "at a rate that jumps",
        "ramp": "at a rate that ramps",
        "trace": f"at the rates of {arrivals.trace}",
    }[arrivals.process]
    return f"Arrivals {how}, open loop, {span} a second{unit}."


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
