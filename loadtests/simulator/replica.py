"""Replicas in the simulator: the live replica's rules over simulated runs.

Batches run as they are sent. The live functions choose the next batch and the next step; only the engine is simulated.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from deployments.replica.batcher import NextRun, next_run
from deployments.replica.writing.time_slicing import MOST_BEGUN, SLICE_S, Sharing, company, contested, next_text
from gateway.scheduling.late_share import LateShare
from loadtests.simulator.world import PATIENT, URGENT, Run, World
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

OnEnd = Callable[[Sequence[Offered], float, bool, int], None]
"""Called when members of a batch end.

It gets their service time in seconds, True if answered and False if expired, and the texts that ran with theirs.
"""

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
    lone: bool = False

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

    def enter(self, members: Sequence[Offered], on_end: OnEnd, lone: bool = False) -> None:
        """Takes a batch; a `lone` one had the node for itself when it was sent."""
        self._enter(members, on_end, lone and not (self._waiting or self._running))
        self._begin()

    def _enter(self, members: Sequence[Offered], on_end: OnEnd, lone: bool = False) -> None:
        deadlines_s = [request.deadline_s for request in members]
        median_s = self._variant.batch_s(*_size(members))
        batch = _Batch(members, on_end, median_s, min(deadlines_s), max(deadlines_s), lone)
        insort(self._waiting, batch, key=attrgetter("deadline_s"))

    def _begin(self) -> None:
        now_s = self._world.now_s
        self._expire(now_s)
        while self._waiting and self._running < self._slots:
            chosen = next_run(self._waiting, now_s, self._late_share)
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
                batch.on_end(lost, 0.0, False, 0)

    def _is_lost(self, request: Offered, now_s: float) -> bool:
        return request.strict and now_s + self._variant.median_s(1, request.tokens) > request.deadline_s

    def _run(self, chosen: NextRun[_Batch]) -> None:
        batch = chosen.run

        def done(run: Run) -> None:
            self._running -= 1
            self._begin()  # the engine works on while the answers go out
            batch.on_end(batch.members, self._world.now_s - run.began_s, True, inputs)

        self._running += 1
        if chosen.contested:
            self._late_share.ran(batch.median_s, late=chosen.late, contested=True)
        inputs, tokens = _size(batch.members)
        runs = self._variant.lone if batch.lone else None
        pace = 1.0 if runs is None else 1 / runs.share(inputs * tokens)
        seconds = batch.median_s * self._variant.times.noise(inputs, self._world.chance)
        self._world.node.start_work(self._variant, batch.members, seconds, done, URGENT, pace)


def _size(members: Sequence[Offered]) -> tuple[int, int]:
    """The texts of a batch, and the tokens that they are padded to."""
    return sum([one.texts for one in members]), max([one.tokens for one in members])


@dataclass(slots=True, eq=False, kw_only=True)
class _Text(Sharing):
    """A request's texts, one after the other. `reading_s` and `work_s` are what is left of it alone on the engine.

    It is read alone, a text in `each_s`, and then steps. `stepped_s` is the time of its turns, in each of which some
    texts took part.
    """

    request: Offered
    on_end: OnEnd
    each_s: float
    reading_s: float
    work_s: float
    begun: bool = False
    turns: int = 0
    stepped_s: float = 0.0
    stepped_texts: int = 0

    def took(self, passed_s: float, alone_s: float, texts: int) -> None:
        """Counts a turn of `passed_s` seconds with so many texts, which would have taken it `alone_s`."""
        self.turns += 1
        self.stepped_s += passed_s
        self.stepped_texts += texts
        self.attained_s += passed_s / texts
        self.left_s = max(self.left_s - alone_s, _LEAST_LEFT_S)
        if self.reading_s:
            self.reading_s = self.reading_s - alone_s if self.reading_s - alone_s > _DONE_S else 0.0
        else:
            self.work_s -= alone_s

    @property
    def texts(self) -> int:
        """The texts that stepped together with it, its own included, by the mean of its turns."""
        return max(self.request.texts, round(self.stepped_texts / max(self.turns, 1)))


def _alone(texts: int) -> float:
    return float(texts)


class SharingReplica:
    """A writer: its texts share the engine by time slicing, or step together where the variant's do.

    A text ends at its deadline: a strict one without an answer, another with a partial one that arrives late by the
    time of the return path.
    """

    def __init__(self, world: World, variant: Variant, slots: int) -> None:
        """Runs up to `slots` texts, or companies of texts, at once, at a lower priority than the node's classifiers."""
        self._world = world
        self._variant = variant
        self._slots = slots
        self._most = variant.max_batch if variant.joins else 1
        self._pace = variant.joins.pace if variant.joins else _alone
        self._late_share = LateShare(earned_s=SLICE_S)
        self._waiting: list[_Text] = []
        self._running = 0
        self._begun = 0
        self._sequence = 0
        self._texts = 0

    def __len__(self) -> int:
        return self._texts

    def enter(self, members: Sequence[Offered], on_end: OnEnd, lone: bool = False) -> None:
        """Queues the texts of each request as one job; they make no lone runs."""
        for request in members:
            self._enter(request, on_end)

    def _enter(self, request: Offered, on_end: OnEnd) -> None:
        self._sequence += 1
        self._texts += 1
        joins, texts = self._variant.joins, request.texts
        median_s = self._variant.median_s(1, request.tokens) * texts
        each_s = joins.reading_s(request.tokens) if joins else 0.0
        reading_s = each_s * texts
        noise = self._variant.times.noise(1, self._world.chance)
        text = _Text(
            sequence=self._sequence,
            deadline=request.deadline_s,
            left_s=median_s,
            request=request,
            on_end=on_end,
            each_s=each_s * noise,
            reading_s=reading_s * noise,
            work_s=(median_s - reading_s) * noise,
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
            late, both = text.late(now_s), contested(ready, now_s)
            self._turn(self._company(text, ready, now_s), late=late, contested=both)

    def _company(self, chosen: _Text, ready: Sequence[_Text], now_s: float) -> list[_Text]:
        """The texts of the next turn: the chosen one, and those that have been read and step with it."""
        if self._most == 1 or chosen.reading_s:
            return [chosen]
        others = [text for text in ready if text is not chosen and text.begun and not text.reading_s]
        return company(chosen, others, now_s, self._pace, self._most)

    def _turn(self, texts: Sequence[_Text], late: bool, contested: bool) -> None:
        slower, first = self._pace(len(texts)), texts[0]
        alone_s = min(first.each_s, first.reading_s) or min(SLICE_S / slower, *[text.work_s for text in texts])

        def done(run: Run) -> None:
            passed_s = self._world.now_s - run.began_s
            self._running -= 1
            self._late_share.ran(passed_s, late=late, contested=contested)
            for text in texts:
                text.took(passed_s, alone_s, len(texts))
                if text.work_s <= _DONE_S:
                    self._end(text, answered=True)
                else:
                    self._waiting.append(text)
            self._give_turns()

        for text in texts:
            self._waiting.remove(text)
        self._running += 1
        self._begun += not first.begun
        first.begun = True
        self._world.node.start_work(self._variant, [text.request for text in texts], alone_s * slower, done, PATIENT)

    def _end(self, text: _Text, answered: bool) -> None:
        self._begun -= text.begun
        self._texts -= 1
        text.on_end([text.request], text.stepped_s, answered, text.texts)


class WritingReplicas:
    """Replicas of a variant whose texts share steps, one on each core; a batch goes where the fewest texts are."""

    def __init__(self, world: World, variant: Variant, cores: int) -> None:
        """Starts with no text under way."""
        self._replicas = [SharingReplica(world, variant, 1) for _ in range(cores)]

    def enter(self, members: Sequence[Offered], on_end: OnEnd, lone: bool = False) -> None:
        """Takes a batch; writers make no lone runs."""
        min(self._replicas, key=len).enter(members, on_end)
