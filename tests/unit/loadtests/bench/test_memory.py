"""Memory: requests in turn to every summarizer, samples while they run, and a rule that separates growth from noise."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from loadtests.bench import memory
from loadtests.bench.measuring.report import Report, present
from loadtests.bench.memory import Run, Sample, Settings, fifth, growth_of, read_memory, report_of, sampled
from loadtests.bench.summaries import Asked, mixed_texts, requests_of
from loadtests.client import NoReply, Reply

MB = 1_000_000
NAMES = ("picks", "writes")


def samples(sizes: Sequence[int | None]) -> list[Sample]:
    """Samples with these sizes of one checkpoint, in bytes."""
    return [Sample(at * 50, {"picks": size}) for at, size in enumerate(sizes, start=1)]


def grows(*sizes_mb: float) -> bool:
    """Whether the rule finds growth in these sizes."""
    found = growth_of(samples([round(size * MB) for size in sizes_mb]), "picks")
    assert found is not None
    return found.grows


def test_memory_that_fills_once_and_stays_does_not_grow() -> None:
    """Memory that fills once and stays does not count as growth; nor does a single peak."""
    filled = [100, 200, 300, 380] + [400] * 16
    assert not grows(*filled)
    assert not grows(*filled[:17], 900, *filled[18:])


def test_growth_begins_beyond_two_per_cent_and_two_megabytes() -> None:
    """Growth begins beyond 2 % plus 2 MB: 400 MB may become 410 MB."""
    assert not grows(*[400] * 16, *[410] * 4) and grows(*[400] * 16, *[410.1] * 4)


def test_a_slow_leak_is_found() -> None:
    """A leak of 20 kB a summary is found over 1,000 summaries."""
    assert grows(*(400 + at for at in range(20)))


@given(st.lists(st.integers(1, 10**12), min_size=5, max_size=60))
def test_the_fifths_are_parts_in_order_that_miss_nothing(sizes: list[int]) -> None:
    """The fifths of a run are not empty, and together they are the whole run in order."""
    parts = [list(fifth(sizes, number)) for number in range(1, 6)]
    assert [size for part in parts for size in part] == sizes and all(parts)


@given(st.integers(1, 10**12), st.integers(5, 40))
def test_what_never_changes_never_grows(size: int, number: int) -> None:
    """Memory that never changes never grows, whatever its size."""
    found = growth_of(samples([size] * number), "picks")
    assert found is not None and not found.grows


def test_a_checkpoint_that_was_away_is_not_judged() -> None:
    """A checkpoint that was down at some time is not judged; nor is one with only four samples."""
    assert growth_of(samples([MB] * 10 + [None] + [MB] * 9), "picks") is None
    assert growth_of(samples([MB] * 10 + [0] + [MB] * 9), "picks") is None
    assert growth_of(samples([MB] * 4), "picks") is None and growth_of(samples([MB] * 5), "other") is None


def test_samples_are_fifty_apart_or_twenty_in_all() -> None:
    """Samples are 50 summaries apart, or at least twenty in all, so that a short run still has fifths."""
    assert [Settings(summaries=n).every for n in (1000, 5000, 200, 20, 5)] == [50, 50, 10, 1, 1]


def requests(count: int) -> list[Asked]:
    """This many requests: shipped texts for both checkpoints in turn."""
    return requests_of(mixed_texts(count, 23), (0.1, 3.0), 23, NAMES)


def test_checkpoints_take_turns_on_texts_of_both_kinds() -> None:
    """Checkpoints take turns, and each gets texts of both kinds."""
    asked = requests(40)
    assert [one.checkpoint for one in asked] == [*NAMES] * 20
    for name in NAMES:
        assert {b"domain" in one.text.body for one in asked if one.checkpoint == name} == {True, False}


class Server:
    """Answers as the pinned checkpoint, but the third request breaks and the fifth is answered by another."""

    def __init__(self) -> None:
        self.numbers: Iterator[int] = count(1)

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        number = next(self.numbers)
        if number == 3:
            raise NoReply("ServerDisconnectedError")
        document = {
            "outputs": [{"summary_text": "short"}],
            "routing": {"checkpoint": "other" if number == 5 else headers["X-Checkpoint"]},
            "timings_ms": {"infer": 1.0, "total": 1.0},
            "generation": [{"finish_reason": "stop", "steps": 1, "beams": 1, "lead": False}],
        }
        return Reply(200, {}, json.dumps(document).encode())


async def test_memory_is_looked_at_between_requests_and_failures_are_counted() -> None:
    """Memory is sampled after every fifth request, and failures are counted by reason."""
    looks, steps = count(1), []

    def look() -> dict[str, int | None]:
        return {"picks": next(looks), "writes": None}

    found, failures = await sampled(Server(), requests(20), 5, look, lambda: steps.append(1))
    assert [(one.summaries, one.memory_bytes["picks"]) for one in found] == [(5, 1), (10, 2), (15, 3), (20, 4)]
    assert failures == {"ServerDisconnectedError": 1, "answered by another checkpoint": 1} and len(steps) == 20


def test_memory_is_read_from_the_document_of_checkpoints() -> None:
    """Memory is read from `/checkpoints`; a checkpoint that is down or missing has None."""
    one = {"name": "picks", "load": {"replicas_up": 1, "backlog_ms": 0, "memory_bytes": 7}, "kind": "extractive"}
    document = json.dumps({"checkpoints": [one, {"name": "writes", "load": {"memory_bytes": None}}]}).encode()
    assert read_memory(document, [*NAMES, "gone"]) == {"picks": 7, "writes": None, "gone": None}


def report(late_mb: int, failures: dict[str, int], writes: int | None = 300 * MB) -> Report:
    """The report of a run in which one checkpoint grows from 400 MB to this size, and the other keeps its size."""
    sizes = [400] * 16 + [late_mb] * 4
    found = [Sample(at * 50, {"picks": size * MB, "writes": writes}) for at, size in enumerate(sizes, start=1)]
    return report_of(Run(Settings(), "a host", NAMES, tuple(found), failures, 1.0))


def test_a_run_is_steady_only_when_all_was_judged() -> None:
    """A run passes only if every checkpoint was judged, none grew and no request failed."""
    assert report(405, {}).met
    assert not report(420, {}).met and not report(405, {"x": 1}).met and not report(405, {}, None).met
    assert "writes: not judged" in report(405, {}, None).verdicts[-1].sentence


def test_a_report_is_shown_and_written(tmp_path: Path) -> None:
    """A report has a row for each sample, and a verdict for each checkpoint."""
    console = Console(width=160, file=(shown := io.StringIO()))
    assert present(report(420, {"503": 2}), console, json=tmp_path / "memory.json") == 1
    assert "picks: grows: 400.0 MB to 420.0 MB (+20.0), allowed up to 410.0" in shown.getvalue()
    assert "2 summaries failed: 503" in shown.getvalue() and "writes: no growth" in shown.getvalue()
    written = json.loads((tmp_path / "memory.json").read_text())
    assert written["growths"]["picks"]["grows"] is True and len(written["samples"]) == 20
    assert written["settings"]["summaries"] == 1000


def test_a_run_too_short_to_judge_is_refused() -> None:
    """A run too short to judge is refused at the command line, and the option is named."""
    app = typer.Typer()
    app.command()(memory.command)
    refused = CliRunner().invoke(app, ["--summaries", "19"], env={"COLUMNS": "200"})
    assert refused.exit_code == 2 and "--summaries" in refused.output
