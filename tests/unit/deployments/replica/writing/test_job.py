"""What the client gets of a text that was cut short, when that is usable, and the lead that replaces it otherwise."""

from __future__ import annotations

import math

import pytest
from counted_steps import steps_of
from fake_engines import CONDENSED, in_steps
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.sentences import MAX_CHARACTERS
from deployments.replica.writing.job import LEAD_WORDS, TextBudget, finished_text, lead_of, usable, words_for
from gateway.model.messages import FinishReason


@pytest.mark.parametrize(
    ("written", "reason", "given_"),
    [
        (" It rose. The bri ", "stop", "It rose. The bri"),
        (" It rose. The bri", "deadline", "It rose."),
        ("It rose. He met Dr.", "length", "It rose."),
        ("The river rose and the brid", "deadline", "The river rose and the"),
        ("The river ros", "length", "The river ros"),
        ("The", "deadline", "The"),
        ("", "deadline", ""),
        ("  ", "stop", ""),
    ],
)
def test_what_is_given_of_what_was_written(written: str, reason: FinishReason, given_: str) -> None:
    """A text that ended by itself is kept whole; a cut one keeps its whole sentences, or all but its last word."""
    assert finished_text(written, reason) == given_


@pytest.mark.parametrize(
    ("text", "reason", "enough"),
    [
        ("", "stop", False),
        (" \n", "length", False),
        ("one", "stop", True),
        ("one", "length", True),
        ("one two", "deadline", False),
        ("one two three", "deadline", True),
        ("one " * 9, "deadline", True),
    ],
)
def test_when_a_text_will_do(text: str, reason: FinishReason, enough: bool) -> None:
    """A text cut by the deadline is usable from three words on; any other from one word on."""
    assert usable(text, reason) is enough


def test_the_lead_is_the_first_sentence() -> None:
    """The lead is the first sentence, up to forty words or as many as the client asks for."""
    assert lead_of("  The river\n rose. The bridge closed.") == "The river rose."
    assert len(lead_of("word " * 500).split()) == LEAD_WORDS
    assert lead_of("The river rose. More.", 2) == "The river"
    assert lead_of(" \n ") == ""


@given(st.text())
def test_whatever_has_a_word_has_a_lead(source: str) -> None:
    """The lead is empty only if the text has nothing but whitespace, and its words come from the text."""
    lead = lead_of(source)
    assert bool(lead.strip()) == bool(source.strip())
    assert lead.split() == [] or lead.split()[0] in source


@pytest.mark.parametrize("source", ["a. " * 500_000, "x" * 1_000_000, " " * 500_000 + "word. " * 90_000])
def test_the_lead_of_a_long_text_costs_little(source: str) -> None:
    """The cost of the lead does not grow with the text, because only its beginning is looked at."""
    beginning = source.lstrip()[: 2 * MAX_CHARACTERS]
    assert lead_of(source) == lead_of(beginning) != ""
    assert steps_of(lambda: lead_of(source)) == steps_of(lambda: lead_of(beginning))
    assert lead_of("\x00" * 3000 + "word") == "word"


def test_a_limit_in_tokens_is_three_quarters_as_many_words() -> None:
    """A limit in tokens becomes three quarters as many words, but at least one; no limit stays no limit."""
    assert (words_for(None), words_for(1), words_for(2), words_for(100)) == (None, 1, 1, 75)


def test_a_budget_counts_steps_and_keeps_the_time() -> None:
    """A budget lets steps run until the deadline less the reserve, and reports the headroom after the last step."""
    clock = FakeClock()
    room = TextBudget(clock() + 1.0, 0.25, clock)
    assert room.fits(0.75) and not room.fits(math.nextafter(0.75, 1) + 1e-9)
    condensing = in_steps(room, 2, lambda: clock.advance(0.25), 0.25)
    assert [condensing.step() for _ in range(3)] == [False, False, True]
    clock.advance(9)
    assert condensing.outcome == CONDENSED and room.steps == 2 and room.headroom_s == 0.5
    assert room.remaining_s == pytest.approx(-8.75)
