"""Service time: how long an engine takes for a request, by the latency profile of its variant and what answers taught.

It turns characters into tokens and tokens into seconds, and learns both conversions from answers. Queueing, overhead
and quantiles are the forecaster's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Protocol

from gateway.forecasting.decoding import HEADROOM, DecodingTimes, Wanted, WritingTimes, leanest, plan, wanted_of
from gateway.model.manifest import ExtractiveManifest, Seq2SeqManifest, VariantManifest
from gateway.model.messages import Answer, Generation, Parameters, SummarizeParameters
from gateway.model.profile import LatencyProfile
from gateway.model.request import RequestShape

LEAST_SLOWDOWN, MOST_SLOWDOWN = 0.25, 8.0


class Slowdown:
    """A running average of what was seen against what the profile said, within bounds."""

    def __init__(self, weight: float) -> None:
        """`weight` is that of each new observation, from 0 to 1."""
        self.value = 1.0
        self._weight = weight

    def learn(self, took_s: float, profiled_s: float) -> None:
        """Takes what a run took that takes `profiled_s` by the profile alone."""
        if profiled_s > 0:
            seen = min(max(took_s / profiled_s, LEAST_SLOWDOWN), MOST_SLOWDOWN)
            self.value += self._weight * (seen - self.value)


_SMOOTHING = 0.05
_SLOWDOWN_WEIGHT = 0.1
_FIRST_TOKENS_PER_CHARACTER = 0.27
SPECIAL_TOKENS = 2
LARGEST_RUN = 16
"""Inputs of a classifier's largest run."""

_BATCH = 8
_SENTENCE_TOKENS = 32
_USUAL = SummarizeParameters()


class ServiceTimeModel(Protocol):
    """Service times of one checkpoint. It is told what answers took and reads no clock."""

    sigma: float
    max_batch: int
    """Inputs of different requests that one run of the engine may take; 1 where none share a run."""
    slowdown: Slowdown
    """How much longer than by the profile its runs take at this moment."""

    def run_s(self, inputs: int, characters: int) -> float:
        """Median seconds of one run of so many inputs of so many characters each, done at the least."""

    def service_times_s(self, asked: RequestShape, room_s: float, companions: int = 0) -> tuple[float, float]:
        """Median seconds as it would be done with `room_s` left of the budget, and as it is done at the least.

        `companions` is how many inputs of others, as long as these, are run together with them.
        """

    def learn(self, asked: RequestShape, answer: Answer) -> None:
        """Takes what became of a request."""

    def forget(self) -> None:
        """Takes the machine to be as quick again as it was when it was profiled."""


class TokenRate:
    """How many tokens texts have for their characters, learnt from answers."""

    def __init__(self) -> None:
        self.per_character = _FIRST_TOKENS_PER_CHARACTER

    def tokens(self, characters: int) -> int:
        """The tokens to expect of a text of so many characters, specials included."""
        return ceil(characters * self.per_character) + SPECIAL_TOKENS

    def learn(self, characters: Sequence[int], tokens: int) -> None:
        """Takes how many tokens, specials included, texts of these many characters had together."""
        of_text = tokens - SPECIAL_TOKENS * len(characters)
        if of_text > 0 and (total := sum(characters)) > 0:
            self.per_character += _SMOOTHING * (of_text / total - self.per_character)


class BatchedModel:
    """A classifier: its inputs cut to the window and run in batches of alike lengths."""

    max_batch = LARGEST_RUN

    def __init__(self, profile: LatencyProfile, window_tokens: int) -> None:
        """`window_tokens` is the most that the checkpoint takes of one input."""
        self.sigma = profile.sigma
        self._profile = profile
        self._window_tokens = window_tokens
        self._rate = TokenRate()
        self.slowdown = Slowdown(_SLOWDOWN_WEIGHT)
        self._known: list[list[float]] = []

    def tokens(self, characters: int) -> int:
        """The tokens to expect of a text of so many characters, specials included, cut to the window."""
        tokens = self._rate.tokens(characters)
        return tokens if tokens < self._window_tokens else self._window_tokens

    def run_s(self, inputs: int, characters: int) -> float:
        """Inputs as long as one another, in one batch."""
        return self.slowdown.value * self._median_s(inputs, self.tokens(characters))

    def service_time_s(self, characters: Sequence[int], companions: int = 0) -> float:
        """The median service time of inputs of these many characters, batched by alike lengths.

        Companions are run with the last of the batches, that of the longest.
        """
        if len(characters) == 1:
            return self.slowdown.value * self._median_s(1 + companions, self.tokens(characters[0]))
        lengths = sorted(map(self.tokens, characters))
        batches = [lengths[at : at + _BATCH] for at in range(0, len(lengths), _BATCH)]
        alone_s = sum(self._median_s(len(batch), batch[-1]) for batch in batches[:-1])
        return self.slowdown.value * (alone_s + self._median_s(len(batches[-1]) + companions, lengths[-1]))

    def service_times_s(self, asked: RequestShape, room_s: float, companions: int = 0) -> tuple[float, float]:
        """One way to do it, whatever the room. Of a single text, the common case, it is looked up without a call."""
        try:
            (characters,) = asked.characters
            known = self._known[companions]
        except (ValueError, IndexError):  # several texts, or the first with so many companions
            pass
        else:
            tokens = ceil(characters * self._rate.per_character) + SPECIAL_TOKENS
            known_s = known[tokens if tokens < self._window_tokens else self._window_tokens]
            if known_s:
                service_time_s = self.slowdown.value * known_s
                return service_time_s, service_time_s
        service_time_s = self.service_time_s(asked.characters, companions)
        return service_time_s, service_time_s

    def learn(self, asked: RequestShape, answer: Answer) -> None:
        """Learns tokens for characters, not from inputs that were cut, whose count the tokenizer may not give; and the
        pace from single inputs, of which alone it is told which run they were in.
        """
        if not answer.input.truncated:
            self.learn_tokens(asked.characters, answer.input.tokens)
        batch = answer.timings.batch_size
        if len(asked.characters) == 1 and batch > 0 and 0 < answer.input.kept <= self._window_tokens:
            profiled_s = self._median_s(batch, answer.input.kept)
            self.slowdown.learn(answer.timings.service_time_s, profiled_s)

    def forget(self) -> None:
        """The pace alone; how many tokens texts have is no matter of the machine's."""
        self.slowdown = Slowdown(_SLOWDOWN_WEIGHT)

    def learn_tokens(self, characters: Sequence[int], tokens: int) -> None:
        """Takes how many tokens, specials included, texts of these many characters had together."""
        self._rate.learn(characters, tokens)

    def _median_s(self, batch: int, tokens: int) -> float:
        """By the profile, remembered by batch size and length; 0 stands for a place that was not asked for yet."""
        while len(self._known) < batch:
            self._known.append([0.0] * (self._window_tokens + 1))
        of_batch = self._known[batch - 1]
        if not of_batch[tokens]:
            of_batch[tokens] = self._profile.median_s(batch, tokens)
        return of_batch[tokens]


class ExtractiveModel:
    """An extractive checkpoint: every sentence of every text through its encoder, in batches of alike lengths."""

    max_batch = 1

    def __init__(self, profile: LatencyProfile) -> None:
        """Takes the encoder's profile; a sentence counts as 32 tokens, as many as the texts measured had."""
        self.sigma = profile.sigma
        self._per_token_s = profile.median_s(_BATCH, _SENTENCE_TOKENS) / (_BATCH * _SENTENCE_TOKENS)
        self._least_s = profile.median_s(1, _SENTENCE_TOKENS)
        self._rate = TokenRate()
        self.slowdown = Slowdown(_SLOWDOWN_WEIGHT)

    def run_s(self, inputs: int, characters: int) -> float:
        """One text after the other."""
        return self.slowdown.value * self._profiled_s(inputs * self._rate.tokens(characters), inputs)

    def service_times_s(self, asked: RequestShape, room_s: float, companions: int = 0) -> tuple[float, float]:
        """The time to read all of it: one that stops halfway is not worth its place in the order of quality."""
        tokens = sum(map(self._rate.tokens, asked.characters))
        seconds = self.slowdown.value * self._profiled_s(tokens, len(asked.characters))
        return seconds, seconds

    def learn(self, asked: RequestShape, answer: Answer) -> None:
        """Learns tokens from texts that were read to their end, and the pace from what was read."""
        if not answer.input.truncated:
            self._rate.learn(asked.characters, answer.input.tokens)
        if answer.input.kept > 0:
            profiled_s = self._profiled_s(answer.input.kept, len(asked.characters))
            self.slowdown.learn(answer.timings.service_time_s, profiled_s)

    def forget(self) -> None:
        """The pace alone."""
        self.slowdown = Slowdown(_SLOWDOWN_WEIGHT)

    def _profiled_s(self, tokens: int, texts: int) -> float:
        return max(tokens * self._per_token_s, self._least_s * texts)


class AbstractiveModel:
    """An encoder-decoder: reads every piece of every text and writes token by token, as wide as the room allows."""

    max_batch = 1

    def __init__(self, manifest: Seq2SeqManifest) -> None:
        self._writing = WritingTimes.of(manifest)
        self.sigma = max(self._writing.encoder.sigma, self._writing.steps.sigma)
        self._window_tokens = manifest.max_tokens
        self._rules = manifest.generation
        self._output_tokens = manifest.output_tokens
        self._rate = TokenRate()
        self.slowdown = Slowdown(_SLOWDOWN_WEIGHT)

    def run_s(self, inputs: int, characters: int) -> float:
        """One text after the other, each with one beam."""
        return inputs * self._of_text(self._rate.tokens(characters), _USUAL, 0.0)[1]

    def service_times_s(self, asked: RequestShape, room_s: float, companions: int = 0) -> tuple[float, float]:
        """As wide as fits, and with one beam; each text of several has an equal share of the room."""
        texts = len(asked.characters)
        planned = least = 0.0
        for characters in asked.characters:
            fully_s, leanest_s = self._of_text(self._rate.tokens(characters), asked.parameters, room_s / texts)
            planned, least = planned + fully_s, least + leanest_s
        return planned, least

    def learn(self, asked: RequestShape, answer: Answer) -> None:
        """Learns tokens from texts that were taken whole, output from summaries with room to end by themselves, the
        pace from single texts in one piece.
        """
        if not answer.input.truncated:
            self._rate.learn(asked.characters, answer.input.tokens)
        for one in answer.generation:
            self._learn_output(one, asked.parameters)
        if len(answer.generation) == 1 and (one := answer.generation[0]).pieces == 1 and one.steps:
            times = self._writing.for_text(answer.input.kept)
            profiled_s = times.encode_s + (one.steps - 1) * times.step_s(one.beams)
            self.slowdown.learn(answer.timings.service_time_s, profiled_s)

    def forget(self) -> None:
        """The pace alone; how long summaries are is no matter of the machine's."""
        self.slowdown = Slowdown(_SLOWDOWN_WEIGHT)

    def _learn_output(self, one: Generation, parameters: Parameters) -> None:
        """Takes the tokens of a summary that had room for more than are expected, a cut one as no fewer than those.

        It is chosen by its room and not by how it ended: of summaries with little room only the short ones end by
        themselves. One that was made longer than it would have been says nothing.
        """
        expected = self._output_tokens
        ample = min(HEADROOM * expected, self._rules.max_new_tokens)
        forced = isinstance(parameters, SummarizeParameters) and (parameters.min_new_tokens or 0) > expected
        if one.pieces == 1 and one.max_new_tokens >= ample and not forced:
            seen = one.tokens if one.finish_reason == "stop" else max(one.tokens, expected)
            self._output_tokens += _SMOOTHING * (seen - expected)

    def _of_text(self, tokens: int, parameters: Parameters, room_s: float) -> tuple[float, float]:
        """A text over the window is read in pieces, and what was written of them is read once more.

        Each piece has its share of the room, and the last reading one too, as the replica has it.
        """
        wanted = self._wanted(parameters)
        chunked = isinstance(parameters, SummarizeParameters) and parameters.truncation == "chunk"
        pieces = ceil(tokens / self._window_tokens) if chunked else 1
        if pieces == 1:
            times = self._times(min(tokens, self._window_tokens))
            return plan(times, wanted, room_s).expected_s, leanest(times, wanted).expected_s
        piece = self._times(ceil(tokens / pieces))
        last = self._times(min(round(pieces * wanted.expected_tokens), self._window_tokens))
        read_s = pieces * plan(piece, wanted, room_s / (pieces + 1)).expected_s
        least_s = pieces * leanest(piece, wanted).expected_s + leanest(last, wanted).expected_s
        return read_s + plan(last, wanted, room_s - read_s).expected_s, least_s

    def _times(self, tokens: int) -> DecodingTimes:
        return self._writing.for_text(tokens, self.slowdown.value)

    def _wanted(self, parameters: Parameters) -> Wanted:
        given = parameters if isinstance(parameters, SummarizeParameters) else SummarizeParameters()
        return wanted_of(given, self._rules, self._output_tokens)


def service_time_model(manifest: VariantManifest) -> ServiceTimeModel:
    """The cost of a variant of any kind."""
    match manifest:
        case Seq2SeqManifest():
            return AbstractiveModel(manifest)
        case ExtractiveManifest():
            return ExtractiveModel(LatencyProfile.from_document(manifest.profile))
        case _:
            return BatchedModel(LatencyProfile.from_document(manifest.profile), manifest.max_tokens)
