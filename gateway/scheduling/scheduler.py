"""The waiting room of one task: requests wait here until a core is free for them, and only then get their checkpoint.

A request that is sent at once to a busy replica is bound by what was known when it came. Here it is bound when its run
can begin, with those that will run beside it, at that moment's price. Which batch that is, is `next_batch`'s rule.
Pure: it is told the time, and runs nothing; the live gateway and the simulator have the same scheduler.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter

from gateway.forecasting.forecaster import ServedCheckpoint
from gateway.model.faults import Note, attempt, log_fault
from gateway.scheduling.arrivals import ArrivalStats
from gateway.scheduling.batching import (
    QueuedRequest,
    SchedulingContext,
    fastest,
    late_batch,
    may_have,
    next_batch,
    run_s_of,
    within,
)
from gateway.scheduling.late_share import LateShare
from gateway.scheduling.price import HORIZONS_S, CapacityPrice

SQUEEZE = 2.0
"""Runs may be so many times the cores, where the next is of a request that cannot wait for one to end."""

SHORT_S, SHORT_IN_RUSH_S = 0.003, 0.03
"""Runs so short would leave their core idle for a part of the time that counts, were the next only sent when one has
ended: a fifth of theirs, or where more comes than can be met in the long run, a fiftieth."""

AHEAD_S = 0.0006
"""So long before a short run should end the next one is sent ahead: about a way to the replica and back."""

PRESSED_S = 0.1
"""A run that has no more than this in hand is left its core by the other tasks, of up to half the cores."""

LOOK_AHEAD = 256
"""Of longer queues only the most urgent so many are looked at."""

LATE_CORE_SHARE = 0.01
"""The part of the engines' time that goes to requests that are late in any case, while others could be in time."""

MOST_LATE = 64
"""Requests that are late in any case and still wait; of more, those that came first are given up."""
_LEAST_SHARE = 0.1
_TICK_S = 1e-4
_due = attrgetter("deadline_s")


@dataclass(slots=True, eq=False)
class Batch:
    """Requests whose run can begin, together, on one checkpoint; when it should end, and what a core-second costs.

    It keeps `threads` cores busy; `left` members are not yet done with. `told` is set by who learns of the first.
    """

    checkpoint: str
    members: tuple[QueuedRequest, ...]
    threads: int
    run_s: float
    ends_s: float
    price: float
    left: int
    told: bool = False


@dataclass(slots=True)
class Scheduler:
    """Holds the requests of one task and says which go next.

    `cores`, which its runs may keep busy, may be set anew at any time; the `neighbours` hold other tasks' requests for
    the same cores, and what those need at the least is not this task's to be generous with.
    """

    checkpoints: Sequence[ServedCheckpoint]
    arrivals: ArrivalStats
    note: Note = log_fault
    cores: float = 1.0
    neighbours: Sequence[Scheduler] = ()
    _waiting: list[QueuedRequest] = field(default_factory=list, init=False)
    _overdue: list[QueuedRequest] = field(default_factory=list, init=False)
    _under_way: list[Batch] = field(default_factory=list, init=False)
    _share: LateShare = field(default_factory=lambda: LateShare(LATE_CORE_SHARE), init=False)
    _soonest_s: float = field(default=math.inf, init=False)
    """No later than when the first of those who wait begins to wait in vain."""
    _congestion: CapacityPrice = field(init=False)

    def __post_init__(self) -> None:
        """Prices by the traffic it is given."""
        self._congestion = CapacityPrice(self.arrivals, self.checkpoints)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._overdue)

    def enter(self, held: QueuedRequest) -> None:
        """A request begins to wait."""
        insort(self._waiting, held, key=_due)
        self._soonest_s = min(self._soonest_s, held.last_s)

    def leave(self, held: QueuedRequest) -> None:
        """A request waits no longer, because its client has left; one that was released is no longer here."""
        for queue in (self._waiting, self._overdue):
            if held in queue:
                queue.remove(held)

    def ended(self, release: Batch) -> None:
        """One member of a run is done with, whichever way; with the last of them its core is free."""
        release.left -= 1
        if release.left == 0:
            self._under_way.remove(release)

    @property
    def full(self) -> bool:
        """Whether no more can wait that are late in any case."""
        return len(self._overdue) >= MOST_LATE

    def stranded(self, held: QueuedRequest) -> bool:
        """Whether none of the checkpoints that may answer it is up."""
        return not may_have(held, {one.name for one in self.checkpoints if one.slots})

    def expired(self, now_s: float) -> list[QueuedRequest]:
        """Takes out who waits in vain: the strict that can no more be in time, of others, which are overdue then, the
        first where there are too many; and those whose checkpoints are all down."""
        lost: list[QueuedRequest] = []
        up = {one.name for one in self.checkpoints if one.slots}
        if len(up) < len(self.checkpoints):
            lost += [held for held in (*self._waiting, *self._overdue) if not may_have(held, up)]
            self._without(lost)
        if now_s > self._soonest_s:
            late = [held for held in self._waiting if now_s > held.last_s]
            self._without(late)
            self._soonest_s = min((held.last_s for held in self._waiting), default=math.inf)
            lost += [held for held in late if held.strict]
            self._overdue += [held for held in late if not held.strict]
        surplus = max(0, len(self._overdue) - MOST_LATE)
        lost += self._overdue[:surplus]
        del self._overdue[:surplus]
        return lost

    def release(self, now_s: float) -> Batch | None:
        """The next run that can begin now, its members taken out; None where none can. Call it until it says None.

        Before, ask who has `expired`.
        """
        if not (self._waiting or self._overdue):
            return None
        busy = sum(run.threads for run in self._under_way)
        left = min(sum(room.pressed(now_s) for room in self.neighbours), math.floor(self.cores / 2))
        free = max(math.floor(self.cores), 1) - busy - left
        if free > 0:
            up = [one for one in self.checkpoints if self._slot(one) and (one.threads <= free or not busy)]
            begun = self._late(up, now_s, contested=bool(self._waiting)) if self._share.turn else None
            begun = begun or self._next(up, free, now_s) or self._late(up, now_s, contested=False)
            if begun:
                return begun
        elif self._waiting and self._gap_s(now_s) <= AHEAD_S and busy <= self.cores:
            following = {run.checkpoint for run in self._under_way}
            begun = self._next([one for one in self.checkpoints if one.slots], 1, now_s, following)
            if begun:
                return begun
        return self._squeezed(busy, now_s)

    def release_plainly(self, now_s: float) -> Batch | None:
        """The most urgent request alone, on the least of its checkpoints: for when choosing a batch fails."""
        if sum(run.threads for run in self._under_way) >= max(math.floor(self.cores), 1):
            return None
        up = [one for one in self.checkpoints if self._slot(one)]
        for held in (*self._waiting, *self._overdue):
            able = [one for one in up if held.may(one.name)]
            if able:
                return self._begun(able[-1], (held,), 0.0, 0.0, now_s)
        return None

    def wake_s(self, now_s: float) -> float | None:
        """When the first of those who wait is lost or a run can be sent ahead: ask again then. None: nobody waits."""
        if not self._waiting:
            return None
        lost_s = max(self._soonest_s, now_s) + _TICK_S
        gap_s = self._gap_s(now_s)
        return min(lost_s, now_s + gap_s - AHEAD_S + _TICK_S) if AHEAD_S < gap_s < math.inf else lost_s

    def price(self, now_s: float) -> float:
        """The capacity price as of now, in points of quality a core-second.

        It is 0 before any request has come, and where pricing fails.
        """
        if not self.arrivals.lesson:
            return 0.0
        return attempt("pricing", self.note, lambda: self._priced(now_s), lambda: 0.0)

    def _priced(self, now_s: float) -> float:
        waiting = [bisect_right(self._waiting, now_s + horizon_s, key=_due) for horizon_s in HORIZONS_S]
        waiting.append(len(self._waiting))
        cores = self._left_by(room.demand(now_s) for room in self.neighbours)
        return self._congestion.price(waiting, cores, self._busy_s(now_s), now_s)

    def demand(self, now_s: float) -> float:
        """The cores that its requests would keep busy of late, each at the least it costs."""
        return min(self.arrivals.rate(now_s) * self._congestion.least_cost_s, self.cores)

    def pressed(self, now_s: float) -> int:
        """The cores on which its runs could hardly bear to be held up."""
        return sum(run.threads for run in self._under_way if run.members[0].deadline_s - run.ends_s < PRESSED_S)

    def wait_s(self, deadline_s: float, now_s: float) -> float:
        """How long a request with this deadline would wait for a core at the least.

        Behind what runs, and what is more urgent and can yet begin in time (half a turn allowed for), each at the least
        it costs. Who will come meanwhile, or waits further back than is looked, is not counted.
        """
        more_urgent = bisect_left(self._waiting, deadline_s, key=_due)
        if not more_urgent and sum(run.threads for run in self._under_way) < self.cores:
            return 0.0
        turn_s = self._congestion.least_cost_s / max(self.cores, 1.0)
        turn_ends_s = now_s + self._busy_s(now_s) / max(self.cores, 1.0) + turn_s / 2
        for held in self._waiting[: min(more_urgent, LOOK_AHEAD)]:
            if turn_ends_s <= held.last_s:
                turn_ends_s += turn_s
        return turn_ends_s - turn_s / 2 - now_s

    def _left_by(self, taken: Iterable[float]) -> float:
        return max(self.cores - sum(taken), _LEAST_SHARE * self.cores)

    def _gap_s(self, now_s: float) -> float:
        """How long until one of the runs under way should end, where all are short; infinite where one is not."""
        short_s = SHORT_S if self._congestion.crowded_s < math.inf else SHORT_IN_RUSH_S
        return math.inf if any(run.run_s > short_s for run in self._under_way) else self._first_end_s(now_s)

    def _first_end_s(self, now_s: float) -> float:
        return min((run.ends_s - now_s for run in self._under_way), default=math.inf)

    def _slot(self, checkpoint: ServedCheckpoint) -> bool:
        """Whether a replica of it would begin a run at once."""
        return sum(run.checkpoint == checkpoint.name for run in self._under_way) < checkpoint.slots

    def _next(
        self, up: Sequence[ServedCheckpoint], free: int, now_s: float, only: Set[str] | None = None
    ) -> Batch | None:
        """The best run of those who may have what is free; none where it is not `only` on one of these."""
        names = {one.name for one in up}
        able = list(islice((held for held in self._waiting if may_have(held, names)), LOOK_AHEAD))
        if not able:
            return None
        price = self.price(now_s)
        context = SchedulingContext(
            now_s=now_s,
            price=price,
            utility_left=self._congestion.utility_left,
            crowded_s=self._congestion.crowded_s,
            others_free=free - 1,
            next_free_s=max(self._first_end_s(now_s), _TICK_S) if free == 1 else math.inf,
            expected=self.arrivals.ahead(now_s),
            budgets_s=self.arrivals.budgets_s,
        )
        choice = next_batch(able, up, context)
        if choice is None or (only is not None and choice.checkpoint.name not in only):
            return None
        members, run_s = within(choice.checkpoint, choice.members), choice.run_s
        if len(members) < len(choice.members):
            run_s = run_s_of(choice.checkpoint, members)
        self._share.ran(run_s, overdue=False, contested=bool(self._overdue))
        return self._begun(choice.checkpoint, members, run_s, price, now_s)

    def _squeezed(self, busy: int, now_s: float) -> Batch | None:
        """The most urgent request beside the runs under way, where it cannot wait for one of them and need not.

        It takes time from those: where more is asked for than can be met that helps nobody, and where runs batch
        it is better served together with others in the next.
        """
        held = self._waiting[0] if self._waiting else None
        able = [one for one in self.checkpoints if held and self._slot(one) and held.may(one.name)]
        if not held or not able:
            return None
        chosen = fastest(able, held)
        if chosen.max_batch > 1 or busy + chosen.threads > SQUEEZE * self.cores:
            return None
        price = self.price(now_s)
        run_s, room_s = run_s_of(chosen, (held,)), held.deadline_s - now_s
        shared_s = run_s * (busy + chosen.threads) / max(self.cores, 1.0)
        can_wait = self._first_end_s(now_s) + chosen.reach_s(run_s, now_s) <= room_s
        if can_wait or self._congestion.utility_left <= 0 or chosen.reach_s(shared_s, now_s) > room_s:
            return None
        self._share.ran(run_s, overdue=False, contested=bool(self._overdue))
        return self._begun(chosen, (held,), shared_s, price, now_s)

    def _late(self, up: Sequence[ServedCheckpoint], now_s: float, *, contested: bool) -> Batch | None:
        choice = late_batch(self._overdue, up, together=contested)
        if choice is None:
            return None
        self._share.ran(choice.run_s, overdue=True, contested=contested)
        return self._begun(choice.checkpoint, choice.members, choice.run_s, 0.0, now_s)

    def _begun(
        self, checkpoint: ServedCheckpoint, members: Sequence[QueuedRequest], run_s: float, price: float, now_s: float
    ) -> Batch:
        self._without(members)
        ends_s = now_s + run_s / checkpoint.threads
        release = Batch(checkpoint.name, tuple(members), checkpoint.threads, run_s, ends_s, price, len(members))
        self._under_way.append(release)
        return release

    def _without(self, gone: Sequence[QueuedRequest]) -> None:
        if gone:
            those = set(gone)
            for queue in (self._waiting, self._overdue):
                queue[:] = [held for held in queue if held not in those]

    def _busy_s(self, now_s: float) -> float:
        return sum(run.threads * max(run.ends_s - now_s, 0.0) for run in self._under_way)
