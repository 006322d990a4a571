"""Who steps together: whoever does not make a timely text late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.writing.time_slicing import Sharing, company

NOW = 100.0


def text(sequence: int, slack_s: float, left_s: float) -> Sharing:
    """A text that can wait for so long."""
    return Sharing(sequence=sequence, deadline=NOW + left_s + slack_s, left_s=left_s)


def pace(rows: int) -> float:
    """A step of two takes half as long again as one of one."""
    return (1 + rows) / 2


TEXTS = st.lists(st.tuples(st.floats(-1, 5, allow_nan=False), st.floats(0.01, 3)), min_size=1, max_size=12).map(
    lambda rows: [text(at, slack, left) for at, (slack, left) in enumerate(rows)]
)


@given(TEXTS, st.integers(1, 8))
def test_no_timely_text_is_made_late_by_company(texts: list[Sharing], most: int) -> None:
    """Every member that would be in time alone is so at the pace of its company, which is never over its size."""
    members = company(texts[0], texts[1:], NOW, pace, most)
    assert members[0] is texts[0] and len(members) <= most and len({one.sequence for one in members}) == len(members)
    if len(members) > 1:
        slower = pace(len(members))
        assert all(one.late(NOW) or NOW + slower * one.left_s <= one.deadline for one in members)


def test_all_join_where_there_is_time() -> None:
    """With time to spare nobody steps alone; a text that has none to spare does."""
    easy = [text(at, 60.0, 1.0) for at in range(5)]
    assert company(easy[0], easy[1:], NOW, pace, 8) == easy
    urgent = text(9, 0.1, 1.0)
    assert company(urgent, easy, NOW, pace, 8) == [urgent]
    assert urgent not in company(easy[0], [*easy[1:], urgent], NOW, pace, 8)
