"""Replicas in the simulator: the live replica's rules over simulated runs.

The live batching and time slicing functions choose the next batch or step; only the engine is simulated. A request
ends at its deadline even while the engine is busy, as it does live.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from deployments.replica.batch_forming import BatchLimits, RememberedMedians, Waiting, form_batch, of_next_batch
from deployments.replica.summarize.time_slicing import MOST_BEGUN, SLICE_S, Sharing, contested, next_text
from gateway.scheduling.late_share import LateShare
from loadtests.simulator.world import PATIENT, URGENT, Run, World
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

OnEnd = Callable[[Offered, float, bool], None]
"""Called when a request ends, with its service time in seconds, and True if answered, False if expired."""

_DONE_S = 1e-9
_LEAST_LEFT_S = 1e-4


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Input(Waiting):
    whole: _Whole


@dataclass(slots=True, eq=False)
class _Whole:
    """A request at the replica: its inputs left to answer, those waiting, and the start of its first run."""

    request: Offered
    on_end: OnEnd
    left: int
    waiting: set[int] = field(default_factory=set)
    began_s: float | None = None


class BatchingReplica:
    """A classifier: batches inputs of like length, earliest deadline first."""

    def __init__(self, world: World, variant: Variant, slots: int, limits: BatchLimits) -> None:
        """Runs up to `slots` batches at once."""
        self._world = world
        self._variant = variant
        self._slots = slots
        self._limits = limits
        self._medians = RememberedMedians(variant)
        self._late_share = LateShare()
        self._waiting: dict[int, _Input] = {}
        self._running = 0
        self._sequence = 0

    def enter(self, request: Offered, on_end: OnEnd, run: int = 0) -> None:
        """Queues the request's inputs for that run; batches are formed after all arrivals of the same instant."""
        whole = _Whole(request, on_end, request.texts)
        for _ in range(request.texts):
            self._sequence += 1
            whole.waiting.add(self._sequence)
            self._waiting[self._sequence] = _Input(
                sequence=self._sequence,
                tokens=request.tokens,
                deadline=request.deadline_s,
                strict=request.strict,
                enqueued_at=self._world.now_s,
                batch=run,
                whole=whole,
            )
        self._world.after(0.0, self._form)
        if request.strict:
            self._world.at(request.deadline_s, self._time_up, whole)

    def _time_up(self, whole: _Whole) -> None:
        if whole.waiting:
            self._give_up(whole)

    def _form(self) -> None:
        while self._waiting and self._running < self._slots:
            formed = form_batch(
                of_next_batch(self._waiting.values(), self._slots - self._running),
                self._world.now_s,
                self._limits,
                self._medians,
                late_turn=self._late_share.turn,
                threads=self._slots,
            )
            for entry in formed.expired:
                self._give_up(entry.whole)
            if formed.entries:
                self._late_share.ran(formed.median_s, late=formed.late, contested=formed.contested)
                self._run(formed.entries)

    def _run(self, entries: tuple[_Input, ...]) -> None:
        def done(run: Run) -> None:
            self._running -= 1
            for entry in entries:
                self._answered(entry.whole)
            self._form()

        for entry in entries:
            del self._waiting[entry.sequence]
            entry.whole.waiting.discard(entry.sequence)
            if entry.whole.began_s is None:
                entry.whole.began_s = self._world.now_s
        self._running += 1
        tokens = max(entry.tokens for entry in entries)
        self._world.node.start(self._variant, [entry.whole.request for entry in entries], tokens, done, URGENT)

    def _answered(self, whole: _Whole) -> None:
        """Counts one input as answered; the last one ends the request, timed from the start of its first run."""
        whole.left -= 1
        if whole.left == 0 and whole.began_s is not None:
            whole.on_end(whole.request, self._world.now_s - whole.began_s, True)

    def _give_up(self, whole: _Whole) -> None:
        """Fails the request after one of its inputs expired, and withdraws the others; running inputs are wasted."""
        if whole.left <= 0:
            return
        whole.left = 0
        for sequence in whole.waiting:
            del self._waiting[sequence]
        whole.waiting.clear()
        whole.on_end(whole.request, 0.0, False)


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

    def enter(self, request: Offered, on_end: OnEnd, run: int = 0) -> None:
        """Queues the request's texts as one job. `run` is ignored: time slicing has no batches."""
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
        text.on_end(text.request, text.attained_s, answered)
