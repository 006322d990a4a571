"""How turns in rounds are ordered and compared: the rounds that count, spreads, ratios and targets."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from loadtests.bench.measuring.rounds import WARM_UP, Plan, Slot, Spread, Target, Turn, Turns, shown, take_turns

MANY = 16


@dataclass(frozen=True)
class Took:
    """A sample: its seconds, and why it does not count."""

    seconds: float
    invalid: str = ""


def seconds(sample: Took) -> float:
    """The measure that tests compare."""
    return sample.seconds


def turns(spoilt: Slot | None = None) -> Turns[Took]:
    """Three rounds and a warm-up at two loads; `ours` takes twice as long as `theirs`, and both slow down equally."""
    taken = []
    for number in range(WARM_UP, 4):
        for load in (1, MANY):
            for name, base in (("theirs", 1.0), ("ours", 2.0)):
                slot = Slot(number, load, name)
                taken.append(Turn(slot, Took(base * (1 + number / 10), "3 errors" if slot == spoilt else "")))
    return Turns(tuple(taken))


def test_everyone_has_one_turn_at_each_load_in_every_round() -> None:
    """Every contestant has exactly one turn at each load in every round."""
    slots = Plan(["a", "b", "c"], (1, MANY), rounds=5, seed=1).slots()
    assert Counter(slots) == {Slot(n, c, name): 1 for n in range(6) for c in (1, MANY) for name in "abc"}


def test_the_turns_at_one_load_stand_together() -> None:
    """All turns of one round at one load are measured one after the other."""
    slots = Plan(["a", "b", "c"], (1, MANY), rounds=3, seed=1).slots()
    blocks = [slots[at : at + 3] for at in range(0, len(slots), 3)]
    assert all(len({(slot.round, slot.load) for slot in block}) == 1 for block in blocks)


def test_equal_seeds_give_equal_orders_and_the_order_changes_from_round_to_round() -> None:
    """Equal seeds give equal orders, and the order of contestants changes from round to round."""
    first, again = (Plan("abcd", (1, MANY), 5, seed=4).slots() for _ in range(2))
    assert first == again
    orders = {tuple(slot.contestant for slot in first[at : at + 4]) for at in range(0, len(first), 4)}
    assert len(orders) > 1


def test_every_slot_is_measured_in_order_and_the_warm_up_is_never_the_longest() -> None:
    """Every slot is measured in its planned order and for its planned time; the sample is kept with its slot."""
    plan = Plan(["a", "b"], (1, 2), rounds=2, seconds=5.0, warm_up_seconds=9.0)
    told = io.StringIO()
    done = take_turns(plan, lambda slot, for_s: Took(for_s + slot.load), Console(file=told, width=120), "at once")
    assert [turn.slot for turn in done.taken] == plan.slots()
    assert all(turn.sample.seconds == 5.0 + turn.slot.load for turn in done.taken)
    short = replace(plan, warm_up_seconds=1.0)
    assert {short.seconds_of(slot) for slot in short.slots() if slot.round == WARM_UP} == {1.0}


def test_the_warm_up_does_not_count() -> None:
    """Figures are computed from the counted rounds alone, without the warm-up."""
    assert turns().rounds(1) == [1, 2, 3]
    spread = turns().spread("ours", 1, seconds)
    assert spread is not None
    assert (spread.median, spread.low, spread.high) == pytest.approx((2.4, 2.2, 2.6))
    warm_up = Turns(tuple(turn for turn in turns().taken if turn.slot.round == WARM_UP))
    assert warm_up.spread("ours", 1, seconds) is None


def test_a_spoilt_turn_spoils_its_round_for_everyone_at_that_load() -> None:
    """A round with a faulty turn counts for no contestant at that load, and a caution names it."""
    found = turns(spoilt=Slot(2, 1, "ours"))
    assert found.rounds(1) == [1, 3] and found.rounds(MANY) == [1, 2, 3]
    assert list(found.by_round("theirs", 1, seconds)) == [1, 3]
    assert found.cautions("at once") == ["ours at 1 at once: 3 errors; round 2 does not count at that load"]
    assert turns(spoilt=Slot(WARM_UP, 1, "ours")).cautions() == ["ours: 3 errors; round (warm-up) does not count"]
    assert turns().cautions() == []


def test_ratios_are_taken_within_a_round() -> None:
    """A ratio compares turns of one round, so a drift of the machine cancels out; incomplete rounds give no ratio."""
    ratio = turns().ratio("ours", "theirs", 1, seconds)
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((2.0,) * 3)
    lacking = Turns(tuple(turn for turn in turns().taken if turn.slot != Slot(2, 1, "theirs")))
    assert len(lacking.ratios("ours", "theirs", 1, seconds)) == 2


def test_the_error_of_a_median_shrinks_with_the_rounds() -> None:
    """The error of a median shrinks with the root of the number of rounds, as for a normal distribution."""
    few, many = Spread.of([0.9, 1.1]), Spread.of([0.9, 1.1] * 1000)
    assert few is not None and few.error == pytest.approx(0.1 * 1.2533, rel=1e-3)
    assert many is not None and many.error == pytest.approx(0.1 * 1.2533 / 2000**0.5, rel=1e-3)
    assert (few.median, few.low, few.high) == pytest.approx((1.0, 0.9, 1.1))
    one = Spread.of([1.0])
    assert one is not None and one.error is None and Spread.of([]) is None


def test_a_target_is_kept_up_to_its_bound() -> None:
    """A target is met exactly at its bound and missed beyond it, be it an upper or a lower bound."""
    at = Spread(1.5, 1.0, 2.0)
    assert Target("latency", "fastapi-1", at, 1.5, at_most=True).met
    assert Target("throughput", "fastapi-1", at, 1.5, at_most=False).met
    assert not Target("latency", "fastapi-1", at, 1.49, at_most=True).met
    assert not Target("throughput", "fastapi-1", at, 1.51, at_most=False).met


def test_a_target_without_a_round_that_counts_is_missed() -> None:
    """A target without a counted round is missed, and its sentence says that it was not measured."""
    verdict = Target("latency", "fastapi-1", None, 1.5).verdict()
    assert not verdict.met and "not measured" in verdict.sentence


def test_a_spread_is_shown_with_its_ends() -> None:
    """A spread shows its median and ends in the given unit; a missing one shows a dash."""
    assert shown(Spread(0.0015, 0.001, 0.002), ".1f", 1000) == "1.5 (1.0 to 2.0)"
    assert shown(None) == "-"
