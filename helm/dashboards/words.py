"""What all dashboards share: the objective, the runbook's address, queries, selectors, colours and limits.

Knows the metrics' labels, and nothing of Grafana's panels.
"""

from __future__ import annotations

from dataclasses import dataclass

OBJECTIVE = 0.95
"""The attainment that operators aim for, as `global:punctual_attainment_objective:ratio` records it."""

RUNBOOK = "https://punctual.example/docs/operating.md"
"""The address of docs/operating.md in links and alerts. The chart replaces it by its own."""

OFFERED = 'outcome!~"invalid|too_long"'
"""The outcomes that count as offered: the others could not be served at all."""

ANSWERED = 'outcome=~"in_time|lead|late"'
"""The outcomes of requests that had an answer."""

REFUSED = 'outcome=~"infeasible|shed|unavailable"'
"""The outcomes of requests that were refused before work."""

GATEWAY = 'instance=~"$instance"'
"""One gateway of those that a Prometheus scrapes, each at one address."""

TASK = f'{GATEWAY},task=~"$task"'
TIER = f'{TASK},tier=~"$tier"'
CHECKPOINT = f'{TIER},checkpoint=~"$checkpoint"'
OF_CHECKPOINT = "task, checkpoint, tier"

TIER_COLOURS = {"realtime": "blue", "balanced": "purple", "quality": "green"}
OUTCOME_COLOURS = {
    "in_time": "green",
    "lead": "light-orange",
    "late": "orange",
    "expired": "dark-orange",
    "infeasible": "light-blue",
    "shed": "blue",
    "unavailable": "dark-red",
    "failed": "red",
    "cancelled": "text",
    "invalid": "light-yellow",
    "too_long": "light-yellow",
}
CAUSE_COLOURS = {
    "effective quality": "green",
    "lesser checkpoint": "light-green",
    "late": "orange",
    "refused": "blue",
    "failed": "red",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """The colour of a figure from this value upwards; None is below all values."""

    value: float | None
    colour: str


def rising(warn: float, good: float) -> tuple[Limit, ...]:
    """Limits for a figure that should be high: red, orange from `warn`, green from `good`."""
    return Limit(None, "red"), Limit(warn, "orange"), Limit(good, "green")


def falling(warn: float, bad: float) -> tuple[Limit, ...]:
    """Limits for a figure that should be low: green, orange from `warn`, red from `bad`."""
    return Limit(None, "green"), Limit(warn, "orange"), Limit(bad, "red")


ATTAINMENT_LIMITS = rising(round(OBJECTIVE - 0.05, 2), OBJECTIVE)
NONE = (Limit(None, "green"), Limit(1, "red"))
PLAIN = (Limit(None, "blue"),)


def rate(metric: str, selector: str, window: str = "$__rate_interval") -> str:
    """Events a second of one counter."""
    return f"rate({metric}{{{selector}}}[{window}])"


def total(metric: str, by: str = "", selector: str = TASK, window: str = "$__rate_interval") -> str:
    """Events a second over all processes, by the labels `by`."""
    over = f"sum by ({by})" if by else "sum"
    return f"{over} ({rate(metric, selector, window)})"


def share(part: str, whole: str) -> str:
    """One rate divided by another; no value, rather than NaN, while the whole is 0."""
    return f"{part} / ({whole} > 0)"


def quantile(q: float, histogram: str, by: str, selector: str = CHECKPOINT, window: str = "$__rate_interval") -> str:
    """A quantile of a classic histogram; no value while the histogram is empty."""
    return f"histogram_quantile({q}, {total(f'{histogram}_bucket', f'le, {by}', selector, window)}) >= 0"


def mean(histogram: str, by: str, selector: str = CHECKPOINT, window: str = "$__rate_interval") -> str:
    """The mean of a histogram's observations; no value while the histogram is empty."""
    return share(total(f"{histogram}_sum", by, selector, window), total(f"{histogram}_count", by, selector, window))
