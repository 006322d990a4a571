"""What replicas that write share of answering: the reserve, deltas as they settle, and a report of input and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from deployments.replica.sentences import split_sentences
from deployments.replica.writing.time_slicing import FinishedJob
from gateway.model.messages import Delta, InputReport, ReplicaTimings


class GrowingAnswer:
    """One summary as it is streamed: what was emitted of it so far."""

    def __init__(self, index: int, emit: Callable[[Delta], None]) -> None:
        self._index = index
        self._emit = emit
        self._sent = ""

    @property
    def begun(self) -> bool:
        """True if something was emitted, which nothing else can replace."""
        return bool(self._sent)

    def take(self, settled: str) -> None:
        """Emits what is new of a summary's beginning."""
        if settled.startswith(self._sent):
            self._emit(Delta(self._index, settled[len(self._sent) :]))
            self._sent = settled

    def end(self, text: str) -> bool:
        """Emits the rest of the finished summary, by sentences; False if it does not begin as it was emitted."""
        if not text.startswith(self._sent):
            return False
        for sentence in _sentences(text[len(self._sent) :]):
            self._emit(Delta(self._index, sentence))
        self._sent = text
        return True


def _sentences(text: str) -> Iterator[str]:
    """Cuts a text behind each sentence; joined, they are the text."""
    at = 0
    for end in [*(span.end for span in split_sentences(text)[:-1]), len(text)]:
        if end > at:
            yield text[at:end]
            at = end


def reserve_s(remaining_s: float) -> float:
    """The part of a budget kept for sending the answer: 8 ms plus a fiftieth, at most 50 ms and at most a quarter.

    Sending takes 1 to 2 ms on a quiet machine; the rest is for a busy one.
    """
    return min(0.008 + max(remaining_s, 0.0) / 50, 0.05, max(remaining_s, 0.0) / 4)


def input_report(reports: Sequence[InputReport]) -> InputReport:
    """What was read of a request's texts together."""
    return InputReport(
        sum(one.tokens for one in reports), sum(one.kept for one in reports), any(one.truncated for one in reports)
    )


def timings(finished: Sequence[FinishedJob], total_s: float) -> ReplicaTimings:
    """Splits the total into the time of steps of all texts of the request and time spent waiting.

    Of several texts that stepped together each counts for its part.
    """
    texts = max(one.texts for one in finished)
    several = len(finished) > 1
    service_time_s = min(sum(one.service_time_s / (one.texts if several else 1) for one in finished), total_s)
    queueing_delay_s = min(one.queueing_delay_s for one in finished) if len(finished) == 1 else total_s - service_time_s
    return ReplicaTimings(max(queueing_delay_s, 0.0), service_time_s, total_s, texts)
