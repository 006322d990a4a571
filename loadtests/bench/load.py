"""`punctual bench load`: open-loop load of one kind of request on a running gateway, and the outcomes."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.model.request import CHECKPOINT, MODE
from loadtests import options
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.offered_load import Ending, LoadReport, LoadSettings, offer, summarised
from loadtests.sentences import classify_body, shuffled_texts


def command(
    rate: Annotated[float, typer.Option(parser=options.positive, help="requests a second, Poisson arrivals")],
    seconds: Annotated[float, typer.Option(parser=options.positive)],
    url: Annotated[str, typer.Option()] = "http://127.0.0.1:8000/classify",
    budget_ms: Annotated[float | None, typer.Option(parser=options.positive, help="sent as X-Latency-SLA-Ms")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="pin requests to this checkpoint")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="refuse requests that cannot be in time")] = False,
    seed: Annotated[int, typer.Option(help="of the arrivals")] = LoadSettings.seed,
    json: options.Json = None,
) -> None:
    """Offers open-loop load to a running gateway."""
    headers = {CHECKPOINT: checkpoint} if checkpoint else {}
    if strict:
        headers[MODE] = "strict"
    settings = LoadSettings(rate, seconds, budget_ms, seed, headers=headers)
    with options.console.status(f"offering {rate:g} requests/s for {seconds:g} s"):
        report = measure(url, settings)
    raise typer.Exit(present(report, options.console, json=json))


def measure(url: str, settings: LoadSettings) -> Report:
    """Offers the held-out sentences in turn to one URL and waits until every request has ended. Blocking."""
    shots = offer(url, [classify_body(text) for text in shuffled_texts()], settings)
    return report_of(summarised(shots, settings))


def report_of(load: LoadReport) -> Report:
    """Endings, latency of the answers, and whether the generator sent on time."""
    settings = load.settings
    rows: list[tuple[str, str, str]] = []
    for ending, count in load.endings.items():
        rows.append((ending, str(count), f"{count / max(load.offered, 1):.2%}"))
        details = {Ending.REFUSED: load.refused, Ending.FAILED: load.failed}.get(ending, {})
        rows += [(f"  {detail}", str(times), "") for detail, times in details.items()]
    budget = "" if settings.budget_ms is None else f", budget {settings.budget_ms:g} ms"
    remarks = [f"SLA attainment {load.attainment:.2%}, goodput {load.goodput:.1f}/s"]
    if load.latency:
        remarks.append(f"latency of the answers, from the intended send time: {load.latency}")
    if load.checkpoints:
        remarks.append("answered by: " + ", ".join(f"{name} {count}" for name, count in load.checkpoints.items()))
    lag = f"the generator sent late by {load.lag}" if load.lag else "nothing was offered"
    validity = f"{'valid' if load.valid else 'NOT VALID'}: {lag}; p99 may be {settings.lag_bound_s * 1000:g} ms"
    return Report(
        tables=[Table(f"{settings.rate:g} requests/s offered{budget}", ("ending", "requests", "share"), rows)],
        document={**vars(load), "attainment": load.attainment, "goodput": load.goodput, "valid": load.valid},
        verdicts=[Verdict(validity, load.valid)],
        remarks=remarks,
    )
