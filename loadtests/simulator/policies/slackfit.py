"""SlackFit: chooses variant and batch size by the slack of the most urgent request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.scheduling.ruled import Chosen, RequestView, Rule
from loadtests.simulator.policies.batching import Profile
from loadtests.simulator.policies.setting import Setting
from loadtests.workload.variants import Variant

BUCKETS = 32
"""The number of latency buckets."""


@dataclass(frozen=True, slots=True)
class Control:
    """One control tuple: a variant and the first `members` of the queue, with `inputs` together."""

    variant: Variant
    members: int
    inputs: int
    latency_s: float


class SlackFit(Rule[Variant]):
    """SuperServe's policy.

    Source: Khare et al., "SuperServe: Fine-Grained Inference Serving for Unpredictable Workloads", NSDI 2025.

    One queue, earliest deadline first. Offline the latencies of all control tuples (variant, batch size) are put into
    evenly spaced buckets. Online the bucket whose latency is nearest below the slack of the most urgent request is
    taken, and from it the tuple with the largest batch, then of the highest quality.

    Simplified: variants stand for the paper's subnets, and switching between them is free as it is there. Generous:
    only batches that the queue can fill now count, so that a short queue gets quality rather than empty places in a
    batch; latencies are 95th percentiles at the members' own length; requests that would be late even alone in the
    fastest variant are dropped, where the paper lets them run late.
    """

    def __init__(self, setting: Setting) -> None:
        self._profile = Profile(setting)
        self._variants = setting.variants
        least_s = [self._profile.p95_s(variant, 1, setting.tokens) for variant in setting.variants]
        most_s = [self._profile.p95_s(variant, variant.max_batch, setting.tokens) for variant in setting.variants]
        self._least_s = min(least_s)
        self._width_s = max((max(most_s) - self._least_s) / BUCKETS, 1e-6)

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
        """The best tuple of the highest bucket within the slack, or the fastest run if there is none."""
        fastest = self._profile.fastest
        ordered, lost = self._profile.earliest_first(queue, fastest, now_s)
        if not ordered:
            return Chosen(drop=lost)
        slack_s = self._profile.available_s(ordered[0], now_s)
        controls = list(self._controls(ordered, slack_s))
        if not controls:
            return Chosen(fastest, self._profile.filled(fastest, ordered, slack_s), lost)
        best = max(controls, key=lambda one: (self._bucket(one.latency_s), one.inputs, one.variant.quality))
        return Chosen(best.variant, tuple(ordered[: best.members]), lost)

    def _bucket(self, latency_s: float) -> int:
        return int((latency_s - self._least_s) / self._width_s)

    def _controls(self, ordered: Sequence[RequestView], slack_s: float) -> Iterator[Control]:
        """Every variant with every prefix of the queue that ends within the slack."""
        for variant in self._variants:
            inputs = tokens = 0
            for members, request in enumerate(ordered, start=1):
                inputs, tokens = inputs + request.texts, max(tokens, request.tokens)
                if members > 1 and inputs > variant.max_batch:
                    break
                latency_s = self._profile.p95_s(variant, inputs, tokens)
                if latency_s > slack_s:
                    break
                yield Control(variant, members, inputs, latency_s)
