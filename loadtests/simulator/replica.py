"""Replicas in the simulator: the live replica's rules over simulated runs.

Batches run as they are sent. The live functions choose the next batch and the next step; only the engine is simulated.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from deployments.replica.batcher import NextRun, next_run
from deployments.replica.writing.time_slicing import MOST_BEGUN, SLICE_S, Sharing, contested, next_text
from gateway.scheduling.late_share import LateShare
from loadtests.simulator.world import PATIENT, URGENT, Run, World
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

OnEnd = Callable[[Sequence[Offered], float, bool], None]
"""Called when members of a batch end, with their service time in seconds, and True if answered, False if expired."""

_DONE_S = 1e-9
_LEAST_LEFT_S = 1e-4


@dataclass(slots=True, eq=False)
class _Batch:
    """A batch at the replica: its members, its median time, what is called at their end, and its deadlines' ends."""

    members: Sequence[Offered]
    on_end: OnEnd
    median_s: float
    deadline_s: float
    latest_s: float

    def late(self, now: float) -> bool:
        """True if no member would be in time, were it run now."""
        return now + self.median_s > self.latest_s


class BatchingReplica:
    """A classifier: runs each batch as it was sent; those that wait, in order of deadline, late ones behind."""

    def __init__(self, world: World, variant: Variant, slots: int) -> None:
        """Runs up to `slots` batches at once."""
        self._world = world
        self._variant = variant
        self._slots = slots
        self._late_share = LateShare()
        self._waiting: list[_Batch] = []
        self._running = 0

    def enter(self, members: Sequence[Offered], on_end: OnEnd) -> None:
        """Takes a batch."""
        self._enter(members, on_end)
        self._begin()

    def _enter(self, members: Sequence[Offered], on_end: OnEnd) -> None:
        deadlines_s = [request.deadline_s for request in members]
        median_s = self._variant.batch_s(*_size(members))
        batch = _Batch(members, on_end, median_s, min(deadlines_s), max(deadlines_s))
        insort(self._waiting, batch, key=attrgetter("deadline_s"))

    def _begin(self) -> None:
        now_s = self._world.now_s
        self._expire(now_s)
        while self._waiting and self._running < self._slots:
            chosen = next_run(self._waiting, now_s, late_turn=self._late_share.turn)
            self._waiting.remove(chosen.run)
            self._run(chosen)

    def _expire(self, now_s: float) -> None:
        """Ends the strict requests that would be late even alone right now."""
        for batch in [batch for batch in self._waiting if now_s + batch.median_s > batch.deadline_s]:
            lost = [one for one in batch.members if self._is_lost(one, now_s)]
            if lost:
                self._waiting.remove(batch)
                if len(lost) < len(batch.members):
                    self._enter([one for one in batch.members if one not in lost], batch.on_end)
                batch.on_end(lost, 0.0, False)

    def _is_lost(self, request: Offered, now_s: float) -> bool:
        return request.strict and now_s + self._variant.median_s(1, request.tokens) > request.deadline_s

    def _run(self, chosen: NextRun[_Batch]) -> None:
        batch = chosen.run

        def done(run: Run) -> None:
            self._running -= 1
            self._late_share.ran(self._world.now_s - run.began_s, late=chosen.late, contested=chosen.contested)
            self._begin()  # the engine works on while the answers go out
            batch.on_end(batch.members, self._world.now_s - run.began_s, True)

        self._running += 1
        inputs, _ = _size(batch.members)
        seconds = batch.median_s * self._variant.times.noise(inputs, self._world.chance)
        self._world.node.start_work(self._variant, batch.members, seconds, done, URGENT)


def _size(members: Sequence[Offered]) -> tuple[int, int]:
    """The texts of a batch, and the tokens that they are padded to."""
    return sum([one.texts for one in members]), max([one.tokens for one in members])


@dataclass(slots=True, eq=False, kw_only=True)
class _Text(Sharing):
    request: Offered
    on_end: OnEnd
    work_s: float
    begun: bool = False


class SharingReplica:
    """A summarizer: its texts share the engine by time slicing.

    A text ends at its deadline: a strict one without an answer, another with a partial one that arrives late by the
    time of the return path.
    """

    def __init__(self, world: World, variant: Variant, slots: int) -> None:
        """Runs up to `slots` texts at once, at a lower priority than the node's classifiers."""
        self._world = world
        self._variant = variant
        self._slots = slots
        self._late_share = LateShare(earned_s=SLICE_S)
        self._waiting: list[_Text] = []
        self._running = 0
        self._begun = 0
        self._sequence = 0

    def enter(self, members: Sequence[Offered], on_end: OnEnd) -> None:
        """Queues the texts of each request as one job."""
        for request in members:
            self._enter(request, on_end)

    def _enter(self, request: Offered, on_end: OnEnd) -> None:
        self._sequence += 1
        median_s = self._variant.median_s(1, request.tokens) * request.texts
        text = _Text(
            sequence=self._sequence,
            deadline=request.deadline_s,
            left_s=median_s,
            request=request,
            on_end=on_end,
            work_s=median_s * self._variant.times.noise(1, self._world.chance),
        )
        self._waiting.append(text)
        self._give_turns()
        self._world.at(text.deadline, self._time_up, text)

    def _time_up(self, text: _Text) -> None:
        if text in self._waiting:
            self._give_turns()

    def _give_turns(self) -> None:
        now_s = self._world.now_s
        for text in [text for text in self._waiting if text.deadline <= now_s]:
            self._waiting.remove(text)
            self._end(text, answered=not text.request.strict)
        while self._running < self._slots:
            ready = [text for text in self._waiting if text.begun or self._begun < MOST_BEGUN]
            if not ready:
                break
            text = next_text(ready, now_s, late_turn=self._late_share.turn)
            self._turn(text, late=text.late(now_s), contested=contested(ready, now_s))

    def _turn(self, text: _Text, late: bool, contested: bool) -> None:
        turn_s = min(SLICE_S, text.work_s)

        def done(run: Run) -> None:
            passed_s = self._world.now_s - run.began_s
            self._running -= 1
            self._late_share.ran(passed_s, late=late, contested=contested)
            text.attained_s += passed_s
            text.work_s -= turn_s
            text.left_s = max(text.left_s - turn_s, _LEAST_LEFT_S)
            if text.work_s <= _DONE_S:
                self._end(text, answered=True)
            else:
                self._waiting.append(text)
            self._give_turns()

        self._waiting.remove(text)
        self._running += 1
        self._begun += not text.begun
        text.begun = True
        self._world.node.start_work(self._variant, (text.request,), turn_s, done, PATIENT)

    def _end(self, text: _Text, answered: bool) -> None:
        self._begun -= text.begun
        text.on_end([text.request], text.attained_s, answered)
