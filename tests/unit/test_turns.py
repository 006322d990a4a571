"""Whose turn it is: the pure rule."""

from __future__ import annotations

import pytest

from deployments.turns import TURN_S, Sharing, next_turn

NOW = 100.0


def text(sequence: int, attained_s: float = 0.0, slack_s: float = 60.0, left_s: float = 0.125) -> Sharing:
    """A text by what the rule looks at."""
    return Sharing(sequence=sequence, deadline=NOW + left_s + slack_s, attained_s=attained_s, left_s=left_s)


def test_who_had_least_goes_first() -> None:
    """Among texts with time enough, the one that had least of the engine; of equals, the earlier."""
    first, second, third = text(1, 0.3), text(2, 0.1), text(3, 0.1)
    assert next_turn([first, third, second], NOW) is second
    assert next_turn([first, third], NOW) is third


def test_who_cannot_wait_for_a_round_goes_before() -> None:
    """A text that would be late after one turn of each goes first, whatever it had; the least slack of several."""
    patient, pressed, hurried = text(1), text(2, 5.0, slack_s=TURN_S), text(3, 5.0, slack_s=TURN_S / 2)
    assert next_turn([patient, pressed], NOW) is pressed
    assert next_turn([patient, pressed, hurried], NOW) is hurried


def test_more_company_makes_urgent_sooner() -> None:
    """What can wait for one other text cannot wait for nine."""
    pressed = text(99, 5.0, slack_s=5 * TURN_S)
    assert next_turn([text(1), pressed], NOW).sequence == 1
    assert next_turn([*(text(at) for at in range(9)), pressed], NOW) is pressed


def test_who_is_lost_has_no_claim() -> None:
    """A text that will miss its deadline anyway has its turn by what it had, and holds nobody up."""
    lost, fair = text(1, 1.0, slack_s=-0.001), text(2, 0.9)
    assert next_turn([lost, fair], NOW) is fair
    assert next_turn([lost], NOW) is lost


@pytest.mark.parametrize("slack_s", [0.0, TURN_S - 1e-6])
def test_exactly_enough_is_enough(slack_s: float) -> None:
    """With no slack at all, but not less, a text is still worth hurrying for."""
    assert next_turn([text(1), text(2, 5.0, slack_s)], NOW).sequence == 2
