"""Laws of a replica's queue over time: arrivals, withdrawals and runs in any order, under the batch-forming rule.

Four laws: no input is lost, none is answered twice, dead ones never run, and urgent ones wait only for what runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from deployments.replica.batch_forming import BatchLimits, FormedBatch, Waiting, form_batch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tried import tried

from gateway.model.profile import LatencyProfile
from gateway.scheduling.late_share import LateShare

PROFILE = LatencyProfile((1, 2, 8), (8, 64), ((0.02, 0.08), (0.03, 0.15), (0.08, 0.5)), sigma=0.2)
LIMITS = BatchLimits(max_batch=4, max_batch_tokens=128, max_padding_waste=0.25)


@dataclass(frozen=True)
class Run:
    """A batch in one thread of the engine, and when it ends."""

    ends: float
    entries: tuple[Waiting, ...]


class ReplicaQueue(RuleBasedStateMachine):
    """An engine of some threads, none of which idles while work waits; every arrival must end exactly once.

    `owed` is the urgent input that is checked: all threads were busy when it came, and nothing was due before it.
    """

    def __init__(self) -> None:
        """Starts with an idle replica."""
        super().__init__()
        self.now = 0.0
        self.threads = 1
        self.arrived = 0
        self.share = LateShare()
        self.waiting: list[Waiting] = []
        self.running: list[Run] = []
        self.answered: list[int] = []
        self.expired: list[int] = []
        self.withdrawn: list[int] = []
        self.owed: Waiting | None = None
        self.turns_passed = 0

    @initialize(threads=st.integers(1, 3))
    def begin(self, threads: int) -> None:
        """Draws how many threads the engine has."""
        self.threads = threads

    @rule(tokens=st.integers(1, 100), budget_s=st.floats(-0.5, 2.0), strict=st.booleans(), more=st.integers(0, 5))
    def arrive(self, tokens: int, budget_s: float, strict: bool, more: int) -> None:
        """A request arrives, with one input or several."""
        for _ in range(1 + more):
            entry = Waiting(self.arrived, tokens, self.now + budget_s, strict, self.now)
            self.arrived += 1
            if all(entry.deadline < other.deadline for other in self.waiting if not self.late(other)):
                self.owed, self.turns_passed = entry, 0
            self.waiting.append(entry)
        self.form()

    @precondition(lambda self: len(self.running) == self.threads)
    @rule(tokens=st.integers(1, 64), strict=st.booleans())
    def arrive_just_in_time(self, tokens: int, strict: bool) -> None:
        """An input arrives that can wait for the first of the runs to end, and for nothing else."""
        first_s = min(run.ends for run in self.running) - self.now
        self.arrive(tokens, first_s + PROFILE.median_s(1, tokens) + 1e-6, strict, 0)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """A client leaves before its input runs."""
        entry = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(entry)
        self.owed = None if entry is self.owed else self.owed
        self.withdrawn.append(entry.sequence)

    @precondition(lambda self: self.running)
    @rule()
    def finish(self) -> None:
        """The first run to end has ended."""
        first = min(self.running, key=lambda run: run.ends)
        self.running.remove(first)
        self.now = max(self.now, first.ends)
        self.answered += [entry.sequence for entry in first.entries]
        self.form()

    @rule(pause_s=st.floats(0.0, 0.3))
    def pause(self, pause_s: float) -> None:
        """Time passes, until the next run ends at most."""
        self.now = min([self.now + pause_s, *(run.ends for run in self.running)])

    def form(self) -> None:
        """Every idle thread takes a batch."""
        while self.waiting and len(self.running) < self.threads:
            turn = self.share.turn
            formed = form_batch(self.waiting, self.now, LIMITS, PROFILE, late_turn=turn, threads=self.threads)
            self.the_dead_are_never_run(formed)
            self.the_urgent_wait_for_no_more_than_what_runs(formed)
            gone = {*formed.entries, *formed.expired}
            self.waiting = [entry for entry in self.waiting if entry not in gone]
            self.expired += [entry.sequence for entry in formed.expired]
            if formed.entries:
                self.share.ran(formed.median_s, late=formed.late, contested=formed.contested)
                self.running.append(Run(self.now + formed.median_s, formed.entries))

    def the_dead_are_never_run(self, formed: FormedBatch[Waiting]) -> None:
        """No input runs whose client has left, that has expired, or that is strict and cannot be in time."""
        ran = {entry.sequence for entry in formed.entries}
        assert not ran & {*self.withdrawn, *self.expired, *self.answered}
        assert all(self.now + formed.median_s <= entry.deadline for entry in formed.entries if entry.strict)
        assert all(entry.strict and self.late(entry) for entry in formed.expired)

    def the_urgent_wait_for_no_more_than_what_runs(self, formed: FormedBatch[Waiting]) -> None:
        """An urgent input waits only until the first run ends that was under way when it came; the next batch has it.

        One batch of late inputs may come before it, and so may inputs that can wait, where not all can be in time.
        """
        owed = self.owed
        if owed is None or owed not in self.waiting or self.late(owed):
            self.owed = None
            return
        if formed.late and owed not in formed.entries:
            self.turns_passed += 1
            assert formed.contested and self.turns_passed == 1, "two turns of the overdue before what is urgent"
            return
        self.owed = None
        timely = sorted((entry for entry in self.waiting if not self.late(entry)), key=lambda entry: entry.deadline)
        ends = accumulate((PROFILE.median_s(1, entry.tokens) for entry in timely), initial=self.now)
        some_must_be_late = any(end > entry.deadline for end, entry in zip(list(ends)[1:], timely, strict=True))
        assert owed in formed.entries or (some_must_be_late and formed.efficiency > 1.1)

    def late(self, entry: Waiting) -> bool:
        """True if the entry would miss its deadline even if it ran alone right now."""
        return self.now + PROFILE.median_s(1, entry.tokens) > entry.deadline

    @invariant()
    def none_is_lost(self) -> None:
        """Every arrival is accounted for: it waits, runs, was answered, has expired or was withdrawn."""
        assert set(self.places()) == set(range(self.arrived))

    @invariant()
    def none_is_answered_twice(self) -> None:
        """No arrival is in two places, so none is answered twice or answered after it has expired."""
        assert len(self.places()) == len(set(self.places()))

    @invariant()
    def no_thread_idles_while_work_waits(self) -> None:
        """No thread idles while work waits: a batch never waits for companions."""
        assert not self.waiting or len(self.running) == self.threads

    def places(self) -> list[int]:
        """The sequence number of every arrival, from wherever it is now."""
        present = [*self.waiting, *(entry for run in self.running for entry in run.entries)]
        return [*(entry.sequence for entry in present), *self.answered, *self.expired, *self.withdrawn]

    def teardown(self) -> None:
        """The queue drains when arrivals stop, for each further batch takes at least one entry."""
        for _ in range(len(self.waiting) + len(self.running)):
            if self.running:
                self.finish()
        assert not self.waiting and not self.running


TestReplicaQueue = ReplicaQueue.TestCase
TestReplicaQueue.settings = tried(1.3, stateful_step_count=40)
