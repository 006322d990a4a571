"""What tasks that write token by token share: priority, how texts end, what one takes, and what answers teach."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import get_args

from gateway.model.messages import Answer, FinishReason, Generation, Parameters
from gateway.model.tier import Tier
from gateway.tasks.decoding import HEADROOM, DecodingTimes, Wanted, WritingTimes, was_short
from gateway.tasks.service_time import SLOWDOWN_WEIGHT, SMOOTHING, Slowdown, StepSharing

NICENESS = {Tier.REALTIME: 5, Tier.BALANCED: 19, Tier.QUALITY: 19}
"""The operating system priority of what writes, by tier: it yields to what answers in one pass."""

ENDS: tuple[str, ...] = tuple(reason for reason in get_args(FinishReason) if reason != "short")
"""Why a text ends where none is too short to be written."""


class WritingModel(ABC):
    """Service times of a checkpoint that writes: groups of texts step together, and answers teach it their length.

    A subclass says what such a group takes, and what a request wants.
    """

    max_batch: int = 1
    joins: StepSharing | None = None

    def __init__(self, writing: WritingTimes, output_tokens: float) -> None:
        """Takes the two profiles, and the mean length of what is written if a request does not limit it."""
        self.sigma = max(writing.encoder.sigma, writing.steps.sigma)
        self.slowdown = Slowdown(SLOWDOWN_WEIGHT)
        self._writing = writing
        self._output_tokens = output_tokens

    @property
    @abstractmethod
    def usual(self) -> Parameters:
        """The parameters of a request that names none."""

    @abstractmethod
    def _wanted(self, parameters: Parameters) -> Wanted:
        """What a request asks for, within the checkpoint's own rules."""

    @abstractmethod
    def _forced(self, parameters: Parameters) -> bool:
        """True if a request asks for more tokens than are usual, so that its length says nothing of others."""

    @abstractmethod
    def _together(
        self, lengths: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds of texts that step together: as done within the available time, and the least."""

    def run_s(self, inputs: int, tokens: int) -> float:
        """Median seconds of so many texts of one length, each done the cheapest way, as many together as may be."""
        whole, rest = divmod(inputs, self.max_batch)
        full_s = whole * self._together([tokens] * self.max_batch, self.usual, 0.0)[1] if whole else 0.0
        return full_s + (self._together([tokens] * rest, self.usual, 0.0)[1] if rest else 0.0)

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds within the available time, and the least; groups of texts share the time equally.

        Companions are under way, and not read anew.
        """
        texts = parameters.answered(tokens)
        groups = [texts[at : at + self.max_batch] for at in range(0, len(texts), self.max_batch)]
        each = [self._together(group, parameters, available_s / len(groups), companions) for group in groups]
        return sum(fully_s for fully_s, _ in each), sum(least_s for _, least_s in each)

    def _midway(self, kept: int, tokens: int) -> int:
        """The tokens before the mean one of the steps that wrote `tokens` after `kept` ones."""
        return kept

    def learn(self, tokens: Sequence[int], parameters: Parameters, answer: Answer) -> None:
        """Learns the output length, and the slowdown from single texts in one piece."""
        if any(was_short(one) for one in answer.generation):
            return
        for one in answer.generation:
            self._learn_output(one, parameters)
        if len(answer.generation) == 1 and (one := answer.generation[0]).pieces == 1 and one.steps:
            texts = answer.timings.batch_size
            step_s = self._writing.shared_step_s(texts, one.beams * texts, self._midway(answer.input.kept, one.tokens))
            reading_s = self._writing.for_text(max(answer.input.kept - one.restored, 1)).encode_s
            profiled_s = reading_s + (one.steps - 1) * step_s
            self.slowdown.learn(answer.timings.service_time_s, profiled_s)

    def forget(self) -> None:
        """Resets the slowdown alone; the length of answers does not depend on the machine."""
        self.slowdown = Slowdown(SLOWDOWN_WEIGHT)

    def _learn_output(self, one: Generation, parameters: Parameters) -> None:
        """Learns the output length from a text that had time for more tokens than expected.

        How it ended does not decide: with little time left, only short texts end by themselves. One that was cut counts
        as at least the expected length. One that was forced to be longer says nothing.
        """
        expected = self._output_tokens
        ample = min(HEADROOM * expected, float(self._wanted(self.usual).max_new_tokens))
        if one.pieces == 1 and one.max_new_tokens >= ample and not self._forced(parameters):
            seen = one.tokens if one.finish_reason == "stop" else max(one.tokens, expected)
            self._output_tokens += SMOOTHING * (seen - expected)

    def _times(self, tokens: int) -> DecodingTimes:
        return self._writing.for_text(tokens, self.slowdown.value)
