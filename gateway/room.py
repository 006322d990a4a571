"""The waiting room of one task: requests wait here until a core is free for them, and only then get their checkpoint.

A request that is sent at once to a busy replica is bound to its checkpoint by what was known when it came. Here it is
bound when its run can begin, together with those that will run beside it, at the congestion price of that moment. Which
run that is, is `next_run`'s rule. Pure: it is told the time, and neither knows how a run is made nor waits for one; the
live gateway and the simulator keep the same room.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.congestion import Congestion
from gateway.next_run import Checkpoint, Choice, Held, Moment, next_run, run_s_of
from gateway.overdue import OverdueShare
from gateway.traffic import Traffic

SQUEEZE = 2.0
"""Runs under way may be so many times the cores, where the next is of a request that cannot wait for one to end."""

LOOK_AHEAD = 256
"""Of longer queues only the most urgent so many are looked at when a run is chosen."""

OVERDUE_SHARE = 0.01
"""The part of the engines' time that goes to requests that are late in any case, while others could be in time."""

MOST_OVERDUE = 64
"""Requests that are late in any case and still wait; of more, those that came first are given up."""

_TICK_S = 1e-4


@dataclass(slots=True, eq=False)
class Release:
    """Requests whose run can begin, together, on one checkpoint; when it should end, and what a core-second costs.

    It keeps `threads` cores busy; `left` members are not yet answered.
    """

    checkpoint: str
    members: tuple[Held, ...]
    threads: int
    ends_s: float
    price: float
    left: int

    @property
    def untold(self) -> bool:
        """Whether no member has been answered yet: its answer says of the run all that those of the others will."""
        return self.left == len(self.members)


@dataclass(slots=True)
class Room:
    """Holds the requests of one task and says which go next.

    `cores`, those that its runs may keep busy, may be set anew at any time.
    """

    checkpoints: Sequence[Checkpoint]
    traffic: Traffic
    cores: float = 1.0
    _waiting: list[Held] = field(default_factory=list, init=False)
    _overdue: list[Held] = field(default_factory=list, init=False)
    _under_way: list[Release] = field(default_factory=list, init=False)
    _share: OverdueShare = field(default_factory=lambda: OverdueShare(OVERDUE_SHARE), init=False)
    _congestion: Congestion = field(init=False)

    def __post_init__(self) -> None:
        """Prices by the traffic it is given."""
        self._congestion = Congestion(self.traffic, self.checkpoints)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._overdue)

    def enter(self, held: Held) -> None:
        """A request begins to wait."""
        insort(self._waiting, held, key=_due)

    def leave(self, held: Held) -> None:
        """A request waits no longer, because its client has left; one that was released is no longer here."""
        for queue in (self._waiting, self._overdue):
            if held in queue:
                queue.remove(held)

    def ended(self, release: Release) -> None:
        """One member of a run is done with, whichever way; with the last of them its core is free."""
        release.left -= 1
        if release.left == 0:
            self._under_way.remove(release)

    @property
    def full(self) -> bool:
        """Whether no more can wait that are late in any case."""
        return len(self._overdue) >= MOST_OVERDUE

    def expired(self, now_s: float) -> list[Held]:
        """Takes out those who wait in vain: the strict that no checkpoint can answer in time any more, and of others,
        which are overdue then, the first where there are too many; and those whose checkpoints are all down.
        """
        lost: list[Held] = []
        up = [one.name for one in self.checkpoints if one.lanes]
        if len(up) < len(self.checkpoints):
            lost += [held for held in (*self._waiting, *self._overdue) if not any(map(held.may, up))]
            for held in lost:
                self.leave(held)
        while self._waiting and now_s + self._least_s(self._waiting[0]) > self._waiting[0].deadline_s:
            held = self._waiting.pop(0)
            (lost if held.strict else self._overdue).append(held)
        surplus = max(0, len(self._overdue) - MOST_OVERDUE)
        lost += self._overdue[:surplus]
        del self._overdue[:surplus]
        return lost

    def release(self, now_s: float) -> Release | None:
        """The next run that can begin now, its members taken out; None where none can. Call it until it says None."""
        if not (self._waiting or self._overdue):
            return None
        busy = sum(run.threads for run in self._under_way)
        free = math.floor(self.cores) - busy
        up = [one for one in self.checkpoints if self._lane(one) and (one.threads <= free or not busy)]
        if free > 0 and self._overdue and (not self._waiting or self._share.turn):
            return self._late(up, now_s)
        if not self._waiting:
            return None
        price = self.price(now_s)
        beside = free <= 0 or not up
        choice = self._squeezed(busy, price, now_s) if beside else self._next(up, free, price, now_s)
        return None if choice is None else self._begun(choice.checkpoint, choice.members, choice.run_s, price, now_s)

    def wake_s(self, now_s: float) -> float | None:
        """The instant at which the most urgent request is lost: ask again then, if not before. None: nothing waits."""
        if not self._waiting:
            return None
        return max(self._waiting[0].deadline_s - self._least_s(self._waiting[0]), now_s) + _TICK_S

    def price(self, now_s: float) -> float:
        """The congestion price as of now, in points of quality a core-second; 0 before any request has come."""
        if not self.traffic.lesson:
            return 0.0
        slacks_s = [held.deadline_s - now_s for held in self._waiting[:LOOK_AHEAD]]
        return self._congestion.price(slacks_s, self.cores, self._busy_s(now_s), now_s)

    def wait_s(self, deadline_s: float, now_s: float) -> float:
        """How long a request with this deadline would wait for a core at the least.

        Behind what runs, and what waits and is more urgent, each at the least it costs; those that will come meanwhile
        and are more urgent are not yet known, and not counted.
        """
        more_urgent = bisect_left(self._waiting, deadline_s, key=_due)
        if not more_urgent and sum(run.threads for run in self._under_way) < self.cores:
            return 0.0
        work_s = self._busy_s(now_s) + more_urgent * self._congestion.least_cost_s
        return work_s / max(self.cores, 1.0)

    def _lane(self, checkpoint: Checkpoint) -> bool:
        """Whether a replica of it would begin a run at once."""
        return sum(run.checkpoint == checkpoint.name for run in self._under_way) < checkpoint.lanes

    def _next(self, up: Sequence[Checkpoint], free: int, price: float, now_s: float) -> Choice | None:
        next_free_s = min((run.ends_s - now_s for run in self._under_way), default=math.inf) if free == 1 else math.inf
        moment = Moment(
            now_s=now_s,
            price=price,
            worth_left=self._congestion.worth_left,
            others_free=free - 1,
            next_free_s=max(next_free_s, _TICK_S),
            expected=self.traffic.ahead(now_s),
            budgets_s=self.traffic.budgets_s,
        )
        return next_run(self._waiting[:LOOK_AHEAD], up, moment)

    def _squeezed(self, busy: int, price: float, now_s: float) -> Choice | None:
        """The most urgent request beside the runs under way, where it cannot wait for one of them and need not.

        It takes time from those: where more is asked for than can be met that helps nobody, and where runs batch
        it is better served together with others in the next.
        """
        held = self._waiting[0]
        able = [one for one in self.checkpoints if self._lane(one) and held.may(one.name)]
        if not able or busy >= SQUEEZE * self.cores or self._congestion.worth_left <= 0:
            return None
        run_s, _, fastest = min((run_s_of(one, (held,)), one.name, one) for one in able)
        if fastest.max_batch > 1:
            return None
        room_s = held.deadline_s - now_s
        wait_s = min((run.ends_s - now_s for run in self._under_way), default=math.inf)
        shared_s = run_s * (busy + fastest.threads) / max(self.cores, 1.0)
        if wait_s + fastest.reach_s(run_s, now_s) <= room_s or fastest.reach_s(shared_s, now_s) > room_s:
            return None
        return Choice(0.0, fastest, (held,), shared_s)

    def _late(self, up: Sequence[Checkpoint], now_s: float) -> Release | None:
        """The oldest overdue request on the fastest checkpoint that may answer it, with as many more as fit beside."""
        held = self._overdue[0]
        able = [one for one in up if held.may(one.name)]
        if not able:
            return None
        _, _, fastest = min((run_s_of(one, (held,)), one.name, one) for one in able)
        joining = tuple(one for one in self._overdue if one.may(fastest.name))[: fastest.max_batch]
        run_s = run_s_of(fastest, joining)
        self._share.ran(run_s, overdue=True, contested=bool(self._waiting))
        return self._begun(fastest, joining, run_s, 0.0, now_s)

    def _begun(
        self, checkpoint: Checkpoint, members: tuple[Held, ...], run_s: float, price: float, now_s: float
    ) -> Release:
        gone = set(members)
        if members[0] not in self._overdue:
            self._share.ran(run_s, overdue=False, contested=bool(self._overdue))
        for queue in (self._waiting, self._overdue):
            queue[:] = [held for held in queue if held not in gone]
        ends_s = now_s + run_s / checkpoint.threads
        release = Release(checkpoint.name, members, checkpoint.threads, ends_s, price, len(members))
        self._under_way.append(release)
        return release

    def _busy_s(self, now_s: float) -> float:
        return sum(run.threads * max(run.ends_s - now_s, 0.0) for run in self._under_way)

    def _least_s(self, held: Held) -> float:
        """The least that any checkpoint could take of it, were all to go well."""
        able = (one for one in self.checkpoints if one.lanes and held.may(one.name))
        return min((run_s_of(one, (held,)) for one in able), default=0.0)


def _due(held: Held) -> float:
    return held.deadline_s
