"""Laws of `/tokens`: its windows, its forecast, its body, and who answers where every checkpoint has a domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_taggers import DOMAIN, NAME
from fakes import latency_profile
from hypothesis import given
from hypothesis import strategies as st
from worlds import client_of, is_problem, tagging

from gateway.catalogs.catalog import CatalogError, parse_catalog
from gateway.model.request import BUDGET, CHECKPOINT
from gateway.tasks.tokens import TaggedModel, TokensParameters, overlap_of
from gateway.tasks.windows import windows_of

WINDOW, SPECIALS = 64, 2


@given(st.integers(0, 500), st.integers(1, 60), st.none() | st.integers(0, 100))
def test_windows_cover_a_text(tokens: int, room: int, stride: int | None) -> None:
    """Windows hold every token in order, none is over its room, and no token is in more than two of them."""
    windows = windows_of(tokens, room, overlap_of(room, stride))
    seen = [sum(start <= at < end for start, end in windows) for at in range(tokens)]
    assert all(1 <= times <= 2 for times in seen) and all(end - start <= room for start, end in windows)
    assert windows == sorted(windows) and windows[0][0] == 0 and windows[-1][1] == tokens
    assert (len(windows) == 1) == (tokens <= room)


def model() -> TaggedModel:
    """Return a model that has learnt nothing yet."""
    return TaggedModel(latency_profile(0.010), WINDOW, SPECIALS)


def time_s(*tokens: int, companions: int = 0, stride: int | None = None) -> float:
    """The median seconds of a request with texts of these tokens."""
    fully_s, least_s = model().service_times_s(tokens, TokensParameters(stride=stride), 0.0, companions)
    assert fully_s == least_s
    return least_s


def test_a_long_text_takes_the_time_of_its_windows() -> None:
    """A text over the window is forecast with all of its windows, very long ones in proportion to their number."""
    assert time_s(WINDOW) < time_s(WINDOW + 1) < time_s(3 * WINDOW) < time_s(3 * WINDOW, stride=31)
    assert time_s(100_000) == pytest.approx(10 * time_s(10_000), rel=0.05)
    assert time_s(3 * WINDOW, companions=1) == pytest.approx(2 * time_s(3 * WINDOW), rel=0.2)
    assert model().run_s(1, 3 * WINDOW) == time_s(3 * WINDOW) and model().run_s(2, WINDOW) == time_s(WINDOW, WINDOW)


async def test_a_single_text_is_answered_without_a_list() -> None:
    """One text gets its entities, as transformers' pipeline answers; a list gets one such list a text, even of one."""
    async with client_of(tagging()) as client:
        alone = (await client.post("/tokens", json={"inputs": "ann"})).json()
        listed = (await client.post("/tokens", json={"inputs": ["ann"]})).json()
        details = (await client.post("/tokens?details=true", json={"inputs": "ann"})).json()
    assert alone == [{"entity_group": "PER", "score": 0.9, "word": "ann", "start": 0, "end": 3}]
    assert listed == details["outputs"] == [alone] and details["input"]["windows"] == 1


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"aggregation_strategy": "best"}, "parameters.aggregation_strategy"),
        ({"ignore_labels": "O"}, "parameters.ignore_labels"),
        ({"ignore_labels": ["", "O"]}, "parameters.ignore_labels[0]"),
        ({"ignore_labels": ["O"] * 257}, "parameters.ignore_labels"),
        ({"stride": -1}, "parameters.stride"),
        ({"stride": 1.5}, "parameters.stride"),
        ({"redact": "yes"}, "parameters.redact"),
        ({"truncation": True}, "parameters.truncation"),
        ({"domain": ""}, "parameters.domain"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(parameters: dict[str, Any], field: str) -> None:
    """A parameter that is not understood is a 422 that names it, and nothing is run."""
    told = tagging()
    async with client_of(told) as client:
        answer = await client.post("/tokens", json={"inputs": "ann", "parameters": parameters})
    assert is_problem(answer, "invalid_request", 422)
    assert field in [one["field"] for one in answer.json()["errors"]] and not told.backend.dispatches


async def test_parameters_reach_the_replica() -> None:
    """What is asked for is sent on by its meaning, and labels that are ignored are those of nothing by default."""
    told = tagging()
    async with client_of(told) as client:
        await client.post("/tokens", json={"inputs": "ann"})
        asked = {"aggregation_strategy": "max", "ignore_labels": [], "stride": 3.0, "redact": True}
        await client.post("/tokens", json={"inputs": "ann", "parameters": asked})
    sent = [one.work.parameters for one in told.backend.dispatches]
    assert sent == [TokensParameters(None, ("O",), None, False), TokensParameters("max", (), 3, True)]


async def test_a_task_of_one_domain_answers_who_names_none_if_the_catalog_says_so() -> None:
    """With a default domain its checkpoint answers a request without one; another domain that is named is kept."""
    async with client_of(tagging()) as client:
        answer = await client.post("/tokens", json={"inputs": "ann"})
        other = await client.post("/tokens", json={"inputs": "ann", "parameters": {"domain": "news"}})
        pinned = await client.post("/tokens", json={"inputs": "ann"}, headers={CHECKPOINT: NAME})
    assert (answer.status_code, answer.headers[CHECKPOINT]) == (200, NAME) and pinned.status_code == 200
    assert is_problem(other, "invalid_request", 422)


@pytest.mark.parametrize("budget_ms", ["1", "1000"])
@pytest.mark.parametrize("redact", [False, True])
async def test_a_better_tagger_of_another_domain_answers_nobody_else(budget_ms: str, redact: bool) -> None:
    """A request without a domain gets the default one's tagger, whatever its budget; who names a domain, that one's."""
    async with client_of(tagging(others=("names", "chemicals"))) as client:

        async def who(**parameters: Any) -> str:
            body = {"inputs": "ann", "parameters": {"redact": redact, **parameters}}
            answer = await client.post("/tokens", json=body, headers={BUDGET: budget_ms})
            assert answer.status_code == 200
            return answer.headers[CHECKPOINT]

        assert [await who(), await who(domain=DOMAIN)] == [NAME, NAME]
        assert [await who(domain=one) for one in ("names", "chemicals")] == ["names", "chemicals"]


async def test_a_refusal_for_the_domain_says_which_there_are() -> None:
    """Without a default domain who names none is refused, and told which domains there are; who names one is not."""
    async with client_of(tagging(default=None)) as client:
        refused = await client.post("/tokens", json={"inputs": "ann"})
        named = await client.post("/tokens", json={"inputs": "ann", "parameters": {"domain": DOMAIN}})
    assert is_problem(refused, "invalid_request", 422) and named.status_code == 200
    assert f"there are checkpoints for {DOMAIN}" in refused.json()["errors"][0]["message"]


def test_a_default_domain_is_one_that_a_checkpoint_has() -> None:
    """A catalog whose default domain no checkpoint of the task has is refused, with those that there are."""
    text = """
name: mine
defaults: {domain: {tokens: news, classify: news}}
checkpoints:
  - {name: finder, task: tokens, domain: places, tier: balanced, family: BERT, source: starter:rampart, licence: none,
     quality: {metric: F1, value: 80.0, data_set: none, reference: made up}}
"""
    with pytest.raises(CatalogError) as refused:
        parse_catalog(text.encode(), "c.yaml", Path.cwd())
    assert "defaults.domain.tokens: must be one of places, got 'news'" in str(refused.value)
    assert "classify" not in str(refused.value)
