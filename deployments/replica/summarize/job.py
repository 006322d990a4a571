"""A text being condensed: what the two ways of summarising have in common, and when what there is will do.

Either way runs step by step, so that whoever drives it can stop, interleave or withdraw it between any two steps.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

from deployments.replica.summarize.sentences import MAX_CHARACTERS, split_sentences, whole_sentences
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FinishReason, Generation, InputReport

LEAST_WORDS = 3
"""A text that the deadline cut short is usable from so many words on: fewer say nothing."""

LEAD_WORDS = 40
"""The most of the source's first sentence that stands in where nothing usable was written."""

WORDS_PER_TOKEN = 0.75
"""How many words a number of tokens is read as where there is no tokenizer to ask."""


@dataclass(frozen=True, slots=True)
class Condensed:
    """A summary, how it came about, and what of the text was read for it."""

    text: str
    generation: Generation
    input: InputReport


class TextBudget:
    """The time that one text has: until when its steps must end, how many there were, and how much is still to come.

    Steps end by `stop_at`, an instant on the clock: the deadline less a reserve for the answer's way back. `left_s` is
    the median of what is still to be run, in seconds, as the way to the summary keeps it: 0 once nothing is.
    """

    def __init__(self, deadline: float, reserve_s: float, clock: Clock) -> None:
        self.deadline = deadline
        self.stop_at = deadline - reserve_s
        self.clock = clock
        self.steps = 0
        self.left_s = 0.0
        self._last_step_ended = clock()

    def fits(self, step_s: float) -> bool:
        """Whether a step that takes so long would still end in time."""
        return self.clock() + step_s <= self.stop_at

    def stepped(self) -> None:
        """Counts a step that has just ended."""
        self.steps += 1
        self._last_step_ended = self.clock()

    @property
    def remaining_s(self) -> float:
        """What is left, in seconds; negative once it has passed."""
        return self.stop_at - self.clock()

    @property
    def headroom_s(self) -> float:
        """What was left of the whole budget when the last step ended, in seconds."""
        return self.deadline - self._last_step_ended


Steps: TypeAlias = Generator[None, None, Condensed | Failure]
"""The way from a text to its outcome: it pauses after each step, and begins one only where it fits the room."""


class SummaryJob:
    """One text on its way to a summary: `step` it until it says that it is done, then `outcome` has the end.

    One caller at a time, on whichever thread.
    """

    def __init__(self, room: TextBudget, way: Steps) -> None:
        self.room = room
        self.outcome: Condensed | Failure | None = None
        self._way = way

    def step(self) -> bool:
        """Runs to the end of the next step; whether the outcome is there. Blocking. Raises what the engine raises."""
        try:
            next(self._way)
        except StopIteration as end:
            self.outcome = end.value
            return True
        self.room.stepped()
        return False


def finished_text(written: str, reason: FinishReason) -> str:
    """What is given of what was written: all of it if it ended by itself, else its whole sentences.

    Where not one sentence is whole, everything but the last word, which may be half a word.
    """
    text = written.strip()
    if reason == "stop":
        return text
    whole = whole_sentences(text)
    if whole:
        return whole
    words = text.split()
    return " ".join(words[:-1]) if len(words) > LEAST_WORDS else text


def usable(text: str, reason: FinishReason) -> bool:
    """Whether a summary is worth having: it holds a word, or three where the deadline cut it short."""
    return len(text.split(None, LEAST_WORDS)) >= (LEAST_WORDS if reason == "deadline" else 1)


def words_for(tokens: int | None) -> int | None:
    """The words that at most so many tokens are read as: at least one; None where there is no limit."""
    return None if tokens is None else max(1, int(tokens * WORDS_PER_TOKEN))


def lead_of(source: str, most_words: int | None = None) -> str:
    """The source's first sentence, or its first 40 words or fewer: what a client gets where nothing usable was written.

    Empty only where the source has nothing but whitespace and what is no character.
    """
    head = source.lstrip()[: 2 * MAX_CHARACTERS]  # the first sentence is no longer: the rest need not be split for it
    text = head if (spans := split_sentences(head)) else source
    spans = spans or split_sentences(source)
    if not spans:
        return source.strip()
    words = text[spans[0].start : spans[0].end].split()
    return " ".join(words[: min(LEAD_WORDS, most_words or LEAD_WORDS)])
