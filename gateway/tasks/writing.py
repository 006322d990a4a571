"""Service times of what writes token by token, whatever it reads: what a text takes, and what answers teach."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from gateway.model.messages import Answer, Generation, Parameters
from gateway.tasks.decoding import HEADROOM, DecodingTimes, Wanted, WritingTimes, was_short
from gateway.tasks.service_time import SLOWDOWN_WEIGHT, SMOOTHING, Slowdown, StepSharing


class WritingModel(ABC):
    """What answers teach of a checkpoint that writes them: their length, and the slowdown.

    A subclass says what texts take, and what a request wants.
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
