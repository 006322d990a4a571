"""The tables of live runs: outcomes, latency, forecasts and refusals, and the measured capacity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from loadtests.generator.capacity import Capacity
from loadtests.generator.figures import ALL, REFUSED, LiveResult, Shadows, merged_by_name, quantiles_of
from loadtests.reports.comparison import Place, place_of
from loadtests.reports.tables import NOTHING, Entry, Grid, Row

MOST_DETAILS = 4


def endings_grid(runs: Sequence[LiveResult]) -> Grid:
    """Shares of each outcome, and the commonest problem codes."""
    rows = []
    for label, of in _cells(runs):
        offered = sum(run.offered for run in of)
        counts = [sum(getattr(run, name) for run in of) for name in ("served", "late", "refused", "failed")]
        counts.insert(1, sum(run.met_at_gateway or 0 for run in of))
        said = sum((Counter(run.details) for run in of), Counter[str]())
        words = ", ".join(f"{detail} {count}" for detail, count in said.most_common(MOST_DETAILS))
        rows.append(Row(label, (Entry(str(offered)), *(Entry(f"{n / offered:.1%}") for n in counts), Entry(words))))
    return Grid(
        "Endings",
        ("policy", "offered", "in time", "at the gateway", "late", "refused", "failed", "what was said"),
        tuple(rows),
        "In time by the client's clock, from the intended send time, and by the gateway's, as X-SLA-Met says.",
    )


def latency_grid(runs: Sequence[LiveResult]) -> Grid:
    """Latency quantiles of answers and of refusals, over all seeds."""
    rows = []
    for label, of in _cells(runs):
        histograms = merged_by_name(run.histograms for run in of)
        answered, refused = (quantiles_of(histograms.get(name, {})) for name in (ALL, REFUSED))
        entries = [_ms(answered.p50_s), _ms(answered.p95_s), _ms(answered.p99_s)] if answered else [NOTHING] * 3
        entries += [_ms(refused.p50_s), _ms(refused.p99_s)] if refused else [NOTHING] * 2
        rows.append(Row(label, tuple(entries)))
    return Grid(
        "Latency from the intended send time, ms",
        ("policy", "p50", "p95", "p99", "refusals p50", "refusals p99"),
        tuple(rows),
        "Answers, in time or late; refusals separately. Histograms are merged over seeds; quantiles are not averaged.",
    )


def honesty_grid(runs: Sequence[LiveResult]) -> Grid:
    """How well forecasts and refusals held, and how late the generator sent."""
    rows = []
    for label, of in _cells(runs):
        refused = sum(run.refused for run in of)
        coverages = ([run.coverage for run in of], [run.coverage_at_gateway for run in of])
        entries = (
            *(_percent([one for one in values if one is not None]) for values in coverages),
            _percent([run.nominal for run in of if run.nominal is not None]),
            Entry(str(refused)),
            _shadows(together([run.shadows for run in of if run.shadows])),
            Entry(f"{max(run.late_sends for run in of):.2%}"),
            _ms(max(run.lag.p99_s for run in of if run.lag)),
        )
        rows.append(Row(label, entries))
    return Grid(
        "Forecasts, refusals and the generator",
        ("policy", "coverage", "at the gateway", "nominal", "refused", "rightly", "sent late", "lag p99, ms"),
        tuple(rows),
        "Coverage by the client's clock and by the gateway's. Rightly: the share of refused requests, sent once more "
        "best effort, that were not in time. Sent late: by over 10 ms, worst seed; over 1 %, a run is not valid.",
    )


def capacity_grid(capacity: Capacity) -> Grid:
    """The steps of the capacity measurement."""
    rows = tuple(
        Row(
            Entry(f"{step.load:.2f}"),
            (
                Entry(f"{step.offered_per_s:.1f}"),
                Entry(f"{step.answered_per_s:.1f}", bold=step.valid and step.answered_per_s == capacity.per_s),
                Entry("yes" if step.kept_up else "no"),
                Entry("yes" if step.valid else "NO"),
            ),
        )
        for step in capacity.steps
    )
    least = "" if capacity.reached else " The gateway kept up with every valid step, so this is a lower bound."
    return Grid(
        f"Capacity of the quality tier here: {capacity.per_s:.1f} requests/s",
        ("× promised", "offered/s", "full answers/s", "kept up", "valid"),
        rows,
        f"Open loop, each class's best checkpoint pinned, best effort; promised: from the latency profiles.{least}",
    )


def together(shadows: Sequence[Shadows]) -> Shadows:
    """Adds up the shadows of several runs."""
    return Shadows(
        sent=sum(one.sent for one in shadows),
        needless=sum(one.needless for one in shadows),
        failed=sum(one.failed for one in shadows),
    )


def _cells(runs: Sequence[LiveResult]) -> list[tuple[Entry, list[LiveResult]]]:
    """The runs of each policy at each place (only valid ones if any are), with their row's label."""
    of: dict[tuple[Place, str], list[LiveResult]] = {}
    for run in runs:
        of.setdefault((place_of(run), run.policy), []).append(run)
    ordered = sorted(of, key=lambda key: key[0])
    return [
        (
            Entry(f"{policy}, load {place.load:g}, CV {place.cv:g}"),
            [run for run in of[place, policy] if run.valid] or of[place, policy],
        )
        for place, policy in ordered
    ]


def _ms(seconds: float) -> Entry:
    return Entry(f"{seconds * 1000:.1f}")


def _percent(shares: Sequence[float]) -> Entry:
    return Entry(f"{fmean(shares):.1%}") if shares else NOTHING


def _shadows(shadows: Shadows) -> Entry:
    if shadows.rightly is None:
        return NOTHING
    return Entry(f"{shadows.rightly:.0%} of {shadows.sent - shadows.failed}")
