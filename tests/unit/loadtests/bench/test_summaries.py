"""Summaries over HTTP: seeded draws of texts and budgets, requests one at a time, and answers as received."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median

import pytest

from loadtests.bench.summaries import (
    Asked,
    Ended,
    HeldoutText,
    Kind,
    NoTexts,
    Summarised,
    TextFiles,
    Unsummarised,
    asked_in_turn,
    longest_papers,
    mixed_texts,
    read_summary,
    requests_of,
)
from loadtests.client import Hung, NoReply, Reply

PAPER = HeldoutText(Kind.PAPERS, "a text", "its summary")
ANSWER = Summarised("one two three", "picks", "stop", 1, 1, lead=False, service_time_s=0.5, gateway_s=0.75)


@pytest.fixture
def files(tmp_path: Path) -> TextFiles:
    """Thirty papers of growing length, and four descriptions."""
    kinds = TextFiles(tmp_path / "papers.jsonl", tmp_path / "software.jsonl")
    for path, number in ((kinds.papers, 30), (kinds.software, 4)):
        rows = ({"name": "n", "text": f"{path.stem} {at}" + "." * at, "summary": f"sum {at}"} for at in range(number))
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return kinds


def test_half_of_the_texts_are_papers_and_equal_seeds_give_equal_requests(files: TextFiles) -> None:
    """Half of the texts are papers, equal seeds give equal requests, and scarce texts are reused evenly."""

    def draw(seed: int) -> list[Asked]:
        return requests_of(mixed_texts(21, seed, files), (0.1, 5.0), seed)

    drawn = draw(13)
    assert drawn == draw(13) != draw(14)
    kinds = [asked.text.kind for asked in drawn]
    assert kinds.count(Kind.PAPERS) == 11 and kinds != sorted(kinds)
    papers = [asked.text.text for asked in drawn if asked.text.kind is Kind.PAPERS]
    software = [asked.text.text for asked in drawn if asked.text.kind is Kind.SOFTWARE]
    assert len(set(papers)) == 11 and {software.count(one) for one in software} == {2, 3}
    assert len({asked.request_id for asked in drawn}) == 21


def test_budgets_are_log_uniform_over_the_range() -> None:
    """Budgets are log-uniform over the range: half of them lie under the geometric mean of its ends."""
    budgets_s = [asked.budget_s for asked in requests_of([PAPER] * 4000, (0.1, 5.0), seed=13)]
    assert 0.0999 < min(budgets_s) < 0.102 and 4.9 < max(budgets_s) < 5.001
    assert median(budgets_s) == pytest.approx((0.1 * 5) ** 0.5, rel=0.06)


def test_requests_are_pinned_to_the_checkpoints_in_turn() -> None:
    """Requests are pinned to the given checkpoints in turn, or to none."""
    pinned = requests_of([PAPER] * 3, (0.1, 5.0), 13, ("picks", "writes"))
    assert [asked.checkpoint for asked in pinned] == ["picks", "writes", "picks"]
    assert [asked.checkpoint for asked in requests_of([PAPER], (0.1, 5.0), 13)] == [None]


def test_texts_that_are_missing_are_said_to_be(files: TextFiles) -> None:
    """Missing or malformed texts are an error that names their file."""
    files.papers.unlink()
    with pytest.raises(NoTexts, match=r"papers\.jsonl"):
        mixed_texts(4, 1, files)
    files.papers.write_text("")
    with pytest.raises(NoTexts, match="no text"):
        longest_papers(4, files)
    files.papers.write_text('{"text": "t"}\n')
    with pytest.raises(NoTexts, match="`summary`"):
        longest_papers(4, files)


def test_the_longest_papers_come_first(files: TextFiles) -> None:
    """The longest papers come first, as many as requested."""
    found = longest_papers(2, files)
    assert [one.text for one in found] == ["papers 29" + "." * 29, "papers 28" + "." * 28]


def test_a_description_goes_out_with_its_domain() -> None:
    """A description of software is sent with its domain, a paper without one."""
    assert json.loads(replace(PAPER, kind=Kind.SOFTWARE).body)["parameters"] == {"domain": "software"}
    assert json.loads(PAPER.body) == {"inputs": "a text"}


def answer(**changes: object) -> Reply:
    """An answer as documented."""
    document = {
        "outputs": [{"summary_text": "one two three"}],
        "routing": {"checkpoint": "picks", "tier": "quality"},
        "timings_ms": {"route": 0.1, "infer": 500.0, "total": 750.0},
        "input": {"tokens": 9, "truncated": False, "kept": 9},
        "generation": [{"finish_reason": "stop", "steps": 1, "tokens": 3, "beams": 1, "lead": False}],
        **changes,
    }
    return Reply(200, {}, json.dumps(document).encode())


def test_an_answer_is_read_and_anything_else_says_why() -> None:
    """A refusal keeps its code, and a malformed answer is an error with its reason."""
    assert read_summary(answer()) == ANSWER
    assert read_summary(Reply(504, {}, b'{"code": "deadline_exceeded"}')) == Unsummarised("504 deadline_exceeded")
    assert read_summary(Reply(503, {}, b"<html>")) == Unsummarised("503 without a code")
    odd = Unsummarised("the answer is no summary with details")
    assert [read_summary(answer(outputs=[])), read_summary(Reply(200, {}, b"[]"))] == [odd, odd]


class Server:
    """Answers each request with the next reply, and fails if two requests overlap."""

    def __init__(self, *replies: Reply | NoReply | Hung) -> None:
        self.replies: Iterator[Reply | NoReply | Hung] = iter(replies)
        self.headers: list[Mapping[str, str]] = []
        self.under_way = 0

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        assert not self.under_way
        self.under_way += 1
        await asyncio.sleep(0)
        self.under_way -= 1
        self.headers.append(headers)
        reply = next(self.replies)
        if isinstance(reply, Reply):
            return reply
        raise reply


async def test_texts_are_asked_for_one_at_a_time_by_the_clients_clock() -> None:
    """Requests are sent one at a time with their budget, id and pin, and every ending is recorded."""
    drawn = [Asked(f"id-{at}", PAPER, 0.25, pin) for at, pin in enumerate((None, None, "picks"))]
    server, ticks = Server(answer(), NoReply("ClientOSError"), Hung("no answer within 40 s")), count()
    ended = [one async for one in asked_in_turn(server, drawn, lambda: float(next(ticks)))]
    assert server.headers[1] == {"X-Latency-SLA-Ms": "250.000", "X-Request-Id": "id-1"}
    assert server.headers[2]["X-Checkpoint"] == "picks"
    whys = [Unsummarised("ClientOSError"), Unsummarised("no answer within 40 s")]
    assert [one.outcome for one in ended] == [ANSWER, *whys]
    assert [one.latency_s for one in ended] == [1.0, 1.0, 1.0] and not any(one.in_time for one in ended)


def test_an_answer_is_in_time_within_its_budget_only() -> None:
    """An answer is in time if its latency is within its budget; a missing answer never is."""
    ended = Ended(Asked("id", PAPER, 1.0), ANSWER, 1.0)
    assert ended.in_time and not replace(ended, latency_s=1.01).in_time
    assert not replace(ended, outcome=Unsummarised("x")).in_time
