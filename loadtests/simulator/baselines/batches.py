"""Forming batches from a queue: the order of deadlines, what is lost, and how many can go together in time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from operator import attrgetter

from loadtests.simulator.baselines.known import Profile
from loadtests.simulator.requests import Offered
from loadtests.simulator.variants import Variant

by_deadline = attrgetter("deadline_s")


def earliest_first(
    profile: Profile, queue: Sequence[Offered], variant: Variant, now_s: float
) -> tuple[list[Offered], tuple[Offered, ...]]:
    """The queue in order of deadlines, and apart from it what would be late even alone in a run of the variant."""
    lost = tuple(request for request in queue if profile.is_lost(request, variant, now_s))
    gone = set(lost)
    return sorted((request for request in queue if request not in gone), key=by_deadline), lost


def filled(
    profile: Profile, variant: Variant, ordered: Sequence[Offered], room_s: float, most: int | None = None
) -> tuple[Offered, ...]:
    """The first of the queue and as many behind it as one run of `room_s` seconds has place for, `most` inputs at most.

    One that does not fit is passed over. The first is taken whatever its size and however long it takes.
    """
    most = variant.max_batch if most is None else min(most, variant.max_batch)
    members = [ordered[0]]
    inputs, tokens = ordered[0].texts, ordered[0].tokens
    for request in islice(ordered, 1, None):
        if inputs >= most or profile.p95_s(variant, inputs + 1, tokens) > room_s:
            break
        more, longer = inputs + request.texts, max(tokens, request.tokens)
        if more <= most and profile.p95_s(variant, more, longer) <= room_s:
            members.append(request)
            inputs, tokens = more, longer
    return tuple(members)


def past_the_tight(
    profile: Profile, variant: Variant, ordered: Sequence[Offered], now_s: float, window: int
) -> Sequence[Offered]:
    """The queue from the first request that leaves time for `window` inputs, where so many wait behind it; else all.

    Nexus's early drop (Shen et al., SOSP 2019), without which a queue that is always late is served in batches of one.
    What is passed over goes on waiting: it is served if the rush ends in time, and lost if not.
    """
    if len(ordered) <= window:
        return ordered
    for place, request in enumerate(ordered):
        if len(ordered) - place < window:
            break
        if profile.p95_s(variant, window, request.tokens) <= profile.room_s(request, now_s):
            return ordered[place:]
    return ordered
