"""A replica's queue over time: arrivals, withdrawals and runs in any order, under the batch-forming rule."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from deployments.batch_forming import BatchLimits, Waiting, form_batch
from gateway.profile import LatencyProfile

PROFILE = LatencyProfile((1, 2, 8), (8, 64), ((0.02, 0.08), (0.03, 0.15), (0.08, 0.5)), sigma=0.2)
LIMITS = BatchLimits(max_batch=4, max_batch_tokens=128, max_padding_waste=0.25)


class ReplicaQueue(RuleBasedStateMachine):
    """One engine and its queue; every arrival must end in exactly one of: answered, expired, withdrawn."""

    def __init__(self) -> None:
        """An idle replica."""
        super().__init__()
        self.now = 0.0
        self.arrived = 0
        self.waiting: list[Waiting] = []
        self.running: tuple[Waiting, ...] = ()
        self.running_s = 0.0
        self.ended: list[int] = []
        self.withdrawn: set[int] = set()
        self.next_head: Waiting | None = None

    @rule(tokens=st.integers(1, 100), budget_s=st.floats(-0.5, 2.0), strict=st.booleans())
    def arrive(self, tokens: int, budget_s: float, strict: bool) -> None:
        """An input begins to wait."""
        entry = Waiting(self.arrived, tokens, self.now + budget_s, strict, self.now)
        self.waiting.append(entry)
        self.arrived += 1
        if self.next_head is not None and entry.deadline <= self.next_head.deadline:
            self.next_head = None

    @precondition(lambda self: self.running)
    @rule(tokens=st.integers(1, 64))
    def arrive_most_urgent(self, tokens: int) -> None:
        """During a run, an input arrives that is due before all others and can wait for the end of the run."""
        due = self.now + self.running_s + PROFILE.median_s(1, tokens) + 1e-6
        if all(due < other.deadline for other in self.waiting):
            self.next_head = Waiting(self.arrived, tokens, due, True, self.now)
            self.waiting.append(self.next_head)
            self.arrived += 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """A client leaves before its input runs."""
        entry = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(entry)
        self.next_head = None if entry is self.next_head else self.next_head
        self.withdrawn.add(entry.sequence)
        self.ended.append(entry.sequence)

    @precondition(lambda self: not self.running)
    @rule()
    def begin(self) -> None:
        """The idle engine takes the next batch."""
        formed = form_batch(self.waiting, self.now, LIMITS, PROFILE)
        gone = {*formed.entries, *formed.expired}
        self.waiting = [entry for entry in self.waiting if entry not in gone]
        self.ended += [entry.sequence for entry in formed.expired]
        self.running, self.running_s = formed.entries, formed.median_s
        assert all(entry.deadline >= self.now + formed.median_s for entry in formed.entries if entry.strict)
        assert not {entry.sequence for entry in formed.entries} & self.withdrawn, "a withdrawn entry was run"
        assert self.next_head is None or formed.entries[0] is self.next_head, "urgent work waited for two runs"
        self.next_head = None

    @precondition(lambda self: self.running)
    @rule()
    def finish(self) -> None:
        """The run ends after its median."""
        self.now += self.running_s
        self.ended += [entry.sequence for entry in self.running]
        self.running = ()

    @rule(pause_s=st.floats(0.0, 1.5))
    @precondition(lambda self: not self.running)
    def pause(self, pause_s: float) -> None:
        """Time passes on an idle engine, which no replica does while work waits: no promise of urgency holds then."""
        self.next_head = None
        self.now += pause_s

    @invariant()
    def none_is_lost_and_none_answered_twice(self) -> None:
        """Every arrival is in exactly one place."""
        places = [entry.sequence for entry in (*self.waiting, *self.running)] + self.ended
        assert sorted(places) == list(range(self.arrived))

    def teardown(self) -> None:
        """When arrivals stop, the queue drains: each further batch takes at least one entry."""
        for _ in range(len(self.waiting) + 1):
            if self.running:
                self.finish()
            self.begin()
        assert not self.waiting


TestReplicaQueue = ReplicaQueue.TestCase
TestReplicaQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
