"""Whose turn it is: the rule by which texts under work share an engine step by step. Pure; the interleaver asks it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

TURN_S = 0.02
"""How long a text keeps the engine while others wait, in seconds, unless a single step takes longer."""


@dataclass(slots=True, eq=False, kw_only=True)
class Sharing:
    """A text as the rule sees it: its order of arrival, when it must be done, what it had and what it still needs."""

    sequence: int
    deadline: float
    attained_s: float = 0.0
    left_s: float = 0.0

    def slack_s(self, now: float) -> float:
        """What it can wait and still be done in time, by the median; negative where it cannot be."""
        return self.deadline - now - self.left_s

    def overdue(self, now: float) -> bool:
        """Whether it will miss its deadline even if it has the engine for itself from now on."""
        return self.slack_s(now) < 0


Text = TypeVar("Text", bound=Sharing)


def next_turn(waiting: Collection[Text], now: float, *, overdue_turn: bool = False) -> Text:
    """The text that gets the engine next.

    First whoever would miss its deadline by waiting for one round of the others, the least slack first. Else whoever
    has had least of the engine, so that a short text that comes while a long one is written is done in about twice its
    own time (least attained service: Nuyens and Wierman, "The Foreground-Background queue: a survey", Performance
    Evaluation 2008). Ties go to the earlier. A text that will miss its deadline in any case is overdue: it yields to
    all that can be in time, unless it is the turn of the overdue (`OverdueShare` says when); then it is the oldest's.
    """
    timely = [text for text in waiting if not text.overdue(now)]
    if not timely or (overdue_turn and len(timely) < len(waiting)):
        overdue = [text for text in waiting if text.overdue(now)]
        return min(overdue, key=_sequence if timely else _attained)
    round_s = TURN_S * len(timely)
    urgent = [text for text in timely if text.slack_s(now) < round_s]
    if urgent:
        return min(urgent, key=lambda text: (text.slack_s(now), text.sequence))
    return min(timely, key=_attained)


def contested(waiting: Collection[Sharing], now: float) -> bool:
    """Whether texts that can be in time and overdue ones both wait for the engine."""
    return len({text.overdue(now) for text in waiting}) > 1


def _attained(text: Sharing) -> tuple[float, int]:
    return text.attained_s, text.sequence


def _sequence(text: Sharing) -> int:
    return text.sequence
