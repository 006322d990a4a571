"""Laws of the scheduler for any order of arrivals, ends, cancellations, and checkpoints that come and go."""

from __future__ import annotations

import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from played_queues import Played, PlayedQueue
from tried import tried

from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.task_queue import MOST_LATE, Batch

NAMES = ("brief", "grand", "swift", "whole", "wide")
eligible = st.one_of(st.none(), st.none(), st.frozensets(st.sampled_from(NAMES), min_size=1))
at = st.integers(0, 99)


class TaskQueueMachine(RuleBasedStateMachine):
    """Arrivals, time, batches that end early or late, clients that leave, slots and cores that change."""

    @initialize(cores=st.sampled_from([1.0, 1.3, 2.0, 3.0]))
    def opens(self, cores: float) -> None:
        """Create five checkpoints: three batch, one in a short time; one runs a text at a time; one takes two cores."""
        checkpoints = (
            Played("brief", 0.002, 70.0, slots=1),
            Played("grand", 0.020, 90.0, max_batch=4, slots=2),
            Played("swift", 0.004, 80.0, slots=2),
            Played("whole", 0.030, 95.0, max_batch=1, slots=1),
            Played("wide", 0.010, 85.0, max_batch=1, threads=2, slots=1),
        )
        self.play = PlayedQueue(checkpoints, cores)
        self.by_name = {one.name: one for one in checkpoints}
        self.waiting: list[QueuedRequest] = []
        self.running: list[Batch] = []
        self.came = self.done = self.left = 0

    @rule(
        budget_s=st.sampled_from([-0.01, 0.003, 0.006, 0.02, 0.05, 0.2, 5.0]),
        texts=st.sampled_from([1, 1, 1, 2, 5, 20]),
        strict=st.booleans(),
        who=eligible,
    )
    def arrive(self, budget_s: float, texts: int, strict: bool, who: frozenset[str] | None) -> None:
        """A request arrives, perhaps too late or with no checkpoint up."""
        held = self.play.queued_request(budget_s, texts, strict, who)
        self.play.arrivals.arrived(self.play.now_s, budget_s, (16,))
        self.play.queue.enter(held)
        self.waiting.append(held)
        self.came += 1
        self.look()

    @precondition(lambda self: self.running)
    @rule(before_s=st.sampled_from([0.0, 0.0005]))
    def a_run_nears_its_end(self, before_s: float) -> None:
        """A batch is about to end; nothing begins before it has."""
        self.play.now_s = max(self.play.now_s, min(run.ends_s for run in self.running) - before_s)
        self.look()

    @rule(seconds=st.sampled_from([0.0001, 0.001, 0.005, 0.02, 0.1, 1.0]))
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        self.play.now_s += seconds
        self.look()

    @precondition(lambda self: self.running)
    @rule(which=at, late_s=st.sampled_from([-1.0, -0.002, 0.0, 0.05]))
    def a_run_ends(self, which: int, late_s: float) -> None:
        """A batch ends earlier or later than expected, one member after the other."""
        release = self.running[which % len(self.running)]
        self.play.now_s = max(self.play.now_s, release.ends_s + late_s)
        while release.left:
            self.a_member_is_done(release)

    @precondition(lambda self: self.running)
    @rule(which=at)
    def a_member_leaves(self, which: int) -> None:
        """The client of a running request hangs up; the rest of its batch goes on."""
        self.a_member_is_done(self.running[which % len(self.running)])

    @precondition(lambda self: self.waiting)
    @rule(which=at)
    def a_waiter_leaves(self, which: int) -> None:
        """The client of a queued request hangs up."""
        held = self.waiting.pop(which % len(self.waiting))
        self.play.queue.leave(held)
        self.left += 1

    @rule(name=st.sampled_from(NAMES), slots=st.integers(0, 2))
    def lanes_change(self, name: str, slots: int) -> None:
        """Replicas of a checkpoint come or go."""
        self.by_name[name].slots = slots
        self.look()

    @rule(cores=st.sampled_from([1.0, 1.3, 2.0, 3.0]))
    def cores_change(self, cores: float) -> None:
        """Another gateway or a node comes or goes."""
        self.play.queue.cores = cores
        self.look()

    def a_member_is_done(self, release: Batch) -> None:
        """End one member of a batch."""
        self.play.queue.ended(release, self.play.now_s)
        self.done += 1
        assert release.left >= 0
        if not release.left:
            self.running.remove(release)
        self.look()

    def look(self) -> None:
        """Start every batch that can begin, and check each batch and each request that is given up."""
        now_s, scheduler = self.play.now_s, self.play.queue
        for held in scheduler.expired(now_s):
            self.is_lost_rightly(held)
            self.waiting.remove(held)  # fails if the request had gone before
            self.left += 1
        while (release := scheduler.next_batch(now_s)) is not None:
            self.is_right(release)
            for held in release.members:
                self.waiting.remove(held)
            self.running.append(release)
        self.no_core_idles()

    def is_lost_rightly(self, held: QueuedRequest) -> None:
        """Law: only a stranded request, a strict one that is too late, or one of too many late ones is given up."""
        assert isinstance(held, QueuedRequest)
        stranded = not any(one.slots and held.may(one.name) for one in self.by_name.values())
        late = self.play.now_s > held.last_s
        assert stranded or (late and held.strict) or (late and len(self.waiting) > MOST_LATE)
        assert self.play.queue.stranded(held) == stranded

    def is_right(self, release: Batch) -> None:
        """Laws: no expired strict request runs; members fit their checkpoint; batches fit the cores and slots."""
        now_s, checkpoint = self.play.now_s, self.by_name[release.checkpoint]
        assert release.members and release.left == len(release.members) == len(set(release.members))
        for held in release.members:
            assert isinstance(held, QueuedRequest) and held.may(checkpoint.name)
            assert not (held.strict and now_s > held.last_s)
        texts = sum(held.texts for held in release.members)
        assert len(release.members) == 1 or texts <= checkpoint.max_batch
        busy = sum(run.threads for run in self.running)
        assert release.threads == checkpoint.threads
        on_it = sum(run.checkpoint == checkpoint.name for run in self.running)
        assert on_it < checkpoint.slots
        assert not busy or busy + release.threads <= math.floor(self.play.queue.cores)
        assert release.ends_s > now_s and release.price >= 0

    def no_core_idles(self) -> None:
        """Law: no request waits while a checkpoint that it may have has a free slot and enough free cores."""
        busy = sum(run.threads for run in self.running)
        for one in self.by_name.values():
            on_it = sum(run.checkpoint == one.name for run in self.running)
            if on_it < one.slots and (not busy or busy + one.threads <= self.play.queue.cores):
                assert not any(held.may(one.name) for held in self.waiting)

    @invariant()
    def none_is_lost(self) -> None:
        """Law: each arrival is in exactly one place: queued, running, answered, given up or withdrawn."""
        if hasattr(self, "play"):
            under_way = sum(release.left for release in self.running)
            assert self.came == len(self.waiting) + under_way + self.done + self.left
            assert len(self.play.queue) == len(self.waiting)
            wake_s = self.play.queue.wake_s(self.play.now_s)
            assert wake_s is None or wake_s > self.play.now_s

    def teardown(self) -> None:
        """Without further arrivals, and with every checkpoint up, the scheduler becomes empty."""
        if hasattr(self, "play"):
            for one in self.by_name.values():
                one.slots = 1
            self.look()
            for _ in range(len(self.waiting) + len(self.running)):
                if self.running:
                    self.a_run_ends(0, 0.0)
            assert not self.waiting and not self.running and not len(self.play.queue)


TestTaskQueueMachine = TaskQueueMachine.TestCase
TestTaskQueueMachine.settings = tried(2.5, stateful_step_count=40)
