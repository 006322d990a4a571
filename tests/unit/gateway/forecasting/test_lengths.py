"""Lengths in tokens: exact for short texts, near for long ones in any script, and counted with bounded work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.tokens import TOKENIZER_FILE, TextTokens
from gateway.forecasting.lengths import (
    COUNTED,
    FEWEST_SAMPLES,
    SAMPLES,
    SHORTEST_SAMPLE,
    SPECIAL_TOKENS,
    TOKENS_PER_CHARACTER,
    Counter,
    Lengths,
    estimated,
    is_sampled,
)

STARTER = Path(__file__).resolve().parents[4] / "exporters" / "starter" / "checkpoints"
SCRIPTS = {
    "English": "The camera work is lovely and the first hour flies by, but then the story forgets where it was going. ",
    "German": "Die Donaudampfschifffahrtsgesellschaft beförderte viele Fahrgäste über die Brücke nach Österreich. ",
    "Chinese": "今天天气很好，我们去公园散步，看到了很多花。",
    "Japanese": "きょうは天気がいいので、公園へ散歩に行きました。カタカナも混ぜます。",
    "Russian": "Сегодня хорошая погода, и мы пошли гулять в парк, где увидели много цветов. ",
    "Arabic": "الطقس جميل اليوم لذلك ذهبنا في نزهة إلى الحديقة ورأينا الكثير من الزهور. ",
    "Hindi": "आज मौसम बहुत अच्छा है इसलिए हम पार्क में टहलने गए और बहुत सारे फूल देखे। ",
    "emoji": "😀🎉👍🏽 wow ",
    "code": "for (int i = 0; i < n; ++i) { sum += values[i] * weights[i]; }\n",
}
"""Sentences of Punctual's own, whose tokens a character differ by a factor of five between scripts."""

text_lengths = st.lists(st.integers(0, 3 * COUNTED) | st.integers(0, 80), min_size=1, max_size=80)


@dataclass
class Counting:
    """A counter of one token a character and two specials, which notes how many characters it was given."""

    given: list[int] = field(default_factory=list)

    def __call__(self, text: str) -> int:
        """Count a text."""
        self.given.append(len(text))
        return len(text) + 2


def counts_by(*counters: Counter) -> Lengths:
    """Return what counts by these, with samples at places that are the same in every run."""
    return Lengths(counters, Random(1))


def texts_of(lengths: Sequence[int]) -> list[str]:
    """Return texts of these lengths, in characters."""
    return ["x" * length for length in lengths]


@given(text_lengths.filter(lambda lengths: sum(lengths) <= COUNTED))
def test_short_requests_are_counted_exactly(lengths: list[int]) -> None:
    """A request of up to `COUNTED` characters is counted whole, each text once."""
    counting = Counting()
    counts = counts_by(counting)
    counting.given.clear()
    assert counts.of(texts_of(lengths)) == (tuple(length + 2 for length in lengths),)
    assert counting.given == lengths


@pytest.mark.parametrize("characters", [COUNTED - 1, COUNTED, COUNTED + 1, 10 * COUNTED])
def test_a_text_beyond_the_limit_is_counted_by_samples(characters: int) -> None:
    """A text of more than `COUNTED` characters is counted by samples, one of each of its equal parts."""
    seen: list[str] = []

    def counter(text: str) -> int:
        seen.append(text)
        return len(text)

    assert not is_sampled(["a" * 40] * 100), "short texts are counted whole, however many"
    text = "".join(chr(0x10000 + at) for at in range(characters))
    ((counted,),) = counts_by(counter).of([text])
    assert counted == pytest.approx(characters, abs=1) and is_sampled([text]) == (characters > COUNTED)
    samples = seen[1:]
    if characters <= COUNTED:
        assert samples == [text]
    else:
        part, starts = characters / SAMPLES, [text.index(one) for one in samples]
        assert len(samples) == SAMPLES and sum(map(len, samples)) == COUNTED
        assert all(at * part - 1 <= start <= (at + 1) * part - len(samples[at]) for at, start in enumerate(starts))


@given(text_lengths)
def test_the_work_is_bounded(lengths: list[int]) -> None:
    """A counter is given at most `COUNTED` characters of a request, or the shortest samples of each text."""
    counting = Counting()
    counts = counts_by(counting)
    counting.given.clear()
    counts.of(texts_of(lengths))
    assert sum(counting.given) <= max(COUNTED, FEWEST_SAMPLES * SHORTEST_SAMPLE * len(lengths))
    assert sum(counting.given) <= sum(lengths)
    assert len(counting.given) <= SAMPLES * len(lengths)


def test_short_texts_leave_their_part_to_a_long_one() -> None:
    """Beside many labels, a long text is counted by nearly as many characters as alone."""
    counting = Counting()
    counts = counts_by(counting)
    counting.given.clear()
    counts.of(texts_of([*[10] * 64, 20_000]))
    assert sum(counting.given) == pytest.approx(COUNTED, abs=SAMPLES) and max(counting.given) > COUNTED // SAMPLES // 2


@given(text_lengths)
def test_an_even_text_is_estimated_exactly(lengths: list[int]) -> None:
    """Where every character has as many tokens as another, the estimate is exact, and specials are counted once."""
    assert counts_by(Counting()).of(texts_of(lengths)) == (tuple(length + 2 for length in lengths),)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", ["minilm-sentiment", "bart-software"])
def test_long_texts_of_any_script_are_near(name: str, script: str) -> None:
    """By the starter's tokenizers a long repetitive text is estimated within 15 %, whatever its script and length."""
    tokens = TextTokens.open(STARTER / name / TOKENIZER_FILE)

    def counter(text: str) -> int:
        return len(tokens.encode(text))

    counts, sentence = counts_by(counter), SCRIPTS[script]
    for characters in (COUNTED + 1, 30_000):
        text = (sentence * (characters // len(sentence) + 1))[:characters]
        ((counted,),) = counts.of([text])
        assert counted == pytest.approx(counter(text), rel=0.15)
        several = [text[at : at + 2_000] for at in range(0, 1_000, 100)]
        assert list(counts.of(several)[0]) == pytest.approx([counter(one) for one in several], rel=0.15)


CHEAP = 5
"""Characters of a dense text for each that is dense: the others have no token."""


@dataclass
class Dense:
    """A counter that finds a token in each `x` and none elsewhere, and no specials."""

    def __call__(self, text: str) -> int:
        """Count a text."""
        return text.count("x")


@pytest.mark.parametrize("parts", [3, 4, 6, 12, 13, 24, 1000])
def test_no_text_hides_its_tokens_where_no_sample_is(parts: int) -> None:
    """A text cannot be made whose samples are short and the rest long: the estimate is right on average.

    The texts have their tokens where samples at the start, the middle and the end find none, in this many places.
    """
    size = 200_000 // parts
    one = (" " * (size - size // CHEAP) + "x" * (size // CHEAP)).center(size)
    text = one * parts
    text = " " * (COUNTED // 2) + text + " " * (COUNTED // 2)
    counts = Lengths([Dense()], Random(1))
    found = [counts.of([text])[0][0] for _ in range(200)]
    assert sum(found) / len(found) == pytest.approx(text.count("x"), rel=0.1)
    assert len(set(found)) > 1, "places that are always the same can be avoided"


def test_each_tokenizer_counts_for_itself() -> None:
    """The lengths are by tokenizer, then by text, in the order given."""
    counts = counts_by(len, lambda text: 3 * len(text) + 1, lambda text: 2)
    assert counts.of(["abcd", ""]) == ((4, 0), (13, 1), (2, 2))


def test_without_a_tokenizer_english_is_estimated_by_its_characters() -> None:
    """The estimate without a tokenizer has the specials and rises with the characters."""
    assert estimated("") == SPECIAL_TOKENS
    assert estimated("x" * 100) == pytest.approx(100 * TOKENS_PER_CHARACTER + SPECIAL_TOKENS, abs=1)
    english = SCRIPTS["English"] * 20
    tokens = TextTokens.open(STARTER / "minilm-sentiment" / TOKENIZER_FILE)
    assert estimated(english) == pytest.approx(len(tokens.encode(english)), rel=0.3)
