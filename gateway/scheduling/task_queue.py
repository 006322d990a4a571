"""The queue of one task: requests wait here for a core, and only then get their checkpoint.

A request sent at once to a busy replica is bound by what was known when it came. Here it is bound when its batch can
begin, together with the other members and at the price of that moment. `batching.next_batch` chooses the batch. The
queue is pure: callers pass the time, and it starts nothing. `scheduler` holds one for each task of a node.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter

from gateway.forecasting.forecaster import ServedCheckpoint
from gateway.model.faults import Note, attempt, log_fault
from gateway.scheduling.arrivals import ArrivalStats
from gateway.scheduling.batching import (
    QueuedRequest,
    SchedulingContext,
    late_batch,
    may_have,
    next_batch,
    run_s_of,
    within,
)
from gateway.scheduling.late_share import LateShare
from gateway.scheduling.price import HORIZONS_S, CapacityPrice
from gateway.tasks.service_time import StepSharing

PRESSED_S = 0.1
"""A batch with less headroom than this, in seconds, keeps its cores from other tasks, up to half of all.

Set by hand.
"""

LOOK_AHEAD = 256
"""Number of the most urgent queued requests that are considered, so that a long queue costs no more. Set by hand."""

LATE_CORE_SHARE = 0.01
"""Share of the engines' time for requests that are late already, while others could be in time. Set by hand."""

MOST_LATE = 64
"""Most late requests that may wait; beyond it the oldest are given up. Set by hand."""

_TICK_S = 1e-4
"""Added to a wake-up time, in seconds, so that its reason has come true by then."""

_due = attrgetter("deadline_s")


@dataclass(slots=True, eq=False)
class Batch:
    """Requests that start together on one checkpoint.

    It occupies `threads` cores, takes `run_s` core-seconds by the median and should end at `ends_s`. `price` is in
    points of quality per core-second. `left` members are not finished yet. `learnt` is set once the forecaster has used
    the first of their answers, or others have changed what it takes. One that joins others shares their cores, and
    occupies none; `joined` is the number of texts that it found under way. A lone one has the node for itself and goes
    `pace` times as fast as usual.
    """

    checkpoint: str
    members: tuple[QueuedRequest, ...]
    threads: int
    run_s: float
    ends_s: float
    price: float
    left: int
    learnt: bool = False
    joined: int = 0
    pace: float = 1.0

    def hurried(self, run_s: float, now_s: float) -> None:
        """Has a batch that begins take `run_s` seconds, since nothing else runs on the node."""
        self.pace = (self.ends_s - now_s) / run_s
        self.ends_s = now_s + run_s

    def slowed(self, now_s: float) -> None:
        """Has the rest of a hurried batch go on at the usual pace, since another begins."""
        self.ends_s = now_s + self.pace * max(self.ends_s - now_s, 0.0)
        self.pace, self.learnt = 1.0, True

    @property
    def texts(self) -> int:
        """The texts of members that are not finished, if all members have as many."""
        return -(-sum(member.texts for member in self.members) * self.left // len(self.members))


@dataclass(slots=True)
class TaskQueue:
    """Holds the queued requests of one task and says which run next.

    `cores` is the number of cores that its batches may occupy; it may be changed at any time. Of these the
    scheduler says how many are `kept` for batches of other tasks whose deadline is near.
    """

    checkpoints: Sequence[ServedCheckpoint]
    arrivals: ArrivalStats
    note: Note = log_fault
    cores: float = 1.0
    _waiting: list[QueuedRequest] = field(default_factory=list, init=False)
    _late: list[QueuedRequest] = field(default_factory=list, init=False)
    _under_way: list[Batch] = field(default_factory=list, init=False)
    _share: LateShare = field(default_factory=lambda: LateShare(LATE_CORE_SHARE), init=False)
    _soonest_s: float = field(default=math.inf, init=False)
    """A lower bound of when the first queued request becomes late."""
    _capacity_price: CapacityPrice = field(init=False)

    def __post_init__(self) -> None:
        """Prices core time by the given arrivals."""
        self._capacity_price = CapacityPrice(self.arrivals, self.checkpoints)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._late)

    def join(self, checkpoints: Sequence[ServedCheckpoint]) -> None:
        """Replaces the checkpoints by more. Requests that wait keep to those that they may have had until now."""
        known = frozenset(one.name for one in self.checkpoints)
        for queued in (*self._waiting, *self._late):
            if queued.eligible is None:
                queued.eligible = known
        self.checkpoints = checkpoints
        self._capacity_price = CapacityPrice(self.arrivals, checkpoints)

    def enter(self, queued: QueuedRequest) -> None:
        """Adds a request to the queue."""
        insort(self._waiting, queued, key=_due)
        self._soonest_s = min(self._soonest_s, queued.last_s)

    def leave(self, queued: QueuedRequest) -> None:
        """Removes a request whose client has left; one whose batch has begun is no longer here."""
        for queue in (self._waiting, self._late):
            if queued in queue:
                queue.remove(queued)

    def ended(self, batch: Batch, now_s: float) -> None:
        """Reports that one member of a batch is finished; the last of them frees its cores.

        If others have joined it, one of them keeps the cores, and all of them step faster from now on.
        """
        before = batch.texts
        batch.left -= 1
        sharing = [one for one in self._under_way if one.checkpoint == batch.checkpoint and one is not batch]
        if batch.left == 0:
            self._under_way.remove(batch)
            if batch.threads and (heir := next((one for one in sharing if not one.threads), None)) is not None:
                heir.threads = batch.threads
        checkpoint = next((one for one in self.checkpoints if one.name == batch.checkpoint), None)
        if sharing and checkpoint is not None and checkpoint.joins is not None:
            texts = sum(one.texts for one in sharing) + batch.texts
            quicker = checkpoint.joins.pace(texts) / checkpoint.joins.pace(texts + before - batch.texts)
            for one in sharing:
                one.ends_s = now_s + quicker * max(one.ends_s - now_s, 0.0)

    @property
    def full(self) -> bool:
        """True if no further late request may wait."""
        return len(self._late) >= MOST_LATE

    def stranded(self, queued: QueuedRequest) -> bool:
        """True if none of the checkpoints that may answer the request is up."""
        return not may_have(queued, self._up)

    def expired(self, now_s: float) -> list[QueuedRequest]:
        """Takes out the requests that no batch will serve: late strict ones, and those whose checkpoints are all down.

        Late best-effort requests move behind the others; beyond `MOST_LATE` of them, the oldest are taken out too.
        """
        lost: list[QueuedRequest] = []
        up = self._up
        if len(up) < len(self.checkpoints):
            lost += [queued for queued in (*self._waiting, *self._late) if not may_have(queued, up)]
            self._without(lost)
        if now_s > self._soonest_s:
            late = [queued for queued in self._waiting if now_s > queued.last_s]
            self._without(late)
            self._soonest_s = min([queued.last_s for queued in self._waiting], default=math.inf)
            lost += [queued for queued in late if queued.strict]
            self._late += [queued for queued in late if not queued.strict]
        surplus = max(0, len(self._late) - MOST_LATE)
        lost += self._late[:surplus]
        del self._late[:surplus]
        return lost

    def next_batch(self, now_s: float, kept: int = 0) -> Batch | None:
        """The next batch that can begin now, its members taken out; None if there is none.

        Call `expired` first, then this until it returns None.
        """
        if not (self._waiting or self._late):
            return None
        batch, busy = None, self._busy
        free = self._free(busy, kept)
        if free > 0:
            up = [one for one in self.checkpoints if self._slot(one) and (one.threads <= free or not busy)]
            batch = self._late_batch(up, now_s, contested=bool(self._waiting)) if self._share.turn else None
            batch = batch or self._next(up, free, now_s) or self._late_batch(up, now_s, contested=False)
        return batch or self._joining(now_s)

    def joinable(self, checkpoint: ServedCheckpoint, own: int) -> int | None:
        """The texts under way on a checkpoint that a request of so many would join now; None if it could join none."""
        if checkpoint.joins is None or self._waiting or self._late:
            return None
        texts = self._texts_on(checkpoint)
        return texts if 0 < texts <= checkpoint.max_batch - own else None

    def _texts_on(self, checkpoint: ServedCheckpoint) -> int:
        """The texts under way on each of a checkpoint's slots, by the mean."""
        texts = sum(batch.texts for batch in self._under_way if batch.checkpoint == checkpoint.name)
        return -(-texts // max(checkpoint.slots, 1))

    def _joining(self, now_s: float) -> Batch | None:
        """The most urgent request, if it may join others under way; None if not. The best checkpoint goes first.

        Sharing steps makes everybody slower. So a timely request joins only if it would be in time, and if nobody under
        way who would be in time comes too late by it. While the most urgent one cannot join nobody else does, so that a
        core becomes free for it. A late one joins where no timely one waits, or by its share of the cores.
        """
        late = bool(self._late) and (not self._waiting or self._share.turn)
        waiting = self._late if late else self._waiting
        if not waiting:
            return None
        queued = waiting[0]
        for checkpoint in self.checkpoints:
            if checkpoint.joins is None or not queued.may(checkpoint.name):
                continue
            texts = self._texts_on(checkpoint)
            if not texts or texts + queued.texts > checkpoint.max_batch:
                continue
            batch = self._joined(queued, checkpoint, checkpoint.joins, texts, now_s, late=late)
            if batch is not None:
                self._share.ran(batch.run_s, late=late, contested=bool(self._waiting and self._late))
                return batch
        return None

    def _joined(
        self,
        queued: QueuedRequest,
        checkpoint: ServedCheckpoint,
        sharing: StepSharing,
        texts: int,
        now_s: float,
        *,
        late: bool,
    ) -> Batch | None:
        """Has a request join so many texts on a checkpoint; None if that would make it or another late.

        Those under way wait while it is read, and step slower for as long as both go on.
        """
        tokens = queued.tokens[checkpoint.tokenizer]
        if queued.shape is None:
            run_s = checkpoint.run_s(texts + queued.texts, tokens)
        else:
            run_s = checkpoint.joined_s(queued.shape, texts)
        if not late and now_s + checkpoint.reach_s(run_s, now_s) > queued.deadline_s:
            return None
        held_s, own_s = queued.texts * sharing.reading_s(tokens), run_s / checkpoint.threads
        slower = sharing.pace(texts + queued.texts) / sharing.pace(texts) - 1
        others = [batch for batch in self._under_way if batch.checkpoint == checkpoint.name]
        later_s = [batch.ends_s + held_s + slower * min(max(batch.ends_s - now_s, 0.0), own_s) for batch in others]
        for batch, ends_s in zip(others, later_s, strict=True):
            if any(batch.ends_s <= member.deadline_s < ends_s for member in batch.members):
                return None
        for batch, ends_s in zip(others, later_s, strict=True):
            batch.ends_s, batch.learnt = ends_s, True
        self._without((queued,))
        batch = Batch(checkpoint.name, (queued,), 0, run_s, now_s + own_s, self.price(now_s), 1, joined=texts)
        self._under_way.append(batch)
        return batch

    def begin_at_once(
        self, checkpoint: ServedCheckpoint, queued: QueuedRequest, run_s: float, price: float, now_s: float, kept: int
    ) -> Batch | None:
        """Begins a request that has just come on the checkpoint of its decision, alone; None if it must wait.

        It begins if nothing waits, and a core and a slot are free. `run_s` is in core-seconds.
        """
        if self._waiting or self._late:
            return None
        busy, threads = self._busy, checkpoint.threads
        free = self._free(busy, kept)
        if free <= 0 or not self._slot(checkpoint) or (threads > free and busy):
            return None
        batch = Batch(checkpoint.name, (queued,), threads, run_s, now_s + run_s / threads, price, 1)
        self._under_way.append(batch)
        return batch

    def begin(self, checkpoint: ServedCheckpoint, members: Sequence[QueuedRequest], now_s: float) -> Batch:
        """Begins a batch that another policy has chosen of requests that do not wait here."""
        return self._begun(checkpoint, members, run_s_of(checkpoint, members), 0.0, now_s)

    @property
    def idle(self) -> bool:
        """True if no request of the task waits or runs."""
        return not (self._waiting or self._late or self._under_way)

    @property
    def _up(self) -> set[str]:
        """The checkpoints that have a replica, by name."""
        return {one.name for one in self.checkpoints if one.slots}

    @property
    def _busy(self) -> int:
        """The cores that running batches occupy."""
        busy = 0
        for batch in self._under_way:
            busy += batch.threads
        return busy

    def _free(self, busy: int, kept: int) -> int:
        """The whole cores that are neither busy nor kept for others, who may keep half of all."""
        return max(math.floor(self.cores), 1) - busy - min(kept, math.floor(self.cores / 2))

    def next_batch_plainly(self, now_s: float) -> Batch | None:
        """The most urgent request alone, on its checkpoint of lowest quality: used if choosing a batch fails."""
        if self._free(self._busy, 0) <= 0:
            return None
        up = [one for one in self.checkpoints if self._slot(one)]
        for queued in (*self._waiting, *self._late):
            able = [one for one in up if queued.may(one.name)]
            if able:
                return self._begun(able[-1], (queued,), 0.0, 0.0, now_s)
        return None

    def wake_s(self, now_s: float) -> float | None:
        """When to look again, since a request becomes late then; None if no timely request waits."""
        return max(self._soonest_s, now_s) + _TICK_S if self._waiting else None

    def price(self, now_s: float) -> float:
        """The capacity price now, in points of quality per core-second.

        It is 0 before any request has come, and if pricing fails.
        """
        if not self.arrivals.lesson:
            return 0.0
        return attempt("pricing", self.note, lambda: self._priced(now_s), lambda: 0.0)

    def _priced(self, now_s: float) -> float:
        waiting = [bisect_right(self._waiting, now_s + horizon_s, key=_due) for horizon_s in HORIZONS_S]
        waiting.append(len(self._waiting))
        return self._capacity_price.price(waiting, self.cores, self._busy_s(now_s), now_s)

    def pressed(self, now_s: float) -> int:
        """The cores whose batches have less than `PRESSED_S` of headroom."""
        pressed = 0
        for batch in self._under_way:
            if batch.members[0].deadline_s - batch.ends_s < PRESSED_S:
                pressed += batch.threads
        return pressed

    def wait_s(self, deadline_s: float, now_s: float) -> float:
        """A lower bound of the time until a request with this deadline gets a core, in seconds.

        It counts the running batches, and every more urgent request that can still be in time, at its cheapest. It does
        not count future arrivals, nor requests behind the first `LOOK_AHEAD`. Half a request is allowed for in judging
        who can be in time.
        """
        more_urgent = bisect_left(self._waiting, deadline_s, key=_due)
        if not more_urgent and self._busy < self.cores:
            return 0.0
        each_s = self._capacity_price.least_cost_s / max(self.cores, 1.0)
        free_s = now_s + self._busy_s(now_s) / max(self.cores, 1.0) + each_s / 2
        for queued in self._waiting[: min(more_urgent, LOOK_AHEAD)]:
            if free_s <= queued.last_s:
                free_s += each_s
        return free_s - each_s / 2 - now_s

    def _first_end_s(self, now_s: float) -> float:
        """Seconds until the first running batch should end; infinite if none runs."""
        return min((self._ends_s(batch) - now_s for batch in self._under_way if batch.threads), default=math.inf)

    def _slot(self, checkpoint: ServedCheckpoint) -> bool:
        """True if a replica of the checkpoint has a free slot."""
        name, taken = checkpoint.name, 0
        for batch in self._under_way:
            taken += batch.checkpoint == name and batch.threads > 0
        return taken < checkpoint.slots

    def _next(self, up: Sequence[ServedCheckpoint], free: int, now_s: float) -> Batch | None:
        """The best batch on one of these checkpoints; None if no timely request may have any of them."""
        names = {one.name for one in up}
        able = list(islice((queued for queued in self._waiting if may_have(queued, names)), LOOK_AHEAD))
        if not able:
            return None
        price = self.price(now_s)
        context = SchedulingContext(
            now_s=now_s,
            price=price,
            utility_left=self._capacity_price.utility_left,
            crowded=self._capacity_price.crowded,
            others=max(math.floor(self.cores), 1) - 1,
            next_free_s=max(self._first_end_s(now_s), _TICK_S) if free == 1 else 0.0,
            rate=self.arrivals.rate(now_s),
            least_cost_s=self._capacity_price.least_cost_s,
            budgets_s=self.arrivals.budgets_s,
        )
        planned = next_batch(able, up, context)
        if planned is None:
            return None
        members, run_s = within(planned.checkpoint, planned.members), planned.run_s
        if len(members) < len(planned.members):
            run_s = run_s_of(planned.checkpoint, members)
        self._share.ran(run_s, late=False, contested=bool(self._late))
        return self._begun(planned.checkpoint, members, run_s, price, now_s)

    def _late_batch(self, up: Sequence[ServedCheckpoint], now_s: float, *, contested: bool) -> Batch | None:
        planned = late_batch(self._late, up, together=contested)
        if planned is None:
            return None
        self._share.ran(planned.run_s, late=True, contested=contested)
        return self._begun(planned.checkpoint, planned.members, planned.run_s, 0.0, now_s)

    def _begun(
        self, checkpoint: ServedCheckpoint, members: Sequence[QueuedRequest], run_s: float, price: float, now_s: float
    ) -> Batch:
        self._without(members)
        ends_s = now_s + run_s / checkpoint.threads
        batch = Batch(checkpoint.name, tuple(members), checkpoint.threads, run_s, ends_s, price, len(members))
        self._under_way.append(batch)
        return batch

    def _without(self, gone: Sequence[QueuedRequest]) -> None:
        if gone:
            those = set(gone)
            for queue in (self._waiting, self._late):
                queue[:] = [queued for queued in queue if queued not in those]

    def _busy_s(self, now_s: float) -> float:
        """The core-seconds that batches under way still take; those that have joined others keep their cores."""
        busy_s = 0.0
        for batch in self._under_way:
            if batch.threads:
                busy_s += batch.threads * max(self._ends_s(batch) - now_s, 0.0)
        return busy_s

    def _ends_s(self, batch: Batch) -> float:
        """When the cores of a batch should become free."""
        ends_s = batch.ends_s
        for other in self._under_way:
            if not other.threads and other.checkpoint == batch.checkpoint and other.ends_s > ends_s:
                ends_s = other.ends_s
        return ends_s
