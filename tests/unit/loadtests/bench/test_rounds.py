"""What turns in rounds count and compare: their order, the rounds that count, spreads, ratios and targets."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from loadtests.bench.rounds import WARM_UP, Plan, Slot, Spread, Target, Turn, Turns, shown, take_turns

MANY = 16


@dataclass(frozen=True)
class Took:
    """A sample: so many seconds, and why it does not count."""

    seconds: float
    invalid: str = ""


def seconds(sample: Took) -> float:
    """The measure."""
    return sample.seconds


def turns(spoilt: Slot | None = None) -> Turns[Took]:
    """Three rounds and a warm-up, at two loads; `ours` takes twice as long as `theirs`, and all slow down alike."""
    taken = []
    for number in range(WARM_UP, 4):
        for load in (1, MANY):
            for name, base in (("theirs", 1.0), ("ours", 2.0)):
                slot = Slot(number, load, name)
                taken.append(Turn(slot, Took(base * (1 + number / 10), "3 errors" if slot == spoilt else "")))
    return Turns(tuple(taken))


def test_everyone_has_one_turn_at_each_load_in_every_round() -> None:
    """However it is shuffled, no contestant has more turns than another."""
    slots = Plan(["a", "b", "c"], (1, MANY), rounds=5, seed=1).slots()
    assert Counter(slots) == {Slot(n, c, name): 1 for n in range(6) for c in (1, MANY) for name in "abc"}


def test_the_turns_at_one_load_stand_together() -> None:
    """What is compared within a round was measured one after the other."""
    slots = Plan(["a", "b", "c"], (1, MANY), rounds=3, seed=1).slots()
    blocks = [slots[at : at + 3] for at in range(0, len(slots), 3)]
    assert all(len({(slot.round, slot.load) for slot in block}) == 1 for block in blocks)


def test_equal_seeds_give_equal_orders_and_the_order_changes_from_round_to_round() -> None:
    """A race can be repeated, and nobody always follows the same rival."""
    first, again = (Plan("abcd", (1, MANY), 5, seed=4).slots() for _ in range(2))
    assert first == again
    orders = {tuple(slot.contestant for slot in first[at : at + 4]) for at in range(0, len(first), 4)}
    assert len(orders) > 1


def test_every_slot_is_measured_in_order_and_the_warm_up_is_never_the_longest() -> None:
    """The measuring function is given each slot with its seconds; what it says stands beside the slot."""
    plan = Plan(["a", "b"], (1, 2), rounds=2, seconds=5.0, warm_up_seconds=9.0)
    told = io.StringIO()
    done = take_turns(plan, lambda slot, for_s: Took(for_s + slot.load), Console(file=told, width=120), "at once")
    assert [turn.slot for turn in done.taken] == plan.slots()
    assert all(turn.sample.seconds == 5.0 + turn.slot.load for turn in done.taken)
    short = replace(plan, warm_up_seconds=1.0)
    assert {short.seconds_of(slot) for slot in short.slots() if slot.round == WARM_UP} == {1.0}


def test_the_warm_up_does_not_count() -> None:
    """A figure is of the counted rounds alone."""
    assert turns().rounds(1) == [1, 2, 3]
    spread = turns().spread("ours", 1, seconds)
    assert spread is not None
    assert (spread.median, spread.low, spread.high) == pytest.approx((2.4, 2.2, 2.6))
    warm_up = Turns(tuple(turn for turn in turns().taken if turn.slot.round == WARM_UP))
    assert warm_up.spread("ours", 1, seconds) is None


def test_a_spoilt_turn_spoils_its_round_for_everyone_at_that_load() -> None:
    """A round in which one contestant erred is left out of all medians at that load, and only there; it is told."""
    found = turns(spoilt=Slot(2, 1, "ours"))
    assert found.rounds(1) == [1, 3] and found.rounds(MANY) == [1, 2, 3]
    assert list(found.by_round("theirs", 1, seconds)) == [1, 3]
    assert found.cautions("at once") == ["ours at 1 at once: 3 errors; round 2 does not count at that load"]
    assert turns(spoilt=Slot(WARM_UP, 1, "ours")).cautions() == ["ours: 3 errors; round (warm-up) does not count"]
    assert turns().cautions() == []


def test_ratios_are_taken_within_a_round() -> None:
    """A drift of the whole machine leaves a ratio as it is; a round that only one of both has gives none."""
    ratio = turns().ratio("ours", "theirs", 1, seconds)
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((2.0,) * 3)
    lacking = Turns(tuple(turn for turn in turns().taken if turn.slot != Slot(2, 1, "theirs")))
    assert len(lacking.ratios("ours", "theirs", 1, seconds)) == 2


def test_the_error_of_a_median_shrinks_with_the_rounds() -> None:
    """By the root of their number, as for the median of a normal distribution."""
    few, many = Spread.of([0.9, 1.1]), Spread.of([0.9, 1.1] * 1000)
    assert few is not None and few.error == pytest.approx(0.1 * 1.2533, rel=1e-3)
    assert many is not None and many.error == pytest.approx(0.1 * 1.2533 / 2000**0.5, rel=1e-3)
    assert (few.median, few.low, few.high) == pytest.approx((1.0, 0.9, 1.1))
    one = Spread.of([1.0])
    assert one is not None and one.error is None and Spread.of([]) is None


def test_a_target_is_kept_up_to_its_bound() -> None:
    """At the bound it is still met, beyond it is missed, from above as from below."""
    at = Spread(1.5, 1.0, 2.0)
    assert Target("latency", "fastapi-1", at, 1.5, at_most=True).met
    assert Target("throughput", "fastapi-1", at, 1.5, at_most=False).met
    assert not Target("latency", "fastapi-1", at, 1.49, at_most=True).met
    assert not Target("throughput", "fastapi-1", at, 1.51, at_most=False).met


def test_a_target_without_a_round_that_counts_is_missed() -> None:
    """Nothing measured is nothing kept, and the sentence says so."""
    verdict = Target("latency", "fastapi-1", None, 1.5).verdict()
    assert not verdict.met and "not measured" in verdict.sentence


def test_a_spread_is_shown_with_its_ends() -> None:
    """In the unit that is asked for; of nothing, a dash."""
    assert shown(Spread(0.0015, 0.001, 0.002), ".1f", 1000) == "1.5 (1.0 to 2.0)"
    assert shown(None) == "-"
