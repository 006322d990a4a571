"""Who steps together: whoever does not make a timely text late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.writing.time_slicing import Sharing, company, paces_of

NOW = 100.0


def text(sequence: int, slack_s: float, left_s: float, beams: int = 1) -> Sharing:
    """A text that can wait for so long."""
    return Sharing(sequence=sequence, deadline=NOW + left_s + slack_s, left_s=left_s, rows=beams)


def step_s(texts: int, rows: int) -> float:
    """A row more takes half as long as a step of one, and so does a source more."""
    return (texts + rows) / 2


TEXTS = st.lists(
    st.tuples(st.floats(-1, 5, allow_nan=False), st.floats(0.01, 3), st.integers(1, 4)), min_size=1, max_size=12
).map(lambda rows: [text(at, *values) for at, values in enumerate(rows)])


@given(TEXTS, st.integers(1, 8))
def test_no_timely_text_is_made_late_by_company(texts: list[Sharing], most: int) -> None:
    """Every member that would be in time alone is so at the pace of its company, which is never over its size.

    So it is with searches of any width, each of whose beams is a row.
    """
    members = company(texts[0], texts[1:], NOW, step_s, most)
    assert members[0] is texts[0] and len(members) <= most and len({one.sequence for one in members}) == len(members)
    if len(members) > 1:
        together_s = step_s(len(members), sum(one.rows for one in members))
        for one in members:
            assert one.late(NOW) or NOW + together_s / step_s(1, one.rows) * one.left_s <= one.deadline


def test_all_join_where_there_is_time() -> None:
    """With time to spare nobody steps alone; a text that has none to spare does."""
    easy = [text(at, 60.0, 1.0) for at in range(5)]
    assert company(easy[0], easy[1:], NOW, step_s, 8) == easy
    urgent = text(9, 0.1, 1.0)
    assert company(urgent, easy, NOW, step_s, 8) == [urgent]
    assert urgent not in company(easy[0], [*easy[1:], urgent], NOW, step_s, 8)


def test_a_wide_search_is_slowed_less_than_a_narrow_one() -> None:
    """What a step takes in company is as many times as long as alone as the text's own rows say."""
    assert paces_of([1], step_s) == [1.0]
    assert paces_of([1, 4], step_s) == [3.5, 1.4]
