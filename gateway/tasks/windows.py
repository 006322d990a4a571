"""Overlapping windows of long texts, and how long an encoder takes for them: what tasks share that cut nothing.

Replica and forecast divide texts by the one rule, `windows_of`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from gateway.model.messages import Answer, Parameters
from gateway.model.profile import LatencyProfile
from gateway.tasks.service_time import BatchedModel

MOST_WINDOWS = 128
"""Windows that the texts of a request may take. Set by hand: of 28 ms each, as on two cores here, they take 3.6 s."""

PLANNED = 64
"""Most windows whose runs are forecast one by one; a longer text takes as much longer as it has more of them."""

MOST_KNOWN = 4096
"""Lengths whose windows' time is cached, since one decision asks for it many times."""


def windows_of(tokens: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """The windows of a text with that many tokens, specials not counted: first token, and the one after the last.

    `room` is the most tokens of one, `overlap` those that two neighbours share: fewer than the room.
    """
    if tokens <= room:
        return [(0, tokens)]
    return [(start, min(start + room, tokens)) for start in range(0, tokens - overlap, room - overlap)]


class WindowedModel(BatchedModel, ABC):
    """Service times of an encoder that takes long texts in windows, which are run as `runs_of` divides them."""

    def __init__(self, profile: LatencyProfile, window_tokens: int) -> None:
        """`window_tokens` is the most that the checkpoint takes at once, special tokens included."""
        super().__init__(profile, window_tokens)
        self._of_text: dict[int, float] = {}

    @abstractmethod
    def lengths(self, tokens: int, parameters: Parameters | None, place: int) -> list[int]:
        """The tokens of each window of a text, specials included; `place` is its place among those of the request.

        Without parameters, as they usually are.
        """

    def run_s(self, inputs: int, tokens: int) -> float:
        """Median seconds of a batch of equally long inputs."""
        of_text = self._of_text.get(tokens)
        if of_text is None:
            lengths = self.lengths(tokens, None, 0)
            if len(lengths) == 1:
                return super().run_s(inputs, lengths[0])
            if len(self._of_text) >= MOST_KNOWN:
                self._of_text.clear()
            of_text = self._of_text.setdefault(tokens, self._windows_s(lengths))
        return self.slowdown.value * inputs * of_text

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds of all windows, twice: there is one way. Companions are as long as the longest text."""
        texts = [self.lengths(one, parameters, place) for place, one in enumerate(tokens)]
        if all(len(one) == 1 for one in texts):
            return super().service_times_s([one[0] for one in texts], parameters, available_s, companions)
        lengths = [length for of_text in texts for length in of_text]
        lengths += texts[tokens.index(max(tokens))] * companions
        service_time_s = self.slowdown.value * self._windows_s(lengths)
        return service_time_s, service_time_s

    def learn(self, tokens: Sequence[int], parameters: Parameters, answer: Answer) -> None:
        """Learns the slowdown from texts of one window, since only their run is known."""
        if answer.input.windows == 1:
            super().learn(tokens, parameters, answer)

    def _windows_s(self, lengths: Sequence[int]) -> float:
        if len(lengths) <= PLANNED:
            return self._unlike_s(lengths)
        some = [lengths[at * len(lengths) // PLANNED] for at in range(PLANNED)]
        return self._unlike_s(some) * len(lengths) / PLANNED
