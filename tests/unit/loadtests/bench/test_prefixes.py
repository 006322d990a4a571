"""The report of what is gained where chats begin alike."""

from __future__ import annotations

import pytest

from loadtests.bench.prefixes import AGAIN, ANEW, EACH, KEPT, ONE, TOGETHER, Chat, Settings, report_of, report_of_equal
from loadtests.bench.writing import Written


def chat(kept_s: float, anew_s: float, said: str = "so") -> Chat:
    """A prompt whose first tokens came then, and on which both wrote, one of them perhaps something else."""
    return Chat({KEPT: Written(said, kept_s, 1.0), ANEW: Written("so", anew_s, 2.0)})


def test_the_report_has_the_share_of_each_pair() -> None:
    """Times are compared prompt by prompt, and texts that differ are counted."""
    chats = [chat(0.1, 1.0), chat(0.2, 1.0), chat(0.3, 1.0, "otherwise")]
    report = report_of("writer onnx-fp32", chats, Settings(chats=4, system=300))
    (table,) = report.tables
    assert [row[1] for row in table.rows] == ["200.0 ms", "1000.0 ms", "0.20 (0.10 to 0.30)"]
    assert "300 tokens in common" in table.note and report.remarks == ["2 of 3 texts are equal"]
    assert report.document["first_s"] == {KEPT: [0.1, 0.2, 0.3], ANEW: [1.0] * 3} and report.document["equal"] == 2
    assert chats[0].first_share == pytest.approx(0.1) and chats[0].is_equal and not chats[2].is_equal


def test_the_report_on_equal_requests_has_their_time_by_that_of_one() -> None:
    """Each text's times are divided by that of one request for it, and what differs is counted."""
    took = {ONE: [1.0, 2.0, 4.0], AGAIN: [0.5, 1.0, 2.0], TOGETHER: [1.0, 2.2, 6.0], EACH: [8.0, 16.0, 20.0]}
    report = report_of_equal("writer onnx-int8", took, 8, [True, False, True])
    (table,) = report.tables
    assert [row[1:] for row in table.rows] == [
        ["2.00 s", "1"],
        ["1.00 s", "0.50 (0.50 to 0.50)"],
        ["2.20 s", "1.10 (1.00 to 1.50)"],
        ["16.00 s", "8.00 (5.00 to 8.00)"],
    ]
    assert "8 equal requests" in table.title and report.remarks == ["2 of 3 texts are equal to that of one"]
    assert report.document["took_s"] == took
