"""Laws of abstractive summaries, for any text, window, budget, parameters and speed of the engine."""

from __future__ import annotations

from typing import Any

from fake_engines import WORDS, FakeSeq2Seq, Saying, says, says_head, text_tokens, words, writer_manifest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.summarize.abstractive import AbstractiveSummarizer
from deployments.replica.writing.job import TextBudget, WritingResult, usable
from gateway.model.messages import Failure, FailureKind
from gateway.tasks.summarize import SummarizeParameters

ENCODE_S, STEP_S = 0.02, 0.01
TOKENS = text_tokens()
MARKS = (*WORDS, *WORDS, "Dr.", ".", "?!", "\n\n", "- ", "§", "\x00", "\ud800", "«", "x" * 80)

texts = st.one_of(
    st.lists(st.sampled_from(MARKS), max_size=300).map(" ".join),
    st.lists(st.integers(3, 14), max_size=60).map(
        lambda lengths: " ".join(" ".join(WORDS[:n] if n < 12 else WORDS).capitalize() + "." for n in lengths)
    ),
    st.text(max_size=200),
)
sayings: st.SearchStrategy[Saying] = st.one_of(
    st.integers(0, 12).map(says_head), st.integers(0, 50).map(lambda n: says([*words(n), 4])), st.just(says([]))
)
parameters_given = st.builds(
    SummarizeParameters,
    max_new_tokens=st.none() | st.integers(1, 40),
    num_beams=st.none() | st.integers(1, 6),
    length_penalty=st.none() | st.sampled_from([0.5, 2.0]),
    no_repeat_ngram_size=st.none() | st.integers(0, 3),
    early_stopping=st.none() | st.booleans(),
    truncation=st.sampled_from(["chunk", "chunk", "longest_first", "error"]),
)


@given(
    text=texts,
    saying=sayings,
    parameters=parameters_given,
    least=st.none() | st.integers(1, 8),
    window=st.sampled_from([12, 30, 64, 512]),
    budget_s=st.sampled_from([-1.0, 0.0, 0.02, 0.021, 0.05, 0.1, 0.3, 1.0, 5.0, 600.0]),
    reserve_s=st.sampled_from([0.0, 0.008]),
    slowdown=st.sampled_from([0.2, 1.0, 1.0, 3.0]),
    waits=st.lists(st.sampled_from([0.0, 0.0, 0.02, 0.1]), max_size=30),
    rules=st.fixed_dictionaries(
        {"prefix": st.sampled_from(["", "dark: "]), "forced_eos_token_id": st.sampled_from([None, 2])}
    ),
)
def test_the_laws_of_writing(
    text: str,
    saying: Saying,
    parameters: SummarizeParameters,
    least: int | None,
    window: int,
    budget_s: float,
    reserve_s: float,
    slowdown: float,
    waits: list[float],
    rules: dict[str, Any],
) -> None:
    """No step begins late, nor ends late unless slower than forecast; every limit holds, and reports add up."""
    if least is not None and least <= (parameters.max_new_tokens or 24):
        parameters = SummarizeParameters(**{**fields_of(parameters), "min_new_tokens": least})
    clock = FakeClock()
    engine = FakeSeq2Seq(clock, saying, ENCODE_S * slowdown, STEP_S * slowdown)
    room = TextBudget(clock() + budget_s, reserve_s, clock)
    writer = AbstractiveSummarizer(writer_manifest(window, ENCODE_S, STEP_S, **rules), engine, TOKENS)
    condensing = writer.begin(text, parameters, room)
    while not condensing.step():
        clock.advance(waits.pop() if waits else 0.0)  # others have the engine
    outcome = condensing.outcome
    assert outcome is not None
    if isinstance(outcome, Failure):
        assert parameters.truncation == "error" and outcome.kind is FailureKind.TOO_LONG
        assert outcome.tokens > outcome.limit == window and engine.began == []
        return
    if outcome.generation.finish_reason == "short":
        assert outcome.text == text.strip() and engine.began == []
        return
    in_time(engine, room, slowdown, parameters)
    limits_hold(outcome, engine, window, parameters)
    reason, written = outcome.generation.finish_reason, outcome.text
    assert room.left_s >= 0 and outcome.generation.headroom_s >= -1.0
    if budget_s > 100:
        assert reason != "deadline" and outcome.input.kept
    if not engine.began:
        assert written == "" and reason == "deadline" and outcome.input.kept == 0
    if reason == "deadline" and usable(written, reason):
        assert outcome.generation.steps >= 1


def fields_of(parameters: SummarizeParameters) -> dict[str, Any]:
    """The dataclass as keyword arguments."""
    return {name: getattr(parameters, name) for name in parameters.__struct_fields__}


def in_time(engine: FakeSeq2Seq, room: TextBudget, slowdown: float, parameters: SummarizeParameters) -> None:
    """Checks the instants at which the engine was begun, and the one at which it was left."""
    assert all(began + 1e-9 < room.stop_at for began in engine.began)
    longest_s = slowdown * max(ENCODE_S, STEP_S * max(engine.rows, default=1))
    late_s = room.deadline - room.headroom_s - room.stop_at
    assert late_s <= 1e-9 or not engine.began or late_s <= (2 * longest_s if slowdown > 1 else 0) + 1e-9


def limits_hold(outcome: WritingResult, engine: FakeSeq2Seq, window: int, parameters: SummarizeParameters) -> None:
    """Checks the limits on the engine's work and on the answer."""
    generation, read = outcome.generation, outcome.input
    most = min(parameters.max_new_tokens or 24, 24)
    assert all(0 < len(ids) <= window for ids in engine.read)
    assert generation.steps == len(engine.rows)
    assert max(engine.rows, default=1) <= (parameters.num_beams or 4)
    assert generation.beams <= (parameters.num_beams or 4) and generation.max_new_tokens <= most
    assert generation.tokens <= (parameters.max_new_tokens or 24 * max(1, len(engine.read)))
    assert len(TOKENS.encode(outcome.text)) - TOKENS.specials <= generation.tokens
    assert 0 <= read.kept <= read.tokens and read.truncated == (read.kept < read.tokens)
    assert generation.pieces == 1 or parameters.truncation == "chunk"
    assert generation.pieces > 1 or read.kept <= window
