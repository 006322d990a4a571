"""A budget for the first text of a streamed answer: who answers, when it is refused or given up, and what is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fake_engines import writer_manifest
from fake_summaries import SUMMARY
from fake_writers import NOVELIST, SCRIBBLER
from fakes import TERMS, scripted
from virtual_time import loop_clock
from worlds import World, client_of, generating, is_problem, strict, summarizing, took

from gateway.api.access import ASKED
from gateway.forecasting.forecaster import Forecaster
from gateway.forecasting.load import IDLE
from gateway.model.errors import DeadlineExceeded
from gateway.model.messages import Delta
from gateway.model.outcome import Outcome
from gateway.model.request import FIRST_BUDGET, RequestShape, Terms
from gateway.service import Stream
from gateway.tasks.generate import CausalModel, GenerateParameters
from gateway.tasks.summarize import AbstractiveModel, SummarizeParameters

pytestmark = pytest.mark.virtual_time

DELTAS = (Delta(0, "In"), Delta(0, " short."))
BODY = {"inputs": "The river rose. The bridge was closed for hours."}
SAY = {"inputs": "Say:", "stream": True}


def streamed(first_s: float, terms: Terms = TERMS) -> Terms:
    """Terms of a request that is streamed, with a budget for its first text."""
    return replace(terms, streamed=True, first_token_s=first_s)


def telling(told: World, *deltas: Delta) -> World:
    """The world, whose replicas tell these deltas of each request that is streamed."""
    told.backend.deltas = deltas
    return told


def last_event(response: httpx.Response) -> Any:
    """The data of the last event."""
    return json.loads(response.text.strip().rsplit("data: ", 1)[1])


async def test_who_would_tell_its_first_text_too_late_is_not_chosen() -> None:
    """Of two writers the better one reads slowly: with little time for the first token the quick one answers."""
    told = telling(generating(), Delta(0, " all"))
    slow = told.service.router.scheduler.deciders["generate"].by_name[NOVELIST].forecaster
    assert isinstance(slow.model, CausalModel)
    slow.model.slowdown.value = 5.0
    chosen = {}
    for first_ms in ("60", "5000"):
        response = await client_of(told).post(
            "/generate", json=SAY, headers={"X-Latency-SLA-Ms": "60000", FIRST_BUDGET: first_ms}
        )
        assert response.status_code == 200, response.text
        chosen[first_ms] = response.headers["X-Checkpoint"]
    assert chosen == {"60": SCRIBBLER, "5000": NOVELIST}


async def test_strict_refuses_what_can_tell_nothing_in_time() -> None:
    """Where no checkpoint can, the refusal says what an idle gateway keeps, and that much is let in."""
    told = telling(generating(), Delta(0, " all"))
    client, mode = client_of(told), {"X-Latency-SLA-Ms": "60000", "X-SLA-Mode": "strict"}
    refused = await client.post("/generate", json=SAY, headers={**mode, FIRST_BUDGET: "1"})
    assert is_problem(refused, "budget_infeasible", 422) and not told.backend.dispatches
    least_ms = refused.json()["min_feasible_first_token_ms"]
    assert 1 < refused.json()["min_admitted_first_token_ms"] < least_ms < 60000
    assert refused.json()["min_feasible_ms"] < 60000 and str(least_ms) in refused.json()["detail"]
    let_in = await client.post("/generate", json=SAY, headers={**mode, FIRST_BUDGET: str(least_ms)})
    assert let_in.status_code == 200 and let_in.headers["X-Route-Reason"] == "fits"


@pytest.mark.parametrize(("first_ms", "met"), [("400", True), ("100", False)])
async def test_the_last_event_says_whether_it_was_met(first_ms: str, met: bool) -> None:
    """Its timings have the time of the first text, its routing the budget for it, and what became of it."""
    told = telling(generating(), Delta(0, " all"))
    told.backend.told_after = lambda: told.clock.advance(0.25)
    client = client_of(told)
    response = await client.post("/generate", json=SAY, headers={FIRST_BUDGET: first_ms})
    done = last_event(response)
    assert done["timings_ms"]["first_token"] == pytest.approx(250)
    assert done["routing"]["first_token_budget_ms"] == float(first_ms) and done["routing"]["first_token_met"] is met
    assert done["routing"]["first_token_quantile_ms"] > 0
    assert response.headers[FIRST_BUDGET] == first_ms
    assert response.headers["X-First-Token-Met"] == ("true" if met else "false")
    (record,) = told.kept.records
    assert (record.first_budget_s, record.first_met) == (float(first_ms) / 1000, met)
    scraped = (await client.get("/metrics")).text
    (counted,) = [line for line in scraped.splitlines() if line.startswith("punctual_first_tokens_total{")]
    assert f'met="{str(met).lower()}"' in counted and counted.endswith(" 1.0")


async def test_a_strict_answer_of_which_nothing_is_told_in_time_is_given_up() -> None:
    """It is a 504 at the deadline of its first text, long before that of the answer, and the replica is told."""
    told, stream = summarizing(), Stream()
    told.backend.behaviour = scripted(None)
    clock = loop_clock()
    began_s = clock()
    finished = await told.service.handle(told.page(streamed(3.0, strict(60.0))), stream)
    assert isinstance(finished.problem, DeadlineExceeded) and "first token" in finished.problem.detail
    assert finished.record.outcome is Outcome.EXPIRED and finished.record.first_met is False
    assert clock() - began_s == pytest.approx(3.0) and told.backend.cancelled == 1


async def test_once_it_is_told_the_whole_budget_counts() -> None:
    """A strict answer whose first text came in time may take the rest of its budget."""
    told, stream = telling(summarizing(), *DELTAS), Stream()
    told.backend.behaviour = took(told, 20.0, SUMMARY)
    finished = await told.service.handle(told.page(streamed(3.0, strict(60.0))), stream)
    assert finished.answer is SUMMARY and finished.record.first_met is True


async def test_best_effort_tells_late_rather_than_never() -> None:
    """Where nothing can be told in time best effort answers all the same, and says that it was not met."""
    told, stream = telling(summarizing(), *DELTAS), Stream()
    told.backend.behaviour = took(told, 2.0, SUMMARY)
    told.backend.told_after = lambda: told.clock.advance(1.0)
    finished = await told.service.handle(told.page(streamed(0.001)), stream)
    assert finished.answer is SUMMARY and finished.record.first_met is False
    assert finished.record.reason == "best-effort"


async def test_a_whole_answer_ignores_it_and_says_so() -> None:
    """An answer that is not streamed has no first text: the header is listed as ignored, and decides nothing."""
    client = client_of(summarizing())
    response = await client.post("/summarize?details=true", json=BODY, headers={FIRST_BUDGET: "0.001"})
    assert response.status_code == 200 and response.json()["ignored"] == [FIRST_BUDGET]
    assert response.json()["routing"]["first_token_met"] is None and FIRST_BUDGET not in response.headers
    score = await client.post("/classify?details=true", json={"inputs": "good"}, headers={FIRST_BUDGET: "5"})
    assert score.json()["ignored"] == [FIRST_BUDGET]


@pytest.mark.parametrize("value", ["0", "-5", "soon", "600001", "1e9", ""])
async def test_a_malformed_one_is_a_400_that_names_it(value: str) -> None:
    """As of every header of the contract, streamed or not."""
    response = await client_of(summarizing()).post("/summarize", json=BODY, headers={FIRST_BUDGET: value})
    assert is_problem(response, "invalid_request", 400) and response.json()["errors"][0]["header"] == FIRST_BUDGET


async def test_route_tells_what_it_would_decide() -> None:
    """`/route` decides as for a streamed answer, and has the forecast of each candidate's first text."""
    client = client_of(summarizing())
    asked = {"task": "summarize", **BODY}
    told = (await client.post("/route", json=asked, headers={FIRST_BUDGET: "1", "X-SLA-Mode": "strict"})).json()
    assert told["first_token_budget_ms"] == 1 and told["refusal"] == "infeasible" and not told["ignored"]
    assert told["min_feasible_first_token_ms"] > told["min_admitted_first_token_ms"] > 1
    assert all(one["forecast_ms"]["first_token_at_percentile"] > 1 for one in told["candidates"] if one["forecast_ms"])
    plain = (await client.post("/route", json=asked)).json()
    assert plain["first_token_budget_ms"] is None and plain["min_feasible_first_token_ms"] is None
    classified = await client.post("/route", json={"task": "classify", "inputs": "good"}, headers={FIRST_BUDGET: "1"})
    assert classified.json()["ignored"] == [FIRST_BUDGET]


async def test_openais_interface_takes_it_too() -> None:
    """A streamed completion keeps it, and its headers say what became of it."""
    told = telling(generating(), Delta(0, " all"))
    body = {"model": "punctual", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    response = await client_of(told).post("/v1/chat/completions", json=body, headers={FIRST_BUDGET: "5000"})
    assert response.status_code == 200 and response.headers["X-First-Token-Met"] == "true"
    assert told.kept.records[-1].first_met is True


def test_pages_of_other_origins_may_send_it() -> None:
    """A preflight names it."""
    assert FIRST_BUDGET in ASKED


def test_the_forecast_is_the_reading_and_a_few_steps_and_learns() -> None:
    """It is less than that of the answer, grows with the company, and widens as first texts come late."""
    model = AbstractiveModel(writer_manifest(sharing=True))
    greedy = SummarizeParameters(num_beams=1)
    alone_s, beside_s = (model.first_token_s((40,), greedy, others) for others in (0, 5))
    assert 0 < alone_s < beside_s and alone_s < model.service_times_s((40,), greedy, 60.0)[1]
    forecaster, shape = Forecaster(model), RequestShape(((40,),), greedy)
    plain = forecaster.forecast(shape, IDLE, 95.0, 0.0, 60.0)
    before = forecaster.streamed(plain, shape, IDLE, 0.0)
    assert plain.first is None and before.first is not None
    assert before.first.least_s <= before.first.latency_s <= before.first.quantile_s <= before.quantile_s
    for _ in range(60):
        forecaster.learn_first(before, 3 * before.first.quantile_s, 1.0)
    after = forecaster.streamed(plain, shape, IDLE, 1.0)
    assert after.first is not None and after.first.quantile_s > 2 * before.first.quantile_s
    forecaster.learn_first(plain, 1.0, 1.0)  # one that is not streamed teaches nothing


async def test_first_texts_teach_the_forecast() -> None:
    """What each streamed answer tells first is learnt, and so is that nothing was told."""
    told = telling(generating(), Delta(0, " all"))
    one = told.service.router.scheduler.deciders["generate"].by_name[NOVELIST].forecaster
    shape = RequestShape(((4,),), GenerateParameters())

    def quantile_s() -> float:
        plain = one.forecast(shape, IDLE, 95.0, told.clock(), 60.0)
        first = one.streamed(plain, shape, IDLE, told.clock()).first
        assert first is not None
        return first.quantile_s

    before_s = quantile_s()
    told.backend.told_after = lambda: told.clock.advance(0.5)
    for _ in range(60):
        await client_of(told).post("/generate", json=SAY, headers={"X-Latency-SLA-Ms": "60000"})
    assert quantile_s() > 0.5 > before_s
