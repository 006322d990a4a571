"""How requests become HTTP calls: texts of the wanted length, headers as documented, and who chooses the checkpoint."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_scenarios import Even, scenario, variant

from gateway.tasks import TASKS
from loadtests.generator.calls import Handling, Shelf, Stock, calls_of, held_out, words_of
from loadtests.generator.experiment import NoSuchPin, best_pins, own_handling, static_handlings
from loadtests.workload.arrivals import Offered
from loadtests.workload.scenario import SHIPPED, read_scenario, tokens_of

STOCK = Stock(
    Shelf.of(["one two three", "four five"]), {None: Shelf.of(["a paper here"]), "software": Shelf.of(["a library"])}
)
VARIANTS = (
    variant("grand", 90, Even(per_text_s=0.01)),
    variant("swift", 80, Even(per_text_s=0.005)),
    variant("scribe", 44, Even(per_text_s=0.1), "summarize", domain="software"),
    variant("study", 43, Even(per_text_s=0.1), "summarize"),
    variant("glance", 42, Even(per_text_s=0.05), "summarize"),
)
BOTH = scenario(
    requests=[
        {"task": "classify", "budget_ms": (50, 50)},
        {"task": "summarize", "budget_ms": (500, 500)},
        {"task": "summarize", "budget_ms": (500, 500), "domain": "software"},
    ]
)


def offered(sequence: int = 0, task: str = "classify", **others: object) -> Offered:
    """A request that arrives at its own number in tenths of a second."""
    told: dict[str, object] = {"budget_s": 0.05, "tokens": tokens_of(20), **others}
    return Offered(sequence, task, sequence / 10, **told)  # type: ignore[arg-type]  # by name, each of its own kind


@given(st.integers(1, 40), st.integers())
def test_a_text_has_as_many_words_as_were_asked_for(words: int, seed: int) -> None:
    """A text of any wanted length is cut or joined, and begins where one of the stock's texts begins."""
    text = Shelf.of(["one two three", "four five"]).text(words, random.Random(seed)).split()
    assert len(text) == words and text[0] in ("one", "four")
    assert text[1:2] in ([], ["two"], ["five"])


@given(st.integers(1, 50_000))
def test_the_words_of_a_text_are_those_its_tokens_were_reckoned_from(words: int) -> None:
    """The number of words of a text inverts the scenario's conversion of words into tokens."""
    assert words_of(tokens_of(words)) == words


def test_a_call_says_the_requests_terms_in_the_contracts_words() -> None:
    """Budget, mode and percentile go into headers, the domain into parameters; several texts are sent as a list."""
    one = offered(3, "summarize", strict=True, percentile=99.0, domain="software", texts=2, budget_s=0.0123456)
    (call,) = calls_of([one], Handling("x"), STOCK, 0.0, seed=1)
    assert call.headers == {"X-Latency-SLA-Ms": "12.346", "X-SLA-Mode": "strict", "X-SLA-Percentile": "99"}
    document = json.loads(call.body)
    assert document["parameters"] == {"domain": "software"} and len(document["inputs"]) == 2
    assert document["inputs"][0].split()[0] == "a" and "library" in document["inputs"][0]
    assert (call.due_s, call.task, call.budget_s, call.sequence) == (0.3, "summarize", 0.0123456, 3)
    (plain,) = calls_of([offered()], Handling("x"), STOCK, 0.0, seed=1)
    assert isinstance(json.loads(plain.body)["inputs"], str) and "parameters" not in json.loads(plain.body)


def test_pins_and_mode_are_the_handlings_and_nothing_else_hangs_on_it() -> None:
    """Two policies with one seed send equal bodies; a class without a pin leaves the checkpoint to the gateway."""
    requests = [offered(at, kind=at % 2, texts=1 + at % 3) for at in range(20)]
    free = calls_of(requests, Handling("gateway"), STOCK, 0.5, seed=4)
    pinned = calls_of(requests, Handling("static:swift", {1: "swift"}, "strict"), STOCK, 0.5, seed=4)
    assert [call.body for call in free] == [call.body for call in pinned]
    assert [call.body for call in free] != [
        call.body for call in calls_of(requests, Handling("gateway"), STOCK, 0.5, seed=5)
    ]
    assert {call.kind: call.headers.get("X-Checkpoint") for call in pinned} == {0: None, 1: "swift"}
    assert {call.headers["X-SLA-Mode"] for call in free} == {"best-effort"}
    assert {call.headers["X-SLA-Mode"] for call in pinned} == {"strict"}


def test_only_a_share_of_the_strict_is_to_be_shadowed() -> None:
    """Only strict requests are sampled for a second try after a refusal, by about the requested share."""
    strict = [offered(at, strict=at % 2 == 0) for at in range(4000)]
    shadowed = [call for call in calls_of(strict, Handling("x"), STOCK, 0.1, seed=2) if call.shadowed]
    assert all(call.headers["X-SLA-Mode"] == "strict" for call in shadowed) and 140 < len(shadowed) < 260
    assert not any(call.shadowed for call in calls_of(strict, Handling("x"), STOCK, 0.0, seed=2))
    assert not any(call.shadowed for call in calls_of(strict, Handling("x", mode="best-effort"), STOCK, 1.0, seed=2))


def test_the_texts_that_travel_with_the_code_are_of_every_kind() -> None:
    """Long texts come from papers, and texts about software from descriptions of packages."""
    stock, chance = held_out(), random.Random(1)
    long = json.loads(stock.body("summarize", [600], None, chance))["inputs"]
    assert len(long.split()) == 600
    assert len(json.loads(stock.body("classify", [20, 5], None, chance))["inputs"]) == 2
    asked = json.loads(stock.body("translate", [9], "software", chance, {"tgt_lang": "it"}))["parameters"]
    assert asked == {"tgt_lang": "it", "domain": "software"}


def test_every_live_scenario_asks_what_the_gateway_reads() -> None:
    """Each request of the shipped live scenarios is a body that its task accepts, with the parameters that it names."""
    stock, chance = held_out(), random.Random(1)
    for name in SHIPPED:
        for asked in read_scenario(name).requests if name.startswith("live-") else ():
            words = [round(asked.words[1])] * asked.texts
            body = stock.body(asked.task, words, asked.domain, chance, asked.parameters)
            read = TASKS[asked.task].body.model_validate_json(body)
            assert len(read.texts()) >= asked.texts, name


def test_parameters_leave_what_a_task_needs() -> None:
    """Parameters of a scenario are sent beside those that the task's example must have."""
    body = json.loads(STOCK.body("zero-shot", [3], None, random.Random(1), {"multi_label": True}))
    assert set(body["parameters"]) == {"candidate_labels", "multi_label"}


def test_a_pin_takes_its_task_and_no_other() -> None:
    """A pin applies to every class of its task, whatever the domain; the other task stays the gateway's choice."""
    handling = own_handling(None, ["study"], None, BOTH, VARIANTS)
    assert (handling.label, handling.pins) == ("static:study", {1: "study", 2: "study"})
    assert own_handling(None, [], "strict", BOTH, VARIANTS) == Handling("gateway", {}, "strict")
    assert own_handling("mine", ["swift"], None, BOTH, VARIANTS).label == "mine"


@pytest.mark.parametrize("pins", [["nobody"], ["study", "glance"]])
def test_a_pin_that_cannot_be_is_refused(pins: list[str]) -> None:
    """A pin to a checkpoint that is not served, or a second pin for one task, is refused before anything is sent."""
    with pytest.raises(NoSuchPin, match=pins[-1]):
        own_handling(None, pins, None, BOTH, VARIANTS)


def test_a_pin_for_a_task_that_is_not_asked_for_is_refused() -> None:
    """A pin for a task that the scenario does not request is refused: the run would bear a wrong name."""
    with pytest.raises(NoSuchPin, match="has no summarize"):
        own_handling(None, ["study"], None, scenario(), VARIANTS)


def test_static_choices_are_all_that_may_answer_every_class() -> None:
    """There is one static choice for each combination of checkpoints that can answer every class of the scenario."""
    labels = [handling.label for handling in static_handlings(BOTH, VARIANTS, None)]
    assert labels == ["static:grand+study", "static:grand+glance", "static:swift+study", "static:swift+glance"]
    only = scenario(requests=[{"task": "summarize", "budget_ms": (500, 500), "domain": "software"}])
    found = static_handlings(only, VARIANTS, "strict")
    assert [one.label for one in found] == ["static:scribe", "static:study", "static:glance"]
    assert found[0] == Handling("static:scribe", {0: "scribe"}, "strict")


def test_the_quality_tier_is_each_class_own_best() -> None:
    """The best pin of a class is the checkpoint of its domain if there is one, and the best general one otherwise."""
    assert best_pins(BOTH, VARIANTS) == {0: "grand", 1: "study", 2: "scribe"}
    with pytest.raises(NoSuchPin, match="summarize"):
        best_pins(BOTH, VARIANTS[:2])
