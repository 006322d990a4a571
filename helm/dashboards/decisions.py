"""The Decisions dashboard: why checkpoints were chosen or not, and whether forecasts are right."""

from __future__ import annotations

from helm.dashboards.board import Board, Row
from helm.dashboards.panels import PanelBuilder, Query, figure, heat, lines
from helm.dashboards.words import (
    ANSWERED,
    CHECKPOINT,
    GATEWAY,
    OF_CHECKPOINT,
    OFFERED,
    REFUSED,
    TASK,
    Limit,
    falling,
    quantile,
    share,
    total,
)

NAME = "{{task}} {{checkpoint}}"
ROUTED = "punctual_routed_requests_total"
FORECAST = "punctual_forecast_latency_ratio"
OF_CANDIDATE = f'{TASK},checkpoint=~"$checkpoint"'


def decisions() -> Board:
    """Makes the dashboard of what the gateway decided, and why."""
    return Board(
        "punctual-decisions",
        "Punctual: Decisions",
        "Why checkpoints were chosen or not, and whether forecasts are right.",
        ("task", "tier", "checkpoint"),
        (
            Row("Over the window", _figures()),
            Row("What was chosen, and why?", _choices()),
            Row("Are forecasts right?", _forecasts()),
            Row("What was refused or cut, and what went wrong inside?", _losses()),
        ),
    )


def _figures() -> tuple[PanelBuilder, ...]:
    window = "$window"
    answers, covered, nominal = (
        total(f"punctual_forecast_{of}_total", selector=CHECKPOINT, window=window)
        for of in ("answers", "covered_answers", "nominal_answers")
    )
    routed = total(ROUTED, selector=CHECKPOINT, window=window)
    return (
        figure(
            "Coverage less nominal",
            "Share of answers at or under their forecast quantile, less the share that was asked for. Below 0 "
            "forecasts promise too much, above 0 too little. Off by 5 points for long: profile the host again.",
            "percentunit",
            Query(share(f"({covered} - {nominal})", answers)),
            (Limit(None, "red"), Limit(-0.05, "orange"), Limit(-0.02, "green"), Limit(0.05, "orange")),
            wide=6,
        ),
        figure(
            "Degraded",
            "Share of choices below the best checkpoint that the request's headers allow. Causes: tight budgets or "
            "queued requests; the verdicts say which.",
            "percentunit",
            Query(share(total("punctual_degraded_requests_total", selector=CHECKPOINT, window=window), routed)),
            wide=6,
        ),
        figure(
            "Truncated",
            "Share of answers whose texts were not read completely. High: texts are longer than the checkpoints' "
            "windows; use `truncation: chunk`, or a checkpoint with a longer window.",
            "percentunit",
            Query(
                share(
                    total("punctual_truncated_requests_total", selector=CHECKPOINT, window=window),
                    total("punctual_requests_total", selector=f"{CHECKPOINT},{ANSWERED}", window=window),
                )
            ),
            wide=6,
        ),
        figure(
            "Dispatches a choice",
            "How often a chosen request was sent to a replica. Above 1: replicas were lost, and their requests were "
            "sent again; see Replicas. Below 1: some requests ended while they were queued.",
            "none",
            Query(share(total("punctual_request_attempts_total", selector=CHECKPOINT, window=window), routed)),
            (Limit(None, "green"), Limit(1.01, "orange")),
            wide=6,
            decimals=3,
        ),
    )


def _choices() -> tuple[PanelBuilder, ...]:
    return (
        lines(
            "Reasons",
            "Choices a second by reason. Fits: the best in time. Congestion: a better one fits an idle gateway. "
            "At-risk, best-effort: none fits, the fastest was taken. Pinned, only-candidate: there was no choice.",
            "reqps",
            Query(total(ROUTED, "reason", CHECKPOINT), "{{reason}}"),
            stacked=True,
        ),
        lines(
            "Verdicts on candidates",
            "Verdicts of decisions on candidates, a second. Too-slow: not in time even when idle. Congested: in time "
            "only without the queue. Too-dear: it gains less quality than its capacity price. Unavailable: no healthy "
            "replica.",
            "reqps",
            Query(total("punctual_candidate_verdicts_total", "verdict", OF_CANDIDATE), "{{verdict}}"),
            stacked=True,
        ),
        lines(
            "Capacity price",
            "Price of a core-second in points of quality. It rises with queued requests, and the most expensive "
            "checkpoints are given up first. Spikes are bursts; steadily above 0: add replicas.",
            "none",
            Query(f"max by (task) (punctual_congestion_price{{{TASK}}})", "{{task}}"),
        ),
        lines(
            "Candidates refused, by checkpoint",
            "Share of the decisions with a checkpoint as a candidate in which it did not fit: too slow, congested, too "
            "dear or down. Near 1 for long: it serves nobody; its budgets, its profile or its replicas are wrong.",
            "percentunit",
            Query(
                share(
                    _verdicts("too-slow|congested|too-dear|unavailable"),
                    _verdicts("fits|too-slow|congested|too-dear|unavailable"),
                ),
                NAME,
            ),
            most=1,
            wide=12,
        ),
        lines(
            "Choices by checkpoint",
            "Requests routed to each checkpoint a second, whatever their outcome.",
            "reqps",
            Query(total(ROUTED, OF_CHECKPOINT, CHECKPOINT), NAME),
            stacked=True,
            wide=12,
        ),
    )


def _forecasts() -> tuple[PanelBuilder, ...]:
    return (
        lines(
            "Coverage and its nominal share",
            "Share of answers at or under their forecast quantile, and the share that clients asked for, over five "
            "minutes. They should agree. Under: late answers. Over: better checkpoints were passed over needlessly.",
            "percentunit",
            Query(f"checkpoint:punctual_coverage:ratio_rate5m{{{CHECKPOINT}}}", f"{NAME} covered"),
            Query(f"checkpoint:punctual_nominal:ratio_rate5m{{{CHECKPOINT}}}", f"{NAME} nominal"),
            most=1,
        ),
        lines(
            "Latency by median forecast",
            "Half of the answers should be under 1, half over. p95 far above: service times vary more than profiled.",
            "none",
            Query(quantile(0.5, FORECAST, OF_CHECKPOINT), f"{NAME} p50"),
            Query(quantile(0.95, FORECAST, OF_CHECKPOINT), f"{NAME} p95"),
            limits=(Limit(None, "green"), Limit(1, "green")),
        ),
        heat(
            "Latency by median forecast, all",
            "Where latencies lie against their median forecasts. Two bands: two kinds of requests share one forecast.",
            "none",
            total(f"{FORECAST}_bucket", "le", CHECKPOINT),
            wide=8,
        ),
    )


def _losses() -> tuple[PanelBuilder, ...]:
    refused = f"{TASK},{REFUSED}"
    return (
        lines(
            "Refused",
            "Share of offered requests that are refused, by reason. Infeasible: budgets too short even for an idle "
            "gateway. Shed: overload. Unavailable: no healthy replica that the headers allow.",
            "percentunit",
            Query(
                f"{total('punctual_requests_total', 'task, outcome', refused)} / on (task) group_left () "
                f"({total('punctual_requests_total', 'task', f'{TASK},{OFFERED}')} > 0)",
                "{{task}} {{outcome}}",
            ),
            limits=falling(0.02, 0.1),
            wide=8,
        ),
        lines(
            "Degraded and truncated",
            "Choices below the best that the headers allow, and answers whose texts were not read completely, a "
            "second.",
            "reqps",
            Query(total("punctual_degraded_requests_total", "task", CHECKPOINT), "{{task}} degraded"),
            Query(total("punctual_truncated_requests_total", "task", CHECKPOINT), "{{task}} truncated"),
            wide=8,
        ),
        lines(
            "Why summaries ended",
            "Stop: the summary was finished. Length: it reached its most tokens. Deadline: it was cut off in time; "
            "many of them mean budgets too tight for abstractive summaries.",
            "reqps",
            Query(total("punctual_summaries_total", "finish_reason", CHECKPOINT), "{{finish_reason}}"),
            stacked=True,
            wide=8,
        ),
        lines(
            "Internal faults",
            "The gateway's own errors a second, by part. No request failed because of them. Any: the gateway's log "
            "names the first of each kind; see PunctualInternalFaults in the runbook.",
            "cps",
            Query(f"sum by (part) (rate(punctual_internal_faults_total{{{GATEWAY}}}[$__rate_interval]))", "{{part}}"),
            stacked=True,
            wide=24,
        ),
    )


def _verdicts(which: str) -> str:
    return total("punctual_candidate_verdicts_total", "task, checkpoint", f'{OF_CANDIDATE},verdict=~"{which}"')
