"""The job of writing one text, its time budget, and when what is unfinished is good enough.

Abstractive and extractive jobs both run step by step, so that a caller can stop, slice or withdraw them between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias
from unicodedata import category

from deployments.engines.past_memory import PastNeed
from deployments.replica.sentences import MAX_CHARACTERS, split_sentences, whole_sentences
from deployments.replica.writing.shared_runs import Given, Likeness, Parted, Run
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FinishReason, Generation, InputReport

LEAST_WORDS = 3
"""Words that make a summary usable if the deadline cut it short."""

SHORT_WORDS, SHORT_CHARACTERS = 4, 60
"""Most words, and characters, of a text that is its own summary. Of "ok" a writer can only invent. Set by hand."""

LEAD_WORDS = 40
"""Most words of the source's first sentence that replace an unusable summary."""

WORDS_PER_TOKEN = 0.75
"""Estimated words in a token, where no tokenizer is at hand."""

_UNREADABLE = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))


@dataclass(frozen=True, slots=True)
class WritingResult:
    """What was written, how, and how much of the text was read."""

    text: str
    generation: Generation
    input: InputReport


class TextBudget:
    """The time that one text has, and the steps it has run.

    Steps must end by `stop_at`, an instant on the clock: the deadline less a reserve for sending the answer. `left_s`
    is the median of the work still to run, in seconds; the summarizer keeps it up to date, and it is 0 at the end.
    """

    def __init__(self, deadline: float, reserve_s: float, clock: Clock) -> None:
        self.deadline = deadline
        self.stop_at = deadline - reserve_s
        self.clock = clock
        self.steps = 0
        self.left_s = 0.0
        self._last_step_ended = clock()

    def fits(self, step_s: float) -> bool:
        """True if a step of `step_s` seconds would end in time."""
        return self.clock() + step_s <= self.stop_at

    def stepped(self) -> None:
        """Counts a step that has ended now."""
        self.steps += 1
        self._last_step_ended = self.clock()

    @property
    def remaining_s(self) -> float:
        """Seconds until `stop_at`; negative after it."""
        return self.stop_at - self.clock()

    @property
    def headroom_s(self) -> float:
        """Seconds from the end of the last step to the deadline."""
        return self.deadline - self._last_step_ended


Settled: TypeAlias = Callable[[], str]
"""Says how the summary under work begins, whatever its later steps find. It is asked only if somebody reads along."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a text asks of the engine: the next step of its run, which must end by the instant `until`.

    Runs that are asked for may step together. `settled` is of the text so far; None while nothing is certain.
    """

    run: Run[Any]
    until: float
    settled: Settled | None


Steps: TypeAlias = Generator[Settled | Ask | Parted | None, Given | None, WritingResult | Failure]
"""The work on one text: yields after each step, starts a step only if it fits the budget, and returns the outcome.

A text that runs its steps itself yields what says how it begins, or None while nothing is certain. What was once said
is a beginning of all that is said later, and of the outcome's text. A text that leaves a step to
its caller yields an `Ask`, and is sent how it was taken, or None if there is no time for it, or no need, since the run
is done. One that follows others and can no longer do so yields `Parted`, and goes on once it may have memory."""


def go_along(
    run: Run[Any], budget: TextBudget, until: float, left_s: Callable[[bool], float], settled: Settled | None
) -> Generator[Settled | Ask | None, Given | None, bool]:
    """Goes along with a run until it is done, or its next step would end too late; gives True if it asked for a step.

    `left_s` is the median of what is left, if the run goes on or not. Steps that were taken for an equal text count as
    if they had been taken for this one.
    """
    budget.steps += run.search.steps - 1  # the caller counts the first
    asked = False
    while True:
        going_on = not run.done and budget.clock() + run.step_s <= until
        budget.left_s = left_s(going_on)
        if not going_on:
            break
        seen = run.search.steps
        given = yield Ask(run, until, settled)
        asked = True
        budget.steps += run.search.steps - seen - (given is not None)
        if given is None:
            budget.left_s = left_s(False)
            break
    if not asked:  # else the caller would not count the first
        yield settled
    return asked


class WritingJob:
    """One text that is being written: call `step` until it returns True; then `outcome` holds the result.

    Any thread may call it, one at a time. `need` is the most that its keys and values may have; None if it has none.
    Texts of equal `likeness` may go along with one run. It has `parted` if it was to follow one, and could not.
    """

    def __init__(
        self, budget: TextBudget, steps: Steps, need: PastNeed | None = None, likeness: Likeness | None = None
    ) -> None:
        self.budget = budget
        self.need = need
        self.likeness = likeness or Likeness()
        self.parted = False
        self.outcome: WritingResult | Failure | None = None
        self._steps = steps
        self.ask: Ask | None = None
        self._settled: Settled | None = None

    def step(self) -> bool:
        """Runs one step; True if the outcome is there. Blocking. Raises what the engine raises."""
        ask = self.ask
        if ask is None:
            over = self._sent(None)
            if not over and not self.parted:
                self.budget.stepped()
            return over
        if ask.run.done or not self.in_time():
            return self._sent(None)
        return self.take(ask.run.step(self.budget.clock))

    def in_time(self, pace: float = 1.0) -> bool:
        """False if what the text asks for would come too late, where a step takes `pace` times as long as alone."""
        ask = self.ask
        return ask is None or self.budget.clock() + pace * ask.run.step_s <= ask.until

    def take(self, given: Given) -> bool:
        """Goes on after a step of its run; True if the outcome is there."""
        self.budget.stepped()
        return self._sent(given)

    def _sent(self, given: Given | None) -> bool:
        try:
            came = self._steps.send(given)
        except StopIteration as end:
            self.ask, self.outcome = None, end.value
            return True
        self.ask = came if isinstance(came, Ask) else None
        self.parted = isinstance(came, Parted)
        if not isinstance(came, Parted):
            self._settled = came.settled if isinstance(came, Ask) else came
        return False

    def close(self) -> None:
        """Gives back what the work holds, its keys and values among it. Call it when no step is to follow."""
        self.ask, self._settled = None, None
        self._steps.close()

    def settled(self) -> str:
        """The beginning of what is written that no later step will change; '' if nothing is certain."""
        return self._settled() if self._settled is not None else ""


def finished_text(written: str, reason: FinishReason) -> str:
    """Trims a written text to what the client gets: all of it if it ended by itself, else its whole sentences.

    If no sentence is whole, only the last word is dropped, which may be half a word.
    """
    text = written.strip()
    if reason == "stop":
        return text
    whole = whole_sentences(text)
    if whole:
        return whole
    return _but_the_last_word(text) if len(text.split()) > LEAST_WORDS else text


def settled_text(written: str) -> str:
    """The beginning of what `finished_text` gives of any text that begins as this one, however it ends.

    Until a sentence is complete, all words but the last; from then on whole sentences, since what is cut later loses
    the rest. A character that is not whole yet, which is decoded as U+FFFD, counts as unwritten.
    """
    text = written.rstrip("\ufffd").strip()
    return whole_sentences(text, settled=True) or _but_the_last_word(text)


def _but_the_last_word(text: str) -> str:
    return text[: len(text) - len(text.split()[-1])].rstrip() if text else ""


def usable(text: str, reason: FinishReason) -> bool:
    """True if a summary says something: it has a word, or `LEAST_WORDS` if the deadline cut it short.

    What is too short to summarise is its own summary, also if it says nothing.
    """
    return reason == "short" or len(text.split(None, LEAST_WORDS)) >= (LEAST_WORDS if reason == "deadline" else 1)


def as_it_is(text: str, tokens: int, budget: TextBudget) -> WritingResult:
    """The summary of a text that is `too_short`: the text itself, or '' if it says nothing. No engine runs."""
    generation = Generation("short", 0, tokens, 1, 0, 1, budget.headroom_s)
    return WritingResult(text.strip() if readable(text) else "", generation, InputReport(tokens, tokens, False))


def too_short(text: str) -> bool:
    """True if a summary could only say what the text does not: it has `SHORT_WORDS` words at most, or says nothing."""
    return not readable(text) or (len(text) <= SHORT_CHARACTERS and len(text.split()) <= SHORT_WORDS)


def readable(text: str) -> bool:
    """True if a text has anything beside white space, control characters and marks of zero width."""
    return any(category(letter) not in _UNREADABLE for letter in text)


def words_for(tokens: int | None) -> int | None:
    """Estimates how many words fit into `tokens`, at least one; None for no limit."""
    return None if tokens is None else max(1, int(tokens * WORDS_PER_TOKEN))


def lead_of(source: str, most_words: int | None = None) -> str:
    """The source's first sentence, at most `LEAD_WORDS` or `most_words` of it. Replaces an unusable summary.

    Empty only if the source holds nothing but whitespace and unreadable characters.
    """
    head = source.lstrip()[: 2 * MAX_CHARACTERS]  # no first sentence is longer, so the rest need not be split
    text = head if (spans := split_sentences(head)) else source
    spans = spans or split_sentences(source)
    if not spans:
        return source.strip()
    words = text[spans[0].start : spans[0].end].split()
    return " ".join(words[: min(LEAD_WORDS, most_words or LEAD_WORDS)])
