"""The load tracker: what an ingress assumes about each replica between two of its reports."""

from __future__ import annotations

import pytest

from gateway.forecasting.load import IDLE, LoadTracker, QueueAhead
from gateway.model.messages import LoadReport


def book(**backlogs_s: float) -> LoadTracker:
    """Return a tracker of the replicas of `c`, by name, as reported at time 0."""
    made = LoadTracker()
    for name, backlog_s in backlogs_s.items():
        made.reported("c", name, LoadReport(backlog_s, 0), 0.0)
    return made


def test_a_replica_works_one_second_off_in_one_second() -> None:
    """A reported backlog falls by a second each second, and not below 0."""
    load = book(a=1.0)
    assert [load.backlog_s("c", now_s) for now_s in (0.0, 0.25, 1.0, 9.0)] == [1.0, 0.75, 0.0, 0.0]


def test_what_was_sent_counts_until_the_replica_reports() -> None:
    """Dispatched work counts in the backlog until the next report of the replica replaces it."""
    load = book(a=1.0)
    load.dispatched("c", "a", 0.5, 0.5)
    assert load.backlog_s("c", 0.5) == pytest.approx(1.0)
    load.dispatched("c", "a", 0.5, 5.0)
    assert load.backlog_s("c", 5.0) == pytest.approx(0.5)
    load.reported("c", "a", LoadReport(0.125, 1), 5.0)
    assert load.backlog_s("c", 5.0) == 0.125


def test_the_least_loaded_is_found_as_of_now() -> None:
    """The least loaded replica has the smallest backlog at that moment, or comes first by name."""
    load = book(b=0.2, a=0.3)
    assert load.least_loaded("c", 0.0) == "b"
    load.dispatched("c", "b", 0.2, 0.0)
    assert load.least_loaded("c", 0.0) == "a"
    assert load.least_loaded("c", 9.0) == "a"
    assert load.backlog_s("c", 0.0) == pytest.approx(0.3)


def test_work_is_spread_over_equal_replicas() -> None:
    """Equal pieces of work are spread evenly over equal replicas."""
    load, sent = book(a=0.0, b=0.0, c=0.0), {"a": 0, "b": 0, "c": 0}
    for _ in range(30):
        name = load.least_loaded("c", 0.0)
        assert name is not None
        sent[name] += 1
        load.dispatched("c", name, 0.01, 0.0)
    assert set(sent.values()) == {10}


def test_one_that_drains_or_has_left_is_no_candidate() -> None:
    """A replica that drains or has left gets no work until it reports again."""
    load = book(a=0.0, b=5.0)
    load.reported("c", "a", LoadReport(0.0, 0, draining=True), 0.0)
    assert (load.least_loaded("c", 0.0), load.backlog_s("c", 0.0), load.replicas("c")) == ("b", 5.0, 1)
    load.left("c", "b")
    assert (load.least_loaded("c", 0.0), load.backlog_s("c", 0.0), load.replicas("c")) == (None, None, 0)
    load.dispatched("c", "b", 1.0, 0.0)
    assert load.replicas("c") == 0
    load.reported("c", "b", LoadReport(0.0, 0), 1.0)
    assert load.least_loaded("c", 1.0) == "b"


def test_nothing_is_known_of_strangers() -> None:
    """An unknown checkpoint or replica counts as down, and its leaving changes nothing."""
    load = book(a=1.0)
    load.left("c", "stranger")
    load.left("stranger", "a")
    load.dispatched("stranger", "a", 1.0, 0.0)
    assert (load.backlog_s("stranger", 0.0), load.least_loaded("stranger", 0.0), load.replicas("c")) == (None, None, 1)


def test_what_is_ahead_is_that_of_the_least_loaded() -> None:
    """The queue ahead is that of the least loaded replica, and none where no replica is up."""
    load = book(a=1.0)
    load.reported("c", "b", LoadReport(0.5, 2, sharing=3), 0.0)
    assert load.ahead("c", 0.25) == QueueAhead(0.25, 3)
    load.left("c", "b")
    assert load.ahead("c", 0.25) == QueueAhead(0.75, None)
    load.left("c", "a")
    assert load.ahead("c", 0.25) is None
    assert load.ahead("stranger", 0.25) is None


def test_what_was_sent_takes_turns_until_the_replica_reports() -> None:
    """Work sent to a time-slicing replica counts as sharing it until the next report; elsewhere it adds to a queue."""
    load = LoadTracker()
    load.reported("c", "a", LoadReport(0.0, 0, sharing=0), 0.0)
    load.dispatched("c", "a", 0.5, 0.0)
    load.dispatched("c", "a", 0.5, 0.0)
    assert load.ahead("c", 0.0) == QueueAhead(1.0, 2)
    load.reported("c", "a", LoadReport(0.25, 1, sharing=1), 0.0)
    assert load.ahead("c", 0.0) == QueueAhead(0.25, 1)
    load.reported("c", "a", LoadReport(0.25, 1), 0.0)
    load.dispatched("c", "a", 0.5, 0.0)
    assert load.ahead("c", 0.0) == QueueAhead(0.75, None)


@pytest.mark.parametrize(
    ("ahead", "service_time_s", "delay_s"),
    [
        (IDLE, 1.0, 0.0),
        (QueueAhead(3.0), 0.5, 3.0),
        (QueueAhead(3.0, 0), 0.5, 0.0),
        (QueueAhead(3.0, 2), 0.5, 1.0),
        (QueueAhead(3.0, 2), 2.0, 3.0),
        (QueueAhead(0.0, 2), 2.0, 0.0),
    ],
)
def test_a_short_request_waits_for_turns_and_not_for_the_backlog(
    ahead: QueueAhead, service_time_s: float, delay_s: float
) -> None:
    """On a time-slicing replica a short request waits only for the others' slices, not for the whole backlog."""
    assert ahead.delay_s(service_time_s) == delay_s


def test_memory_is_that_of_the_largest_replica() -> None:
    """The memory of a checkpoint is the largest that its replicas last reported, and unknown where none is up."""
    load = LoadTracker()
    assert load.memory_bytes("c") is None
    load.reported("c", "a", LoadReport(0.0, 0, memory_bytes=100), 0.0)
    load.reported("c", "b", LoadReport(0.0, 0, memory_bytes=300), 0.0)
    assert load.memory_bytes("c") == 300
    load.reported("c", "b", LoadReport(0.0, 0, draining=True, memory_bytes=300), 0.0)
    assert load.memory_bytes("c") == 100
