"""The Overview dashboard: whether promises are kept, which tier answers, why quality dropped, and what to do."""

from __future__ import annotations

from helm.dashboards.board import Board, Row
from helm.dashboards.panels import Column, PanelBuilder, Query, figure, lines, listing, words
from helm.dashboards.words import (
    ANSWERED,
    ATTAINMENT_LIMITS,
    CAUSE_COLOURS,
    NONE,
    OFFERED,
    OUTCOME_COLOURS,
    REFUSED,
    RUNBOOK,
    TASK,
    TIER,
    TIER_COLOURS,
    Limit,
    falling,
    share,
    total,
)

IN_TIME = f'{TASK},outcome="in_time"'
ALL_OFFERED = f"{TASK},{OFFERED}"
REQUESTS = "punctual_requests_total"
FIRING = 'ALERTS{alertname=~"Punctual.*",alertstate="firing",instance=~"$instance|"}'

WHAT_TO_DO = f"""
| you see | it is | do |
|---|---|---|
| replicas up below expected | replicas died, or failed their self-test | *Replicas*; the log of what is down |
| refused, price steadily above 0, backlog | more offered than can be served | add replicas, or shed at the client |
| infeasible | budgets too short even for an idle gateway | read `min_feasible_ms` of the refusal; talk to the client |
| late, nothing refused, slowdown above 1 | engines slower than profiled | *Tiers compared*; what else runs there |
| late, coverage under nominal | forecasts promise too much | *Decisions*: calibration; profile the host again |
| lost to a lesser checkpoint, price 0 | tight budgets, or the best is down | *Decisions*: verdicts of candidates |

Each alert has its section in the [runbook]({RUNBOOK}).
"""


def overview() -> Board:
    """Makes the dashboard to look at first after an alert."""
    return Board(
        "punctual-overview",
        "Punctual: Overview",
        "Whether promises are kept, which tier answers, why quality dropped, and what to do.",
        ("task", "tier"),
        (
            Row("Now", _now()),
            Row("Are promises kept?", _promises()),
            Row("Which tier answers?", _tiers()),
            Row("Why did quality drop?", _causes()),
            Row("What to do", (_alerts(), words("If you see ...", WHAT_TO_DO, wide=14, high=9))),
        ),
    )


def _now() -> tuple[PanelBuilder, ...]:
    return (*_kept(), *_pressed())


def _kept() -> tuple[PanelBuilder, ...]:
    offered = total(REQUESTS, selector=ALL_OFFERED, window="$window")
    return (
        figure(
            "Attainment",
            "Share of offered requests that were answered in time, over the window. Green: the objective is met. Red: "
            "look below for the largest cause, then at what to do.",
            "percentunit",
            Query(share(total(REQUESTS, selector=IN_TIME, window="$window"), offered)),
            ATTAINMENT_LIMITS,
            decimals=2,
        ),
        figure(
            "Burn rate, 1 h",
            "Rate of requests not in time, divided by what the objective allows; the worst task. At 1 the whole "
            "allowance is used; 6 and 14.4 raise alerts.",
            "none",
            Query(
                f"max((1 - task:punctual_attainment:ratio_rate1h{{{TASK}}}) / on () group_left () "
                "(1 - global:punctual_attainment_objective:ratio))"
            ),
            falling(1, 6),
            wide=3,
        ),
        figure(
            "Effective quality",
            "Mean quality over offered requests, with 0 for late or refused ones, as a share of the best "
            "checkpoint's; the worst task. If it falls, 'Why did quality drop?' shows the cause.",
            "percentunit",
            Query(
                f"min(task:punctual_effective_quality:rate1m{{{TASK}}} "
                f"/ (task:punctual_best_quality:max{{{TASK}}} > 0))"
            ),
            (Limit(None, "red"), Limit(0.7, "orange"), Limit(0.85, "green")),
        ),
        figure(
            "Goodput",
            "Answers in time a second, over the window. Falls with attainment, or because less is offered.",
            "reqps",
            Query(total(REQUESTS, selector=IN_TIME, window="$window")),
            wide=3,
        ),
    )


def _pressed() -> tuple[PanelBuilder, ...]:
    offered = total(REQUESTS, selector=ALL_OFFERED, window="$window")
    refused = total(REQUESTS, selector=f"{TASK},{REFUSED}", window="$window")
    up, expected = (
        f"sum(max by (task, checkpoint) (punctual_checkpoint_replicas_{of}{{{TASK}}}))" for of in ("up", "expected")
    )
    return (
        figure(
            "Refused",
            "Share of offered requests that are refused before work: infeasible budgets, overload, nothing up. "
            "'What came of requests' shows which.",
            "percentunit",
            Query(share(refused, offered)),
            falling(0.02, 0.1),
            wide=3,
        ),
        figure(
            "Capacity price",
            "Price of a core-second in points of quality, of the dearest task. 0: every request gets the best "
            "checkpoint that fits it. Above: requests queue, and lesser checkpoints answer so that more are in time.",
            "none",
            Query(f"max(punctual_congestion_price{{{TASK}}})"),
            wide=3,
        ),
        figure(
            "Replicas up",
            "Share of the replicas of the catalog that a gateway is connected to. Below 100 %: see Replicas.",
            "percentunit",
            Query(f"{up} / {expected}"),
            (Limit(None, "red"), Limit(0.5, "orange"), Limit(1, "green")),
            wide=2,
            decimals=0,
        ),
        figure(
            "Alerts",
            "Alerts of Punctual that fire now. 'What to do' lists them; the runbook has a section for each.",
            "none",
            Query(f"count({FIRING}) or vector(0)"),
            NONE,
            wide=2,
            decimals=0,
        ),
    )


def _promises() -> tuple[PanelBuilder, ...]:
    return (
        lines(
            "Attainment against its objective",
            "Share of offered requests answered in time, each minute, by task, and the objective. A task under the "
            "line for long raises PunctualAttainmentBurns...; a gap means that nothing was offered.",
            "percentunit",
            Query(f"task:punctual_attainment:ratio_rate1m{{{TASK}}}", "{{task}}"),
            Query("global:punctual_attainment_objective:ratio", "objective"),
            colours={"objective": "red"},
            most=1,
        ),
        lines(
            "What came of requests",
            "Requests that ended, a second, by outcome. Late and expired: work took longer than forecast. Shed: "
            "overload. Infeasible: budgets too tight. Unavailable and failed: replicas. Cancelled: clients left.",
            "reqps",
            Query(total(REQUESTS, "outcome"), "{{outcome}}"),
            colours=OUTCOME_COLOURS,
            stacked=True,
        ),
        lines(
            "Offered and in time",
            "Requests offered a second and those answered in time, by task. The gap is what was not in time.",
            "reqps",
            Query(f"task:punctual_offered:rate1m{{{TASK}}}", "{{task}} offered"),
            Query(f"task:punctual_goodput:rate1m{{{TASK}}}", "{{task}} in time"),
        ),
    )


def _tiers() -> tuple[PanelBuilder, ...]:
    latency = "latency_seconds"
    by_tier = lines(
        "Latency, $tier",
        "Latency of this tier's answers, by task: half, 95 % and 99 % of them are faster. Compare the tiers side by "
        "side: quality may be slow, as long as attainment holds.",
        "s",
        *(
            Query(f"tier:punctual_{latency}:{q}_rate1m{{{TIER}}}", f"{{{{task}}}} {{{{tier}}}} {q}")
            for q in ("p50", "p95", "p99")
        ),
        wide=24,
    )
    by_tier.repeat("tier").repeat_direction("h").max_per_row(3)
    return (
        lines(
            "Answers by tier",
            "Answers a second, in time or late, by tier. If realtime takes over from quality, budgets are tight, the "
            "capacity price is above 0, or a quality checkpoint is down.",
            "reqps",
            Query(total(REQUESTS, "tier", f"{TIER},{ANSWERED}"), "{{tier}}"),
            colours=TIER_COLOURS,
            stacked=True,
            wide=12,
        ),
        lines(
            "Answers by checkpoint",
            "Share of each task's answers by checkpoint. The usual shares depend on the budgets; look into a sudden "
            "change.",
            "percentunit",
            Query(
                f"sum by (task, checkpoint) (rate({REQUESTS}{{{TIER},{ANSWERED}}}[$__rate_interval])) "
                f"/ on (task) group_left () (sum by (task) (rate({REQUESTS}{{{TIER},{ANSWERED}}}"
                "[$__rate_interval])) > 0)",
                "{{task}} {{checkpoint}}",
            ),
            most=1,
            wide=12,
        ),
        by_tier,
    )


def _causes() -> tuple[PanelBuilder, ...]:
    return (
        lines(
            "Points of quality, and where they went",
            "Effective quality, and the loss by each cause from the best checkpoint's, averaged over tasks by offered "
            "requests. Late: too slow. Refused: turned away. Failed: engines, or clients that left. Lesser "
            "checkpoint: in time, but not from the best: tight budgets, a price, or a domain of its own.",
            "none",
            Query(_over_tasks("task:punctual_effective_quality:rate1m"), "effective quality"),
            *(
                Query(_over_tasks("task:punctual_quality_lost:rate1m", f'cause="{cause}"'), cause)
                for cause in ("lesser checkpoint", "late", "refused", "failed")
            ),
            colours=CAUSE_COLOURS,
            stacked=True,
            most=100,
            wide=12,
        ),
        lines(
            "Why each checkpoint was chosen",
            "Choices a second by reason. Fits: the best in time. Congestion: a better one would fit an idle gateway. "
            "Best-effort and at-risk: none fits. Many of these: budgets are too tight or replicas too few.",
            "reqps",
            Query(total("punctual_routed_requests_total", "reason"), "{{reason}}"),
            stacked=True,
            wide=6,
        ),
        lines(
            "Capacity price and queued requests",
            "Price of a core-second in points of quality, and requests that wait for a batch. Both rise "
            "together when more is offered than the cores can do: add replicas.",
            "none",
            Query(f"max by (task) (punctual_congestion_price{{{TASK}}})", "{{task}} price"),
            Query(f"sum by (task) (punctual_waiting_requests{{{TASK}}})", "{{task}} queued"),
            wide=6,
        ),
    )


def _alerts() -> PanelBuilder:
    return listing(
        "Alerts that fire",
        "One row for each alert that fires, with its labels; the runbook has a section of its name. One row of 0: "
        "nothing fires.",
        ("__name__", "alertstate"),
        Column("firing", f"sum by (alertname, severity, task, checkpoint) ({FIRING}) or vector(0)", "none", NONE),
        wide=10,
        high=9,
    )


def _over_tasks(recorded: str, selector: str = "") -> str:
    weight = f"task:punctual_offered:rate1m{{{TASK}}}"
    labels = ",".join(filter(None, (TASK, selector)))
    return f"sum({recorded}{{{labels}}} * on (task) group_left () {weight}) / (sum({weight}) > 0)"
