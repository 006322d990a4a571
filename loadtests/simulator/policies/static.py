"""The static choice: one variant for every request, as in most deployments."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.scheduling.ruled import Chosen, RequestView, Rule
from loadtests.simulator.policies.batching import Profile
from loadtests.simulator.policies.setting import Setting
from loadtests.workload.variants import Variant


class Static(Rule[Variant]):
    """Always the same variant: earliest deadline first, in the largest batch that keeps the first in time.

    The usual baseline of the papers. Its order, its batching and its dropping of requests that would be late even alone
    are generous.
    """

    def __init__(self, setting: Setting, variant: Variant) -> None:
        self._profile = Profile(setting)
        self._variant = variant

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
        """The largest batch that the most urgent request has time for."""
        ordered, lost = self._profile.earliest_first(queue, self._variant, now_s)
        if not ordered:
            return Chosen(drop=lost)
        window = self._profile.window(self._variant)
        served = self._profile.after_early_drop(self._variant, ordered, now_s, window)
        available_s = self._profile.available_s(served[0], now_s)
        return Chosen(self._variant, self._profile.filled(self._variant, served, available_s), lost)
