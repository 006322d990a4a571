"""The Replicas dashboard: which replicas are up, what waits at each, how busy their engines are, and their checks."""

from __future__ import annotations

from helm.dashboards.board import Board, Row
from helm.dashboards.panels import Column, PanelBuilder, Query, figure, lines, listing
from helm.dashboards.words import CHECKPOINT, GATEWAY, NONE, TASK, Limit, falling, share, total

EACH = "checkpoint, replica"
NAME = "{{checkpoint}} {{replica}}"


def replicas() -> Board:
    """Makes the dashboard of all processes of the application."""
    return Board(
        "punctual-replicas",
        "Punctual: Replicas",
        "Which replicas are up, what waits at each, how busy their engines are, and what their checks found.",
        ("task", "tier", "checkpoint"),
        (
            Row("Is everything up?", (*_standing(), *_by_process())),
            Row("What waits?", _waiting()),
            Row("What do engines do with their time?", _work()),
            Row("What went wrong?", _faults()),
            Row("What is running?", _identity()),
        ),
    )


def _standing() -> tuple[PanelBuilder, ...]:
    up = (Limit(None, "red"), Limit(1, "green"))
    return (
        figure(
            "Processes that answer scrapes",
            "Share of the processes of the application that answered in time. Below 100 %: one is stuck, "
            "gone, or its host is starved; 'Answered this scrape' names it.",
            "percentunit",
            Query(f"sum(punctual_replica_up{{{GATEWAY}}}) / count(punctual_replica_up{{{GATEWAY}}})"),
            up,
            wide=6,
            decimals=0,
        ),
        figure(
            "Checkpoints with no replica",
            "Checkpoints without a replica that a gateway is connected to. Above 0: others answer in their place.",
            "none",
            Query(f"sum(max by (task, checkpoint) (punctual_checkpoint_replicas_up{{{CHECKPOINT}}}) == bool 0)"),
            NONE,
            wide=6,
            decimals=0,
        ),
        figure(
            "Self-tests failed",
            "Checkpoints with a replica that failed its checks since the checkpoint was last healthy. Above 0: the "
            "files differ from the manifest, or this host computes other answers; see the runbook.",
            "none",
            Query(f'sum(punctual_checkpoint_self_test_failed{{{GATEWAY},checkpoint=~"$checkpoint"}}) or vector(0)'),
            NONE,
            wide=6,
            decimals=0,
        ),
        figure(
            "Scrape",
            "How long the processes took to answer the last scrape. At its bound, one of them does not answer.",
            "s",
            Query(f"max(punctual_scrape_duration_seconds{{{GATEWAY}}})"),
            (Limit(None, "green"), Limit(0.5, "orange"), Limit(1, "red")),
            wide=6,
            decimals=3,
        ),
    )


def _by_process() -> tuple[PanelBuilder, ...]:
    return (
        lines(
            "Replicas up and expected",
            "Replicas that a gateway is connected to, and those of the catalog. Apart for more than a minute: "
            "one died and does not come back; its log says why.",
            "none",
            Query(f"max by (checkpoint) (punctual_checkpoint_replicas_up{{{CHECKPOINT}}})", "{{checkpoint}} up"),
            Query(
                f"max by (checkpoint) (punctual_checkpoint_replicas_expected{{{CHECKPOINT}}})",
                "{{checkpoint}} expected",
            ),
        ),
        lines(
            "Answered this scrape",
            "1 where a process answered in time, 0 where it did not. Requests may still reach one at 0.",
            "none",
            Query(f"min by (deployment, replica) (punctual_replica_up{{{GATEWAY}}})", "{{deployment}} {{replica}}"),
        ),
        listing(
            "Deployments",
            "The state that Ray Serve sees each deployment in. Unhealthy or deploy_failed: replicas do not start; "
            "`serve status` and the replica's log say why.",
            ("__name__", "instance", "job"),
            Column("in it", f"max by (deployment, state) (punctual_deployment_state{{{GATEWAY}}}) == 1", "none"),
            wide=8,
        ),
    )


def _waiting() -> tuple[PanelBuilder, ...]:
    return (
        lines(
            "Backlog",
            "Service time queued at the least loaded replica of each checkpoint. Longer than budgets: new requests "
            "are refused or served by others.",
            "s",
            Query(f"max by (checkpoint) (punctual_checkpoint_backlog_seconds{{{CHECKPOINT}}})", "{{checkpoint}}"),
            wide=6,
        ),
        lines(
            "Queued at replicas",
            "Inputs queued in each replica. Few, since requests are queued at the gateway; many at one: it is stuck.",
            "none",
            Query(f"sum by ({EACH}) (punctual_replica_queued_inputs{{{CHECKPOINT}}})", NAME),
            wide=6,
        ),
        lines(
            "Queued at the gateway",
            "Requests that wait for their batch to begin, by task. Grows under overload, with the capacity price.",
            "none",
            Query(f"sum by (task) (punctual_waiting_requests{{{TASK}}})", "{{task}}"),
            wide=6,
        ),
        lines(
            "Underway",
            "Requests in each gateway process now.",
            "none",
            Query(f"sum by (replica) (punctual_requests_underway{{{GATEWAY}}})", "{{replica}}"),
            wide=6,
        ),
    )


def _work() -> tuple[PanelBuilder, ...]:
    busy = total("punctual_replica_busy_seconds_total", EACH, CHECKPOINT)
    return (
        lines(
            "Busy",
            "Engine time a second, by replica: 1 is one batch at a time without a pause. All near their number of "
            "slots: add replicas.",
            "percentunit",
            Query(busy, NAME),
        ),
        lines(
            "Wasted compute",
            "Share of engine time for answers that were late, failed, or whose caller had left. Above a tenth: "
            "forecasts or clients' time-outs are wrong; see PunctualWastedCompute.",
            "percentunit",
            Query(share(total("punctual_replica_wasted_seconds_total", EACH, CHECKPOINT), busy), NAME),
            limits=falling(0.05, 0.1),
        ),
        lines(
            "Memory",
            "Resident memory of each replica. If it never stops rising, it is a leak: restart it and report.",
            "bytes",
            Query(f"max by ({EACH}) (punctual_replica_memory_bytes{{{CHECKPOINT}}})", NAME),
        ),
    )


def _faults() -> tuple[PanelBuilder, ...]:
    faults = (
        ("expired", "Expired", "Strict inputs whose deadline passed while they were queued: they were not run."),
        ("cancelled", "Cancelled", "Inputs whose callers left. Many: clients give up before their budgets end."),
        (
            "engine_failures",
            "Engine failures",
            "Batches or texts that failed in the engine. Any: read the replica's log; see PunctualEngineFails in the "
            "runbook.",
        ),
    )
    return tuple(
        lines(
            title,
            meaning,
            "cps",
            Query(total(f"punctual_replica_{name}_total", EACH, CHECKPOINT), NAME),
        )
        for name, title, meaning in faults
    )


def _identity() -> tuple[PanelBuilder, ...]:
    by = f"task, tier, {EACH}"
    return (
        listing(
            "Replicas",
            "One row for each replica: how long it runs, whether it passed its self-test, and how well its variant "
            "agrees with its source, by its manifest.",
            (),
            Column("up for", f"time() - max by ({by}) (punctual_replica_start_time_seconds{{{CHECKPOINT}}})", "s"),
            Column("self-test", f"max by ({by}) (punctual_replica_self_test_passed{{{CHECKPOINT}}})", "bool_yes_no"),
            Column(
                "agreement",
                f"max by ({by}) (punctual_replica_self_test_agreement_ratio{{{CHECKPOINT}}})",
                "percentunit",
            ),
            Column("memory", f"max by ({by}) (punctual_replica_memory_bytes{{{CHECKPOINT}}})", "bytes"),
            wide=16,
        ),
        listing(
            "Build",
            "The version and catalog of each gateway process. More than one version: an upgrade is under way or stuck.",
            ("__name__", "instance", "job"),
            Column("processes", f"count by (version, catalog) (punctual_build_info{{{GATEWAY}}})", "none"),
            wide=8,
        ),
    )
