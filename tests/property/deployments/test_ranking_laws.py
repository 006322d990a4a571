"""Laws of choosing sentences, for any embeddings, any facts and any ranker, sensible or not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.summarize.ranking import FEATURES, Facts, Floats, Ranker, default_count, features, unit_rows

WIDTH = 6
Case = tuple[Ranker, Floats, Facts, list[int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A ranker, and a text of up to 12 sentences of which some were embedded: zeros, twins and NaN among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    total, views = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    places = sorted(draw(st.sets(st.integers(0, total - 1))))
    embeddings = (rng.normal(size=(len(places), WIDTH)) * draw(st.sampled_from([1e-30, 1.0, 1e30]))).astype(np.float32)
    for row in range(len(places)):
        match draw(st.integers(0, 9)):
            case 0:
                embeddings[row] = 0
            case 1:
                embeddings[row] = embeddings[0]
            case 2:
                embeddings[row, 0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    flags = rng.random((3, total)) < 0.3
    facts = Facts(rng.integers(0, 60, total), flags[0], flags[1], flags[2])
    tables = [rng.normal(size=(views, size)).astype(np.float32) for size in (len(FEATURES), WIDTH, WIDTH, WIDTH)]
    spread, redundancy = draw(st.floats(0, 1)), draw(st.floats(0, 4))
    return Ranker(tables[0], tables[1], tables[2], tables[3], spread, redundancy), embeddings, facts, places


counts = st.integers(1, 6)


@given(cases(), counts, st.one_of(st.none(), st.integers(0, 120)))
def test_a_choice_is_some_of_the_embedded_sentences_in_order(case: Case, count: int, max_words: int | None) -> None:
    """A choice is ascending, without repeats, only of embedded sentences, within both limits, and always repeatable."""
    ranker, embeddings, facts, places = case
    chosen = ranker.choose(embeddings, facts, count, max_words, places)
    assert chosen == sorted(set(chosen)) and set(chosen) <= set(places) and len(chosen) <= count
    assert max_words is None or facts.words[chosen].sum() <= max_words
    assert chosen == ranker.choose(embeddings, facts, count, max_words, places)


@given(cases(), counts)
def test_there_is_a_summary_wherever_a_sentence_was_embedded(case: Case, count: int) -> None:
    """Without a limit on words, a sentence is chosen whenever one was embedded."""
    ranker, embeddings, facts, places = case
    assert bool(ranker.choose(embeddings, facts, count, positions=places)) == bool(places)


@given(cases(), counts)
def test_a_longer_summary_holds_the_shorter_one(case: Case, count: int) -> None:
    """A longer summary contains every sentence of a shorter one."""
    ranker, embeddings, facts, places = case
    shorter = ranker.choose(embeddings, facts, count, positions=places)
    assert set(shorter) <= set(ranker.choose(embeddings, facts, count + 1, positions=places))


@given(cases())
def test_no_sentence_is_said_twice(case: Case) -> None:
    """Of sentences with equal embeddings that are not zero at most one is chosen."""
    ranker, embeddings, facts, places = case
    twins = np.ones_like(embeddings)
    assert len(ranker.choose(twins, facts, 5, positions=places)) == min(len(places), 1)


@given(cases(), st.floats(0.01, 100))
def test_the_scale_of_embeddings_does_not_matter(case: Case, scale: float) -> None:
    """The scale of embeddings does not matter, since only unit rows count, and all that they give is finite."""
    ranker, embeddings, facts, places = case
    units = unit_rows(embeddings)
    np.testing.assert_allclose(unit_rows(units * np.float32(scale)), units, atol=1e-5)
    if places:
        assert np.isfinite(features(units, facts, np.array(places))).all()
        assert np.isfinite(ranker.scores(units, facts, np.array(places))).all()


@given(st.integers(0, 10_000))
def test_the_default_is_a_summary(sentences: int) -> None:
    """The default length is one to three sentences, and at most half of a text of two or more."""
    count = default_count(sentences)
    assert 1 <= count <= 3 and (sentences < 2 or count <= sentences / 2)
