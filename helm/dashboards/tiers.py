"""The Tiers dashboard: how fast each checkpoint and tier answers, against its profile and budgets, and its cost."""

from __future__ import annotations

from helm.dashboards.board import Board, Row
from helm.dashboards.panels import Column, PanelBuilder, Query, heat, lines, listing
from helm.dashboards.words import (
    ANSWERED,
    CHECKPOINT,
    OF_CHECKPOINT,
    TIER,
    TIER_COLOURS,
    Limit,
    falling,
    mean,
    quantile,
    total,
)

OF_ANSWERED = f"{CHECKPOINT},{ANSWERED}"
NAME = "{{task}} {{checkpoint}} ({{tier}})"
RATIO = "punctual_request_latency_budget_ratio"


def tiers() -> Board:
    """Makes the dashboard that compares checkpoints and tiers."""
    return Board(
        "punctual-tiers",
        "Punctual: Tiers compared",
        "How fast each checkpoint and tier answers, against its latency profile and its budgets, and what that costs.",
        ("task", "tier", "checkpoint"),
        (
            Row("Side by side", (_side_by_side(),)),
            Row("How fast is each?", _latencies()),
            Row("Do answers fit their budgets?", _budgets()),
            Row("Where does the time go?", _spans()),
            Row("What does it cost?", _costs()),
        ),
    )


def _side_by_side() -> PanelBuilder:
    by, window = OF_CHECKPOINT, "$window"
    latency = "punctual_request_latency_seconds"
    worn = (Limit(None, "green"), Limit(1.3, "orange"), Limit(2, "red"))
    return listing(
        "Checkpoints",
        "One row for each checkpoint over the window. Quality is the utility of an answer in time. Slowdown is live "
        "service time divided by the profile's: far above 1, other work uses its cores, or the host is not the "
        "one profiled (`punctual profile` measures it again). An empty cell: it answered nothing.",
        (),
        Column("quality", f"max by ({by}) (punctual_checkpoint_quality{{{CHECKPOINT}}})", "none"),
        Column("answers/s", total("punctual_requests_total", by, OF_ANSWERED, window), "reqps"),
        Column("p50", quantile(0.5, latency, by, window=window), "s"),
        Column("p95", quantile(0.95, latency, by, window=window), "s"),
        Column("p99", quantile(0.99, latency, by, window=window), "s"),
        Column("p95 of budget", quantile(0.95, RATIO, by, window=window), "percentunit", falling(0.9, 1)),
        Column("slowdown", f"max by ({by}) (punctual_checkpoint_pace_ratio{{{CHECKPOINT}}})", "none", worn),
        Column("core-s an answer", f"checkpoint:punctual_cost_per_answer_seconds:rate5m{{{CHECKPOINT}}}", "s"),
        Column(
            "padding waste",
            f"checkpoint:punctual_padding_waste:ratio_rate5m{{{CHECKPOINT}}}",
            "percentunit",
            falling(0.3, 0.5),
        ),
    )


def _latencies() -> tuple[PanelBuilder, ...]:
    of_checkpoints = tuple(
        lines(
            f"Latency of checkpoints, {q}",
            f"Arrival to answer; {part} of answers are faster. Higher than usual with slowdown at 1: requests wait; "
            "see queueing delay. With slowdown above 1: the engine is slower than when it was profiled.",
            "s",
            Query(f"checkpoint:punctual_latency_seconds:{q}_rate1m{{{CHECKPOINT}}}", NAME),
        )
        for q, part in (("p50", "half"), ("p95", "95 %"), ("p99", "99 %"))
    )
    slowdown = lines(
        "Slowdown: live against profile",
        "Live service time divided by the latency profile's, as the forecasts have learnt it. 1 is as profiled. "
        "Steadily above 1.3: find what else uses the cores, or profile this host again.",
        "none",
        Query(f"max by ({OF_CHECKPOINT}) (punctual_checkpoint_pace_ratio{{{CHECKPOINT}}})", NAME),
        limits=(Limit(None, "green"), Limit(1.3, "red")),
        wide=12,
    )
    of_tiers = lines(
        "Latency of tiers, p95",
        "Arrival to answer by tier: 95 % of answers are faster. If realtime is not faster than quality, its replicas "
        "are overloaded or down.",
        "s",
        Query(f"tier:punctual_latency_seconds:p95_rate1m{{{TIER}}}", "{{task}} {{tier}}"),
        colours=TIER_COLOURS,
        wide=12,
    )
    return (*of_checkpoints, of_tiers, slowdown)


def _budgets() -> tuple[PanelBuilder, ...]:
    at_budget = (Limit(None, "green"), Limit(1, "red"))
    return (
        heat(
            "Latency by budget",
            "Latencies divided by their budgets; over 1 is late. A band just under 1: the gateway uses its budgets "
            "well. A band over 1: forecasts promise too much; see Decisions.",
            "percentunit",
            total(f"{RATIO}_bucket", "le", CHECKPOINT),
        ),
        *(
            lines(
                f"Latency by budget, {q}",
                f"{part} of answers use less of their budgets than this. Over the line they are late.",
                "percentunit",
                Query(quantile(share_of, RATIO, OF_CHECKPOINT), NAME),
                limits=at_budget,
                most=1,
                wide=6,
            )
            for q, part, share_of in (("p50", "Half", 0.5), ("p95", "95 %", 0.95))
        ),
    )


def _spans() -> tuple[PanelBuilder, ...]:
    spans = (
        (
            "queueing_delay",
            "Queueing delay",
            "Mean wait for a batch. Grows when more is offered than the cores can do: add replicas.",
        ),
        ("service_time", "Service time", "Mean time in the engine. Grows with longer texts and larger batches."),
        (
            "overhead",
            "Overhead",
            "Mean time that is neither waiting nor engine: parsing, deciding, transport. More than a few milliseconds: "
            "the gateway process itself lacks a core.",
        ),
    )
    return tuple(
        lines(title, meaning, "s", Query(mean(f"punctual_request_{name}_seconds", OF_CHECKPOINT), NAME))
        for name, title, meaning in spans
    )


def _costs() -> tuple[PanelBuilder, ...]:
    size = "punctual_replica_batch_size"
    return (
        lines(
            "Batch size",
            "Mean inputs of a batch; with time slicing, texts that shared it. Near 1 under load: requests differ too "
            "much in length or budget to be run together.",
            "none",
            Query(mean(size, OF_CHECKPOINT), NAME),
            wide=6,
        ),
        lines(
            "Padding waste",
            "Share of the computed tokens that are padding. Above half on a busy engine: batches mix short texts with "
            "long ones; see PunctualPaddingWaste in the runbook.",
            "percentunit",
            Query(f"checkpoint:punctual_padding_waste:ratio_rate5m{{{CHECKPOINT}}}", NAME),
            limits=falling(0.3, 0.5),
            most=1,
            wide=6,
        ),
        lines(
            "Cost of an answer",
            "Core-seconds of engine for each answer, over five minutes: how much more a better checkpoint costs. Use "
            "it to size a deployment.",
            "s",
            Query(f"checkpoint:punctual_cost_per_answer_seconds:rate5m{{{CHECKPOINT}}}", NAME),
            wide=6,
        ),
        lines(
            "Tokens",
            "Tokens read and written a second. Cost follows tokens: a jump without more requests is longer texts.",
            "none",
            Query(total("punctual_input_tokens_total", "task", CHECKPOINT), "{{task}} in"),
            Query(total("punctual_output_tokens_total", "task", CHECKPOINT), "{{task}} out"),
            wide=6,
        ),
    )
