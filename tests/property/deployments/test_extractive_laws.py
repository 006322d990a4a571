"""Laws of extractive summaries, for any text, budget, parameters and speed of the engine."""

from __future__ import annotations

from fake_engines import WORDS, FakeReader, ranker, reader_manifest, text_tokens, through
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.sentences import split_sentences
from deployments.replica.summarize.extractive import MOST_IN_BATCH, ExtractiveSummarizer
from deployments.replica.writing.job import TextBudget, WritingResult
from gateway.tasks.summarize import SummarizeParameters

BATCH_S = 0.01
TOKENS = text_tokens()
MARKS = (*WORDS, *WORDS, "Dr.", ".", "?!", "\n\n", "- ", "§", "\x00", "\ud800", "«", "x" * 80)

texts = st.one_of(
    st.lists(st.sampled_from(MARKS), max_size=300).map(" ".join),
    st.lists(st.integers(0, 10_000), max_size=150).map(
        lambda drawn: " ".join(
            " ".join(WORDS[(n * place) % 12] for place in range(1, 4 + n % 30)).capitalize() + "." for n in drawn
        )
    ),
    st.text(max_size=200),
)


@given(
    text=texts,
    budget_s=st.sampled_from([-1.0, 0.0, 0.01, 0.015, 0.03, 0.1, 0.2, 600.0]),
    reserve_s=st.sampled_from([0.0, 0.004]),
    slowdown=st.sampled_from([0.2, 1.0, 1.0, 3.0]),
    most=st.none() | st.integers(1, 60),
    least=st.none() | st.integers(1, 200),
)
def test_the_laws_of_reading(
    text: str, budget_s: float, reserve_s: float, slowdown: float, most: int | None, least: int | None
) -> None:
    """No batch begins late, or ends late unless slower than forecast; a summary has whole sentences, each once."""
    clock = FakeClock()
    engine = FakeReader(clock, BATCH_S * slowdown)
    room = TextBudget(clock() + budget_s, reserve_s, clock)
    reader = ExtractiveSummarizer(reader_manifest(batch_s=BATCH_S), engine, TOKENS, ranker())
    outcome = through(reader.begin(text, SummarizeParameters(max_new_tokens=most, min_new_tokens=least), room))
    assert isinstance(outcome, WritingResult)
    generation, read = outcome.generation, outcome.input

    assert all(began + 1e-9 < room.stop_at for began in engine.began)
    late_s = clock() - room.stop_at
    assert not engine.began or late_s <= (BATCH_S * slowdown if slowdown > 1 else 0) + 1e-9
    assert all(0 < len(batch) <= MOST_IN_BATCH for batch in engine.batches)
    assert all(len(row) <= 32 for batch in engine.batches for row in batch)
    assert generation.steps == len(engine.batches)

    assert 0 <= read.kept <= read.tokens and read.truncated == (read.kept < read.tokens)
    assert read.kept == sum(len(row) for batch in engine.batches for row in batch)
    sentences = [" ".join(text[span.start : span.end].split()) for span in split_sentences(text)]
    assert bool(outcome.text) == bool(engine.began)
    if generation.finish_reason == "length":
        assert most is not None and any(sentence.startswith(outcome.text) for sentence in sentences)
    elif outcome.text:
        in_their_order(outcome.text, sentences)
    if most is not None:
        assert generation.tokens <= most or len(outcome.text.split()) == 1
    if budget_s > 100:
        assert generation.finish_reason != "deadline" and len(sentences) == sum(map(len, engine.batches))


def in_their_order(summary: str, sentences: list[str]) -> None:
    """Checks that the summary consists of sentences of the text, each at most once, in their order."""
    reached: set[int] = {0}  # how far into the summary the sentences so far may have come
    for sentence in sentences:
        for at in sorted(reached, reverse=True):
            if summary.startswith(sentence, at):
                after = at + len(sentence)
                if after == len(summary):
                    return
                if summary[after] == " ":
                    reached.add(after + 1)
    raise AssertionError("the summary is not made of the text's sentences")
