"""Writing on from a prompt: where an answer ends, within which limits, and what of it is settled on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from byte_prompts import EOS, WINDOW, Scribbler, says_text, scribe, tokenizer, tokens_of
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from deployments.replica.generate.writing import WrittenText, write_on
from deployments.replica.writing.job import TextBudget, WritingResult
from gateway.model.messages import Failure, FailureKind
from gateway.tasks.generate import GenerateParameters

PROMPT = "Say: "


def wrote(
    folder: Path, saying: str, remaining_s: float = 60.0, prompt: str = PROMPT, **parameters: object
) -> WritingResult | Failure:
    """What is written after a prompt by an engine that means to say this."""
    clock = FakeClock()
    engine = Scribbler(clock, says_text(saying))
    writer = scribe(folder, engine)
    asked = GenerateParameters(**parameters)  # type: ignore[arg-type]  # by name, each of its own kind
    budget = TextBudget(clock() + remaining_s, 0.0, clock)
    read = writer.read([prompt], asked)
    assert not isinstance(read, Failure)
    job = writer.begin(read[0], asked, budget)
    while not job.step():
        assert budget.left_s >= 0
    assert job.outcome is not None and (budget.left_s == 0 or isinstance(job.outcome, Failure))
    return job.outcome


def ending(found: WritingResult | Failure) -> tuple[str, str, int]:
    """The text, why it ended, and its tokens."""
    assert isinstance(found, WritingResult)
    return found.text, found.generation.finish_reason, found.generation.tokens


def test_an_answer_ends_by_itself(tmp_path: Path) -> None:
    """The token that ends it is no part of it."""
    assert ending(wrote(tmp_path, " all is well")) == (" all is well", "stop", 12)


def test_an_answer_ends_at_its_length(tmp_path: Path) -> None:
    """No more tokens are written than asked for."""
    assert ending(wrote(tmp_path, " all is well", max_new_tokens=4)) == (" all", "length", 4)


def test_an_answer_ends_before_a_stop_text(tmp_path: Path) -> None:
    """The first stop text that is met ends the answer, and is left out of it."""
    assert ending(wrote(tmp_path, "one two three", stop=("three", "wo"))) == ("one t", "stop", 7)


def test_an_answer_ends_at_its_deadline(tmp_path: Path) -> None:
    """No step begins that would end after the deadline: 20 ms for the first token and 10 for each other leave five."""
    text, reason, tokens = ending(wrote(tmp_path, "abcdefghij", remaining_s=0.065))
    assert (text, reason, tokens) == ("abcde", "deadline", 5)


def test_nothing_is_begun_that_cannot_give_a_token_in_time(tmp_path: Path) -> None:
    """A prompt that takes longer to read than there is time is not read."""
    found = wrote(tmp_path, "abc", remaining_s=0.01)
    assert ending(found) == ("", "deadline", 0)
    assert isinstance(found, WritingResult) and found.generation.steps == 0 and found.input.kept == 0


def test_a_character_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    """A length that ends within a character gives the text before it, never a part of it."""
    assert ending(wrote(tmp_path, "a\u00e9\U0001f600", max_new_tokens=5)) == ("a\u00e9", "length", 5)


def test_prompt_and_answer_share_the_window(tmp_path: Path) -> None:
    """An answer is no longer than the window leaves; a prompt that leaves no token is TOO_LONG, with both numbers."""
    long = "x" * (WINDOW - 3)
    assert ending(wrote(tmp_path, "abcdef", prompt=long))[1:] == ("length", 3)
    found = wrote(tmp_path, "abcdef", prompt="x" * WINDOW)
    assert isinstance(found, Failure)
    assert (found.kind, found.tokens, found.limit) == (FailureKind.TOO_LONG, WINDOW, WINDOW - 1)


def test_a_prompt_is_cut_on_its_left_where_asked(tmp_path: Path) -> None:
    """`truncate` keeps the last tokens, and the answer says that others were not read."""
    found = wrote(tmp_path, "abc", prompt="x" * WINDOW, truncate=10)
    assert isinstance(found, WritingResult)
    assert (found.input.tokens, found.input.kept, found.input.truncated) == (WINDOW, 10, True)


def test_golden_texts_are_written_as_answers_are(tmp_path: Path) -> None:
    """`write_on` writes what an answer without parameters has, token for token."""
    engine = Scribbler(FakeClock(), says_text(" so it is"))
    assert write_on(engine, tokens_of(PROMPT), (EOS,), 99) == tuple(tokens_of(" so it is"))
    assert write_on(engine, tokens_of(PROMPT), (EOS,), 3) == tuple(tokens_of(" so"))


@given(text=st.text(max_size=30), stops=st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_what_is_settled_stays(text: str, stops: list[str]) -> None:
    """Text that was settled is never taken back, grows with each token, and is all of the answer but its open end."""
    whole = tokenizer()
    written = WrittenText(whole, stops)
    settled = ""
    for token in tokens_of(text):
        written.add(token)
        assert written.settled.startswith(settled)
        settled = written.settled
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert written.text == (text[: min(ends)] if ends else text) or written.stopped
    assert written.text.startswith(settled)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [([], "b c"), ([0], " b c"), ([3], "b c"), ([0, 4], "b c")],
    ids=["nothing", "a word", "a word that goes on", "a special token"],
)
def test_words_stand_apart_from_the_prompt(prompt: list[int], text: str) -> None:
    """Where a token is a word, an answer begins with a space if its prompt's last token ends a word, and only then."""
    words = Tokenizer(models.BPE({"a</w>": 0, "b</w>": 1, "c</w>": 2, "a": 3}, [], end_of_word_suffix="</w>"))
    words.decoder = decoders.BPEDecoder(suffix="</w>")
    words.add_special_tokens([AddedToken("<s>", special=True)])
    written = WrittenText(words, (), prompt)
    for token in (1, 2):
        written.add(token)
    assert written.text == text


def test_a_prompt_that_ends_within_a_character_is_no_part_of_the_answer() -> None:
    """Of a prompt cut within a character nothing is repeated."""
    written = WrittenText(tokenizer(), (), tokens_of("\u00e9")[:1])
    for token in tokens_of("ok"):
        written.add(token)
    assert written.text == "ok"


@pytest.mark.parametrize(
    ("stops", "text"), [(("ab",), "xx"), (("abc", "b"), "xxa"), (("abc", "bd"), "xx"), ((), "xxabcxx")]
)
def test_the_first_stop_text_that_is_whole_ends_the_answer(stops: tuple[str, ...], text: str, tmp_path: Path) -> None:
    """A stop text is found though each of its letters is a token of its own; one that is not whole ends nothing."""
    assert ending(wrote(tmp_path, "xxabcxx", stop=stops))[0] == text
