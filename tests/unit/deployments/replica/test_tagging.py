"""Laws of a tagger's replica: what it finds, where, in texts of any length, and what it puts in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from by_hand import bert_tokenizer
from fake_taggers import WINDOW, WORDS, KnowingEngine, replica
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from deployments.replica.tagging.entities import with_kinds
from deployments.replica.tagging.reading import TextReader
from deployments.replica.tokens import INLINE_CHARACTERS
from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.tasks.tokens import Aggregation, Entity, TokensParameters
from gateway.tasks.windows import MOST_WINDOWS


@pytest.fixture(scope="module")
def reader() -> TextReader:
    """What reads the texts of the tagger."""
    return TextReader(bert_tokenizer(WORDS), WINDOW)


SMILE, FAMILY = "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def tokens(*texts: str, **parameters: Any) -> Work:
    """Work of `/tokens`."""
    return Work("tokens", texts, TokensParameters(**parameters), 60.0, False, "r")


async def answered(
    folder: Path, work: Work, own: Aggregation = "simple", engine: KnowingEngine | None = None
) -> Answer:
    """The answer to one request alone."""
    made = replica(folder, engine or KnowingEngine(), own)
    made.start()
    try:
        (answer,) = await made.handle([work])
    finally:
        await made.stop(60)
    assert isinstance(answer, Answer)
    return answer


def found(text: str, entities: Sequence[Entity]) -> list[tuple[object, str]]:
    """The kinds of entities, and what the text has at their places."""
    return [(one.entity_group or one.entity, text[one.start : one.end]) for one in entities]


async def test_each_text_gets_its_own_entities(tmp_path: Path) -> None:
    """Texts are answered in their order, and one without an entity gets an empty list, as white space does."""
    answer = await answered(tmp_path, tokens("ann lee and new york", "and", " \n", "lee ann"))
    first, second, third, fourth = answer.outputs
    assert found("ann lee and new york", first) == [("PER", "ann lee"), ("LOC", "new york")]
    assert (second, third) == ([], []) and found("lee ann", fourth) == [("PER", "lee"), ("PER", "ann")]
    assert (answer.input.tokens, answer.input.kept, answer.input.truncated) == (7 + 3 + 2 + 4, 16, False)
    assert answer.input.windows == 4


@pytest.mark.parametrize("before", ["", SMILE, FAMILY, "e\u0301 z\u0308", "\u4f60\u597d", "[SEP] [PAD]", "\ud83d "])
async def test_places_are_in_the_client_s_own_text(tmp_path: Path, before: str) -> None:
    """Emoji, combining marks, names of special tokens and half a surrogate pair before an entity do not move it."""
    text = f"{before} Ann LEE in [SEP] New York"
    (entities,) = (await answered(tmp_path, tokens(text))).outputs
    assert found(text, entities) == [("PER", "Ann LEE"), ("LOC", "New York")]


async def test_a_checkpoint_s_own_strategy_is_used_where_none_is_asked_for(tmp_path: Path) -> None:
    """Pieces that are labelled as beginnings are one entity with a strategy of words, and two with `simple`."""
    text = "annnie"
    by_word = (await answered(tmp_path, tokens(text), "first")).outputs[0]
    by_label = (await answered(tmp_path, tokens(text, aggregation="simple"), "first")).outputs[0]
    assert found(text, by_word) == [("PER", "annnie")] and found(text, by_label) == [("PER", "ann"), ("PER", "nie")]
    (single, _) = (await answered(tmp_path, tokens(text, aggregation="none"), "first")).outputs[0]
    assert list(msgspec.to_builtins(single)) == ["entity", "score", "index", "word", "start", "end"]
    assert (single.entity, single.index) == ("B-PER", 1)


@pytest.mark.parametrize("stride", [None, 0, 1, 3, 100])
async def test_a_long_text_is_taken_in_windows_without_doubles(tmp_path: Path, stride: int | None) -> None:
    """Every entity of a text over the window is found once, wherever windows meet; nothing is cut, and it is told."""
    text = " ".join(["ann", "lee", "and"] * 20)
    engine = KnowingEngine()
    answer = await answered(tmp_path, tokens(text, "ann", stride=stride), engine=engine)
    assert found(text, answer.outputs[0]) == [("PER", "ann lee")] * 20
    assert [one.start for one in answer.outputs[0]] == [at * len("ann lee and ") for at in range(20)]
    assert answer.input.windows > 8 and not answer.input.truncated
    assert answer.input.tokens == answer.input.kept == 62 + 3
    assert max(map(len, engine.rows)) == WINDOW


async def test_a_text_of_many_pages_is_answered_as_its_parts(tmp_path: Path) -> None:
    """A text that is too long for the loop, which is read and answered on threads, loses nothing."""
    text = "ann lee and " * 180
    assert len(text) > INLINE_CHARACTERS
    (entities,) = (await answered(tmp_path, tokens(text))).outputs
    assert found(text, entities) == [("PER", "ann lee")] * 180


async def test_a_request_of_too_many_windows_is_refused(tmp_path: Path) -> None:
    """Texts that take more windows than a request may have run none of them, however many texts they are."""
    made = replica(tmp_path, engine := KnowingEngine(), "simple")
    made.start()
    refused = await made.handle([tokens("ann", "ann lee and " * 400), tokens(*["ann lee and " * 40] * 10)])
    await made.stop(60)
    for one, index in zip(refused, (1, None), strict=True):
        assert isinstance(one, Failure) and one.kind is FailureKind.TOO_LONG
        assert str(MOST_WINDOWS) in one.detail and "ann" not in one.detail
        assert (one.limit, one.unit, one.index) == (MOST_WINDOWS, "windows", index)
    assert not engine.rows


@given(words=st.integers(1, 400), most=st.integers(1, 20), stride=st.none() | st.integers(0, 3))
def test_only_what_takes_too_many_windows_is_seen_to(
    reader: TextReader, words: int, most: int, stride: int | None
) -> None:
    """A part of a text never says that it takes more windows than it does, whatever it begins with."""
    text = "annie " * words
    if reader.takes_over(most, text, stride):
        assert len(reader.read(text, stride).windows) > most


class Seeing:
    """A tokenizer that notes how many characters it is given, one text at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.seen: list[int] = []

    def __getattr__(self, name: str) -> Any:
        """Return what the tokenizer has."""
        return getattr(self._tokenizer, name)

    def encode(self, text: str, add_special_tokens: bool = True) -> Any:
        """Encode a text."""
        self.seen.append(len(text))
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)


def test_a_text_far_over_the_limit_is_not_read_to_its_end() -> None:
    """Of dots as many are read as tell that they are too many: a text that is longer costs no more."""
    seeing = Seeing(bert_tokenizer(WORDS))
    reader = TextReader(cast(Tokenizer, seeing), WINDOW)
    seeing.seen.clear()
    for characters in (20_000, 200_000):
        assert reader.takes_over(MOST_WINDOWS, "." * characters)
    first, second = seeing.seen
    assert first == second < INLINE_CHARACTERS


@pytest.mark.parametrize("aggregation", ["simple", "first", "average", "max"])
async def test_combining_marks_do_not_hide_a_name(tmp_path: Path, aggregation: Aggregation) -> None:
    """A word whose letters have marks of their own is a word, and is redacted with its marks."""
    text = "lee\u0301 and an\u0301n lee in york\u0308."
    answer = await answered(tmp_path, tokens(text, aggregation=aggregation, redact=True))
    assert answer.outputs[0].redacted == "[PER] and [PER] in [LOC]."


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("marked", ["lee\u0301", "le\u0301e", "lee\u0316\u0301", "lee\u0941", "lee\ufe0f"])
async def test_a_place_has_the_marks_of_its_last_letter(tmp_path: Path, aggregation: Aggregation, marked: str) -> None:
    """An entity's place holds every mark of its letters, within a word, at its end and at the end of the text."""
    text = f"\u0301 {marked}, and {marked}"
    answer = await answered(tmp_path, tokens(text, aggregation=aggregation))
    assert found(text, answer.outputs[0]) == [("PER" if aggregation != "none" else "I-PER", marked)] * 2


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
async def test_redaction_puts_kinds_in_place(tmp_path: Path, aggregation: Aggregation) -> None:
    """The text with kinds in place of entities comes beside the entities, whose places are in the text as it came."""
    text = f"{SMILE} ann lee, new york!"
    answer = await answered(tmp_path, tokens(text, aggregation=aggregation, redact=True))
    redacted = answer.outputs[0]
    assert redacted.redacted == f"{SMILE} [PER], [LOC]!"
    plain = await answered(tmp_path, tokens(text, aggregation=aggregation))
    assert redacted.entities == plain.outputs[0]


async def test_what_is_ignored_is_not_redacted(tmp_path: Path) -> None:
    """A label that is left out stays in the text, and so does what belongs to nothing, even if it is asked for."""
    text = "ann and new york"
    answer = await answered(tmp_path, tokens(text, ignored=("O", "PER"), redact=True))
    assert answer.outputs[0].redacted == "ann and [LOC]"
    answer = await answered(tmp_path, tokens(text, ignored=(), redact=True))
    assert answer.outputs[0].redacted == "[PER] and [LOC]" and len(answer.outputs[0].entities) == 3


def entity(kind: str, start: int, end: int) -> Entity:
    """An entity at a place."""
    return Entity(entity_group=kind, score=1.0, word="", start=start, end=end)


def test_parts_of_one_address_are_one_kind() -> None:
    """Entities of one kind are replaced together if only punctuation is between them, and apart if a space is."""
    text = "a.b@c.d e"
    parts = [entity("EMAIL", at, at + 1) for at in (0, 2, 4, 6)]
    assert with_kinds(text, parts) == "[EMAIL] e"
    assert with_kinds(text, [*parts, entity("EMAIL", 8, 9)]) == "[EMAIL] [EMAIL]"
    assert with_kinds(text, [parts[0], entity("NAME", 2, 3), *parts[2:]]) == "[EMAIL].[NAME]@[EMAIL] e"


def test_what_surrounds_an_entity_stays() -> None:
    """White space in a place stays in the text, and an emoji between two entities is no punctuation."""
    assert with_kinds("Mail Ann Bob now", [entity("NAME", 4, 8), entity("NAME", 8, 12)]) == "Mail [NAME] [NAME] now"
    assert with_kinds(f"Ann{SMILE}Bob", [entity("NAME", 0, 3), entity("NAME", 4, 7)]) == f"[NAME]{SMILE}[NAME]"


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6))
def test_redaction_leaves_nothing_of_an_entity(text: str, drawn: list[tuple[int, int]]) -> None:
    """Whatever entities there are, overlapping too: what is outside them stays in order, and what is inside goes."""
    spans = sorted((min(pair), min(max(pair), len(text))) for pair in drawn if min(pair) < min(max(pair), len(text)))
    marked = "".join(chr(0xE000 + at) for at in range(len(text)))  # each character is another, and none is white space
    entities = [entity(f"K{at}", start, end) for at, (start, end) in enumerate(spans)]
    outside = "".join(marked[at] for at in range(len(text)) if not any(start <= at < end for start, end in spans))
    assert "".join(one for one in with_kinds(marked, entities) if ord(one) >= 0xE000) == outside
