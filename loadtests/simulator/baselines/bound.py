"""Requests bound to a variant when they arrive, a queue for each variant, and how many cores each may have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from loadtests.simulator.baselines.batches import by_deadline, filled, past_the_tight
from loadtests.simulator.baselines.known import Profile
from loadtests.simulator.central import Chosen
from loadtests.simulator.requests import Offered
from loadtests.simulator.variants import Variant


class BoundQueues:
    """One queue for each variant, each served earliest deadline first; the most urgent queue that may run goes first.

    A request that would be late even alone in its variant is dropped; a busy queue is served as `past_the_tight` says.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._variants: dict[Offered, Variant] = {}
        self._running: Counter[str] = Counter()

    def bind(self, request: Offered, variant: Variant) -> None:
        """From now on it waits for this variant."""
        self._variants[request] = variant

    def rebind(self, may_stay: Callable[[Variant], bool], choose: Callable[[Offered], Variant]) -> None:
        """Binds anew whatever waits for a variant that it may not stay with."""
        for request, variant in self._variants.items():
            if not may_stay(variant):
                self._variants[request] = choose(request)

    def choose(self, queue: Sequence[Offered], now_s: float, cores: Mapping[str, int] | None = None) -> Chosen:
        """What a free core runs: a batch of a variant that runs on fewer than its `cores`; of any, if none are told."""
        waiting: dict[str, list[Offered]] = {}
        lost = []
        for request in queue:
            variant = self._variants[request]
            if self._profile.is_lost(request, variant, now_s):
                lost.append(request)
            elif cores is None or self._running[variant.name] < cores.get(variant.name, 0):
                waiting.setdefault(variant.name, []).append(request)
        members: tuple[Offered, ...] = ()
        if waiting:
            ordered = sorted(min(waiting.values(), key=lambda of: min(map(by_deadline, of))), key=by_deadline)
            chosen = self._variants[ordered[0]]
            served = past_the_tight(self._profile, chosen, ordered, now_s, self._profile.window(chosen))
            members = filled(self._profile, chosen, served, self._profile.room_s(served[0], now_s))
            self._running[chosen.name] += 1
        for request in (*lost, *members):
            del self._variants[request]
        return Chosen(chosen if members else None, members, tuple(lost))

    def ended(self, variant: Variant) -> None:
        """A run of it has ended: its core is free."""
        self._running[variant.name] -= 1
