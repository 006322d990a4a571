"""The static choice: one variant for every request, as most deployments have it."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.simulator.baselines.batches import earliest_first, filled, past_the_tight
from loadtests.simulator.baselines.known import Profile
from loadtests.simulator.central import Chosen, Setting
from loadtests.simulator.requests import Offered
from loadtests.simulator.variants import Variant


class Static:
    """Always the same variant: earliest deadline first, with as many companions as keep the first in time.

    No paper, but what every paper compares itself with; the order, the batching and the dropping of what would be late
    even alone are generous.
    """

    def __init__(self, setting: Setting, variant: Variant) -> None:
        self._profile = Profile(setting)
        self._variant = variant

    def arrived(self, request: Offered, now_s: float) -> None:
        """Nothing to learn."""

    def choose(self, queue: Sequence[Offered], now_s: float) -> Chosen:
        """The largest batch that the most urgent request has the time for."""
        ordered, lost = earliest_first(self._profile, queue, self._variant, now_s)
        if not ordered:
            return Chosen(drop=lost)
        window = self._profile.window(self._variant)
        served = past_the_tight(self._profile, self._variant, ordered, now_s, window)
        room_s = self._profile.room_s(served[0], now_s)
        return Chosen(self._variant, filled(self._profile, self._variant, served, room_s), lost)

    def ended(self, variant: Variant, members: Sequence[Offered], seconds: float, now_s: float) -> None:
        """Nothing to learn."""
