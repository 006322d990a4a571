"""Texts of any script, and odd ones, beside plain English: what is learnt of one client's texts costs no other.

Everything is real but time and the replicas, whose service times are those of the texts' true tokens.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from fakes import ANSWER, EVEN, TERMS, FakeBackend, FakeClock, Kept, catalog, cell, manifest, reraise
from worlds import World

from deployments.replica.tokens import TOKENIZER_FILE, TextTokens
from gateway.forecasting.load import LoadTracker
from gateway.model.messages import Answer, Failure, InputReport, LoadReport, ReplicaTimings, Work
from gateway.model.outcome import Outcome
from gateway.model.profile import ProfileDocument
from gateway.model.request import Request
from gateway.router import Router
from gateway.service import Service
from gateway.tasks.classify import ClassifyParameters

STARTER = Path(__file__).resolve().parents[3] / "exporters" / "starter" / "checkpoints"
WINDOW = 512
A_TOKEN_S = 0.0002
"""Service time of a token, in seconds; of a text with fewer than `LEAST`, that of so many."""

LEAST = 16
OVERHEAD_S = 0.001
A_THOUSAND_S = 0.0012
"""Time to tokenise a thousand characters, in seconds, as of dots; it is no part of the service time."""

ENGLISH = "The camera work is lovely and the first hour flies by, but then the story forgets where it was going."
ODD = {
    "Chinese": "今天天气很好，我们去公园散步，看到了很多花。" * 6,
    "digits": "31415926535 " * 12,
    "hex": "deadbeef 0badf00d " * 8,
    "emoji": "😀🎉👍🏽 " * 24,
    "dots": "." * 200_000,
    "hidden": " " * 60_000 + "😀 wow " * 2_000 + " " * 120_000,
}
"""Texts with up to six times the tokens of as many characters of English, long ones, and one that hides its tokens."""


class Tokens:
    """The starter's own tokenizer as a counter, and how long a text takes on a replica."""

    def __init__(self) -> None:
        self._tokens = TextTokens.open(STARTER / "minilm-sentiment" / TOKENIZER_FILE)
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """Count the tokens of a text; of one that comes again they are known."""
        if text not in self._known:
            self._known[text] = len(self._tokens.encode(text))
        return self._known[text]

    def service_time_s(self, text: str) -> float:
        """Return the time of an engine's run."""
        return A_TOKEN_S * max(min(self(text), WINDOW), LEAST)


TOKENS = Tokens()


def made() -> World:
    """Return a gateway with one classifier, whose replica takes the time of the texts that it gets."""
    cells = tuple(
        cell(batch, tokens, A_TOKEN_S * batch * tokens)
        for batch in (1, 2, 4, 8)
        for tokens in (LEAST, 64, 128, 256, WINDOW)
    )
    profile = ProfileDocument(threads=1, measured_on="nothing", cells=cells)
    one = manifest(EVEN, 0.01).model_copy(update={"max_tokens": WINDOW, "profile": profile})
    clock, load, kept, chance = FakeClock(), LoadTracker(), Kept(), Random(1)

    def answered(checkpoint: str, work: Work) -> Answer:
        (text,) = work.inputs
        took_s, tokens = TOKENS.service_time_s(text) * chance.uniform(0.95, 1.1), TOKENS(text)
        clock.advance(OVERHEAD_S + A_THOUSAND_S * len(text) / 1000 + took_s)
        report = InputReport(tokens, min(tokens, WINDOW), tokens > WINDOW)
        return Answer(ANSWER.outputs, report, ReplicaTimings(0.0, took_s, took_s, 1))

    only = catalog().only([EVEN])
    backend = FakeBackend(answered)
    router = Router(only, {EVEN: one}, load, clock, reraise, {EVEN: TOKENS}, chance=Random(1))
    service = Service(
        router=router,
        backend=backend,
        load=load,
        max_concurrent_requests=64,
        observers=(kept,),
        clock=clock,
        note=reraise,
    )
    load.reported(EVEN, "replica", LoadReport(0.0, 0, callers=1, cores=1.0), clock())
    return World(only, clock, load, backend, kept, service)


def ask(told: World, text: str, budget_s: float | None = None) -> Outcome:
    """Ask for a text, strictly if there is a budget; return how it ended."""
    terms = replace(TERMS, budget_s=budget_s or 30.0, strict=budget_s is not None)
    request = Request("classify", (text,), ClassifyParameters(), terms, told.clock())
    finished = asyncio.run(told.service.handle(request))
    told.clock.advance(0.01)
    return finished.record.outcome


def quantile_s(told: World, text: str) -> float:
    """Return the forecast of a text at the usual percentile, on the idle gateway."""
    request = Request("classify", (text,), ClassifyParameters(), TERMS, told.clock())
    decision = told.service.router.decide(request, told.service.router.deadline(request))
    assert decision.chosen and decision.chosen.forecast
    return decision.chosen.forecast.quantile_s


@pytest.mark.parametrize("odd", ODD)
def test_odd_texts_of_one_client_cost_no_other_its_budget(odd: str) -> None:
    """Beside as many odd texts, every English one is admitted at a budget that it keeps alone, and kept."""
    told, text = made(), ODD[odd]
    budget_s = 1.5 * (OVERHEAD_S + A_THOUSAND_S * len(ENGLISH) / 1000 + TOKENS.service_time_s(ENGLISH))
    ended = []
    for _ in range(150):
        ask(told, text)
        ended.append(ask(told, ENGLISH, budget_s))
    assert set(ended) == {Outcome.IN_TIME}


@pytest.mark.parametrize("odd", ODD)
def test_a_forecast_is_of_its_own_text(odd: str) -> None:
    """After a hundred odd texts of another client, the forecast of three words is that of a new gateway, or better."""
    told, new = made(), made()
    for _ in range(100):
        ask(told, ODD[odd])
    assert quantile_s(told, "three short words") <= 1.2 * quantile_s(new, "three short words")


@pytest.mark.parametrize("odd", ["Chinese", "digits", "hex", "emoji"])
def test_a_budget_holds_in_any_script(odd: str) -> None:
    """A strict budget of one and a half times what a text takes is kept in any script, English asked beside or not."""
    told, text = made(), ODD[odd]
    budget_s = 1.5 * (OVERHEAD_S + A_THOUSAND_S * len(text) / 1000 + TOKENS.service_time_s(text))
    for _ in range(60):
        ask(told, ENGLISH)
        assert ask(told, text, budget_s) is Outcome.IN_TIME


def test_refusals_do_not_outlive_their_cause() -> None:
    """A client that was refused while the machine was slow is let in again, though it only ever asks strictly."""
    told = made()
    slow = told.backend.behaviour

    def behave(checkpoint: str, work: Work) -> Answer | Failure | None:
        told.clock.advance(0.2)
        return slow(checkpoint, work)

    told.backend.behaviour = behave
    for _ in range(100):
        ask(told, ENGLISH)
    budget_s = 2 * (OVERHEAD_S + TOKENS.service_time_s(ENGLISH))
    assert ask(told, ENGLISH, budget_s) is Outcome.INFEASIBLE
    told.backend.behaviour = slow
    ended = [ask(told, ENGLISH, budget_s)]
    while ended[-1] is not Outcome.IN_TIME and len(ended) < 100:
        told.clock.advance(1.0)
        ended.append(ask(told, ENGLISH, budget_s))
    assert ended[-1] is Outcome.IN_TIME
