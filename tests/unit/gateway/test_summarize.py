"""`/summarize` as a client meets it: which checkpoint answers, what comes back, and how it is counted."""

from __future__ import annotations

import re
from dataclasses import replace

import httpx
import pytest
from fake_summaries import (
    DOMAIN,
    GLANCE,
    OUTPUT_TOKENS,
    PAGE,
    SCRIBE,
    STUDY,
    as_each,
    generation,
    summary,
)
from fakes import EVEN, TERMS
from prometheus_client.parser import text_string_to_metric_families
from worlds import OwnMetrics, World, client_of, gateway, is_problem, strict, summarizing, took

from gateway.catalogs.catalog import Limits
from gateway.model.messages import FinishReason, Generation
from gateway.model.outcome import Outcome
from gateway.model.tier import Tier
from gateway.scheduling.policy import Verdict
from gateway.service import Service
from gateway.tasks.summarize import SummarizeParameters

pytestmark = pytest.mark.virtual_time

BODY = {"inputs": PAGE}
SECRET = "SECRET"


def kinds(*how: Generation, limits: Limits | None = None) -> tuple[World, httpx.AsyncClient]:
    """Return a gateway over all kinds of checkpoints that gives such summaries, and a client of it."""
    told = summarizing(as_each(summary(*how or (generation(),))), limits)
    return told, client_of(told)


def for_domain(domain: str | None = DOMAIN) -> dict[str, object]:
    """Return a page to summarise with that domain."""
    return {**BODY, "parameters": {"domain": domain}}


@pytest.mark.parametrize(("budget_s", "chosen"), [(0.060, GLANCE), (10.0, STUDY), (600.0, STUDY)])
async def test_the_budget_decides_how_well_a_page_is_summarised(budget_s: float, chosen: str) -> None:
    """A page with 60 ms gets the realtime tier and one with 10 s the quality tier, both in time."""
    told = summarizing()
    finished = await told.service.handle(told.page(replace(TERMS, budget_s=budget_s)))
    assert finished.record.checkpoint == chosen
    assert finished.record.tier == (Tier.REALTIME if chosen == GLANCE else Tier.QUALITY)
    assert (finished.record.task, finished.record.outcome, finished.record.reason) == (
        "summarize",
        Outcome.IN_TIME,
        "fits",
    )
    assert finished.record.degraded == (chosen == GLANCE)


@pytest.mark.parametrize(("domain", "chosen"), [(None, STUDY), ("law", STUDY), ("Software", STUDY), (DOMAIN, SCRIBE)])
async def test_a_domains_checkpoint_answers_who_names_the_domain(domain: str | None, chosen: str) -> None:
    """A checkpoint with a domain answers only requests that name that domain, although it is the best."""
    _, client = kinds()
    response = await client.post("/summarize", json=for_domain(domain))
    assert response.headers["X-Checkpoint"] == chosen
    document = (await client.post("/route", json={"task": "summarize", **for_domain(domain)})).json()
    assert document["checkpoint"] == chosen
    verdicts = {one["checkpoint"]: one["verdict"] for one in document["candidates"]}
    assert set(verdicts) == {GLANCE, STUDY, SCRIBE}
    assert (verdicts[SCRIBE] == Verdict.OTHER_DOMAIN) == (chosen != SCRIBE)


async def test_a_pin_needs_no_domain() -> None:
    """A pinned checkpoint answers whatever the domain of the request."""
    _, client = kinds()
    pinned = {"X-Checkpoint": SCRIBE}
    for body in (BODY, for_domain("law")):
        assert (await client.post("/summarize", json=body, headers=pinned)).headers["X-Checkpoint"] == SCRIBE
        document = (await client.post("/route", json={"task": "summarize", **body}, headers=pinned)).json()
        assert (document["checkpoint"], document["reason"]) == (SCRIBE, "pinned")
    assert is_problem(
        await client.post("/summarize", json=BODY, headers={"X-Checkpoint": EVEN}), "unknown_checkpoint", 404
    )


async def test_a_domain_without_its_checkpoint_up_is_served_by_the_others() -> None:
    """A request that names a domain is answered by another checkpoint while that domain's is down."""
    told, client = kinds()
    told.down(SCRIBE)
    assert (await client.post("/summarize", json=for_domain())).headers["X-Checkpoint"] == STUDY


async def test_a_summary_is_the_hub_apis_and_its_headers_tell_the_rest() -> None:
    """The body has one summary for each text; the headers give the finish reason, the steps and the tokens."""
    told, client = kinds()
    response = await client.post("/summarize", json={"inputs": "One thing. Another."})
    assert response.status_code == 200 and response.json() == [{"summary_text": "In short."}]
    assert (response.headers["X-Finish-Reason"], response.headers["X-Latency-SLA-Ms"]) == ("stop", "10000")
    timing = response.headers["Server-Timing"]
    assert 'infer;dur=2;desc="6 steps 5 tokens", total;' in timing
    assert re.findall(r"(\w+);dur=", timing) == ["route", "queue", "infer", "total", "predicted"]
    assert told.backend.dispatches[0].work.parameters == SummarizeParameters()


async def test_details_tell_how_each_summary_came_about() -> None:
    """With ?details=true the body says of each summary how it was written, with durations in milliseconds."""
    how = Generation("deadline", 7, 3, 2, 30, 4, -0.0125, lead=True)
    _, client = kinds(generation("length", 9), how)
    document = (await client.post("/summarize?details=true", json={"inputs": ["One.", "Two."]})).json()
    assert set(document) == {"outputs", "routing", "timings_ms", "input", "ignored", "generation"}
    assert document["outputs"] == [{"summary_text": "In short."}] * 2
    assert document["generation"][1] == {
        "finish_reason": "deadline",
        "steps": 7,
        "tokens": 3,
        "beams": 2,
        "max_new_tokens": 30,
        "pieces": 4,
        "headroom_ms": -12.5,
        "lead": True,
    }
    assert (document["generation"][0]["finish_reason"], document["generation"][0]["lead"]) == ("length", False)
    classified = (await client.post("/classify?details=true", json=BODY)).json()
    assert "generation" not in classified


@pytest.mark.parametrize(
    ("reasons", "worst"),
    [
        (["stop"], "stop"),
        (["stop", "length"], "length"),
        (["length", "stop", "stop"], "length"),
        (["deadline", "stop"], "deadline"),
        (["stop", "length", "deadline"], "deadline"),
    ],
)
async def test_the_worst_reason_of_several_is_told(reasons: list[FinishReason], worst: str) -> None:
    """The finish reason of several texts is the worst of theirs, and the record sums their steps and tokens."""
    told, client = kinds(*(generation(reason, tokens=5) for reason in reasons))
    response = await client.post("/summarize", json={"inputs": ["A thing."] * len(reasons)})
    assert response.headers["X-Finish-Reason"] == worst
    record = told.kept.records[0]
    assert (record.finish_reason, record.steps, record.output_tokens) == (worst, 6 * len(reasons), 5 * len(reasons))


async def test_nothing_written_has_no_finish() -> None:
    """A classification or a refusal has no finish reason, no steps and no output tokens."""
    told, client = kinds()
    answered = await client.post("/classify", json={"inputs": "a good film"})
    refused = await client.post("/summarize", json=BODY, headers={"X-Latency-SLA-Ms": "1", "X-SLA-Mode": "strict"})
    assert is_problem(refused, "budget_infeasible", 422)
    for response, record in zip((answered, refused), told.kept.records, strict=True):
        assert "X-Finish-Reason" not in response.headers
        assert (record.finish_reason, record.steps, record.output_tokens) == (None, 0, 0)


@pytest.mark.parametrize(
    ("headers", "content", "code", "status", "outcome"),
    [
        ({"X-Latency-SLA-Ms": "0"}, b'{"inputs": "SECRET"}', "invalid_request", 400, Outcome.INVALID),
        ({}, b"SECRET", "invalid_request", 400, Outcome.INVALID),
        ({}, b'{"inputs": "SECRET", "parameters": {"num_beams": 0}}', "invalid_request", 422, Outcome.INVALID),
        (
            {},
            b'{"inputs": "SECRET", "parameters": {"max_new_tokens": 1, "min_new_tokens": 2}}',
            "invalid_request",
            422,
            Outcome.INVALID,
        ),
        ({}, b'{"inputs": ["SECRET", "b", "c"]}', "input_too_long", 413, Outcome.TOO_LONG),
        ({"X-Checkpoint": "nobody"}, b'{"inputs": "SECRET"}', "unknown_checkpoint", 404, Outcome.INVALID),
    ],
)
async def test_a_refusal_is_counted_as_a_summary(
    headers: dict[str, str], content: bytes, code: str, status: int, outcome: Outcome
) -> None:
    """A refused summary is one record and one count under `summarize`; nothing runs and no text is quoted."""
    told, client = kinds(limits=Limits(max_inputs=2))
    response = await client.post("/summarize", content=content, headers=headers)
    assert is_problem(response, code, status)
    assert SECRET not in response.text
    assert [(one.task, one.outcome) for one in told.kept.records] == [("summarize", outcome)]
    assert not told.backend.dispatches
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    requests = next(family for family in families if family.name == "punctual_requests")
    counted = [(one.labels["task"], one.labels["outcome"]) for one in requests.samples if one.value]
    assert counted == [("summarize", outcome.value)]


async def test_a_task_that_nobody_has_is_told_before_its_parameters() -> None:
    """A task without a checkpoint is a 404 that lists the tasks there are, whatever the parameters."""
    told, client = gateway()
    short = {"inputs": "One thing.", "parameters": {"domain": DOMAIN}}
    response = await client.post("/summarize", json=short)
    assert is_problem(response, "unknown_task", 404) and response.json()["tasks"] == ["classify"]
    assert [(one.task, one.outcome) for one in told.kept.records] == [("summarize", Outcome.INVALID)]
    for task in ("summarize", "translate"):
        response = await client.post("/route", json={"task": task, **short})
        assert is_problem(response, "unknown_task", 404)


async def test_strict_refuses_a_page_that_cannot_be_in_time_and_says_what_could() -> None:
    """A strict page refused as infeasible is answered in time with the least budget that the refusal names."""
    told = summarizing()
    finished = await told.service.handle(told.page(strict(0.005), DOMAIN))
    assert finished.problem is not None and finished.problem.code == "budget_infeasible"
    least_ms = finished.problem.members["min_feasible_ms"]
    assert isinstance(least_ms, float)
    again = await told.service.handle(told.page(strict(least_ms / 1000), DOMAIN))
    assert again.record.outcome is Outcome.IN_TIME


@pytest.mark.parametrize("leads", [1, 2])
async def test_an_answer_that_was_not_written_is_none_in_time(leads: int) -> None:
    """An answer with a first sentence standing in has its own outcome: no promise is kept, and no quality counted."""
    how = [generation("deadline", 1, steps=0, lead=True)] * leads + [generation()] * (2 - leads)
    told, client = kinds(*how)
    scrape = OwnMetrics(told.catalog)
    told.service.observers = (told.kept, scrape.metrics)
    response = await client.post("/summarize?details=true", json={"inputs": ["One.", "Two."]})
    assert (response.headers["X-SLA-Met"], response.headers["X-Outcome"]) == ("false", "lead")
    routing = response.json()["routing"]
    assert (routing["sla_met"], routing["outcome"]) == (False, "lead")
    (record,) = told.kept.records
    assert record.outcome is Outcome.LEAD and record.answered and not record.met
    lines = [line for line in scrape.metrics.text().splitlines() if line.startswith("punctual_requests_total{")]
    assert [
        line.endswith(" 1.0") for line in lines if f'"{record.checkpoint}"' in line and 'outcome="lead"' in line
    ] == [True]
    assert not any(line.endswith(" 1.0") for line in lines if 'outcome="in_time"' in line)


async def test_an_answer_that_was_not_written_and_is_late_is_late() -> None:
    """A first sentence standing in that comes after the deadline is late."""
    told = summarizing()
    told.backend.behaviour = took(told, 20.0, summary(generation("deadline", 1, steps=0, lead=True)))
    assert (await told.service.handle(told.page())).record.outcome is Outcome.LATE


async def test_the_gateway_learns_how_long_summaries_are() -> None:
    """After many short summaries the checkpoint is forecast to take less time."""
    told = summarizing()
    terms = replace(TERMS, pinned=SCRIBE, budget_s=10.0)

    async def predicted_s(service: Service) -> float:
        return (await service.handle(told.page(terms))).record.predicted_s or 0.0

    told.backend.behaviour = as_each(summary(generation(tokens=int(OUTPUT_TOKENS / 4), steps=0, max_new_tokens=128)))
    first = await predicted_s(told.service)
    for _ in range(100):
        await predicted_s(told.service)
    assert await predicted_s(told.service) < 0.8 * first


async def test_texts_that_are_their_own_summaries_teach_nothing() -> None:
    """A text that is too short to summarise comes back at once; forecasts of others are as they were."""
    told = summarizing()
    terms = replace(TERMS, pinned=SCRIBE, budget_s=10.0)
    short = generation("short", 1, steps=0, beams=1, max_new_tokens=0)
    told.backend.behaviour = as_each(summary(short, tokens=3, service_time_s=0.0, text="ok"))
    records = [(await told.service.handle(told.page(terms))).record for _ in range(30)]
    assert {(one.outcome, one.finish_reason) for one in records} == {(Outcome.IN_TIME, "short")}
    assert len({one.predicted_s for one in records}) == 1


async def test_every_kind_of_checkpoint_is_told_whole() -> None:
    """`/checkpoints` lists for each kind its own members, and for all the memory of a replica."""
    told, client = kinds()
    told.up(SCRIBE, backlog_s=0.5, sharing=1, memory_bytes=123_456_789)
    told.down(GLANCE)
    listed = {one["name"]: one for one in (await client.get("/checkpoints")).json()["checkpoints"]}
    assert {name: one["kind"] for name, one in listed.items() if name in (EVEN, GLANCE, STUDY, SCRIBE)} == {
        EVEN: "classifier",
        GLANCE: "extractive",
        STUDY: "extractive",
        SCRIBE: "seq2seq",
    }
    assert listed[SCRIBE]["load"] == {"replicas_up": 1, "backlog_ms": 500.0, "memory_bytes": 123_456_789}
    assert listed[GLANCE]["load"] == {"replicas_up": 0, "backlog_ms": None, "memory_bytes": None}
    own = {
        EVEN: {"labels", "function_to_apply"},
        STUDY: {"sentences"},
        SCRIBE: {"generation", "output_tokens", "step_ms"},
    }
    for name, members in own.items():
        assert members <= set(listed[name])
        for other in own.keys() - {name}:
            assert not members & set(listed[other])
    scribe = listed[SCRIBE]
    assert scribe["domain"] == DOMAIN and scribe["generation"]["num_beams"] == 4
    assert scribe["output_tokens"] == OUTPUT_TOKENS and len(scribe["step_ms"]) == 12
    assert scribe["verification"]["same_tokens"] == 1 and listed[STUDY]["verification"]["same_choice"] == 1
    assert listed[STUDY]["sentences"] == 3 and listed[EVEN]["labels"] == ["negative", "positive"]
