"""The time-slicing rule, as a pure function: which text has the next time slice."""

from __future__ import annotations

import pytest

from deployments.replica.writing.time_slicing import SLICE_S, Sharing, contested, next_text

NOW = 100.0


def text(sequence: int, attained_s: float = 0.0, slack_s: float = 60.0, left_s: float = 0.125) -> Sharing:
    """A text with the facts that the rule reads."""
    return Sharing(sequence=sequence, deadline=NOW + left_s + slack_s, attained_s=attained_s, left_s=left_s)


def test_who_had_least_goes_first() -> None:
    """The text that has had least of the engine goes first, and of equals the earlier one."""
    first, second, third = text(1, 0.3), text(2, 0.1), text(3, 0.1)
    assert next_text([first, third, second], NOW) is second
    assert next_text([first, third], NOW) is third


def test_who_cannot_wait_for_a_round_goes_before() -> None:
    """A text that cannot wait one time slice for each other text goes first, and the least slack before all."""
    patient, pressed, hurried = text(1), text(2, 5.0, slack_s=SLICE_S), text(3, 5.0, slack_s=SLICE_S / 2)
    assert next_text([patient, pressed], NOW) is pressed
    assert next_text([patient, pressed, hurried], NOW) is hurried


def test_more_company_makes_urgent_sooner() -> None:
    """The more texts share the engine, the sooner a text counts as urgent."""
    pressed = text(99, 5.0, slack_s=5 * SLICE_S)
    assert next_text([text(1), pressed], NOW).sequence == 1
    assert next_text([*(text(at) for at in range(9)), pressed], NOW) is pressed


def test_who_is_lost_yields() -> None:
    """A late text yields to all that can be in time, however little it has had."""
    lost, fair = text(1, slack_s=-0.001), text(2, 4.0)
    assert next_text([lost, fair], NOW) is fair
    assert next_text([lost], NOW) is lost
    soon = text(3, 5.0, slack_s=3 * SLICE_S)
    assert next_text([soon, fair, *[lost] * 9], NOW).sequence == fair.sequence, "the lost make nobody hurry"


def test_the_lost_have_their_turn_when_it_is_theirs() -> None:
    """A slice reserved for late texts goes to the oldest of them; without late texts, it goes to the others."""
    older, younger, fair, pressed = text(1, 5.0, -0.1), text(2, slack_s=-0.2), text(3), text(4, slack_s=SLICE_S)
    assert next_text([younger, older, fair, pressed], NOW, late_turn=True) is older
    assert next_text([fair, pressed], NOW, late_turn=True) is pressed


def test_among_the_lost_who_had_least_goes_first() -> None:
    """If all texts are late, the one that has had least goes first."""
    older, younger = text(1, 5.0, -0.1), text(2, slack_s=-0.2)
    for late_turn in (False, True):
        assert next_text([older, younger], NOW, late_turn=late_turn) is younger


def test_the_engine_is_contested_where_both_kinds_wait() -> None:
    """The engine is contested only if both late texts and others wait."""
    lost, fair = text(1, slack_s=-0.1), text(2)
    assert contested([lost, fair], NOW)
    assert not contested([lost, lost], NOW) and not contested([fair], NOW) and not contested([], NOW)


@pytest.mark.parametrize("slack_s", [0.0, SLICE_S - 1e-6])
def test_exactly_enough_is_enough(slack_s: float) -> None:
    """A text with exactly enough time, and no slack at all, still counts as one that can be in time."""
    assert next_text([text(1), text(2, 5.0, slack_s)], NOW).sequence == 2
