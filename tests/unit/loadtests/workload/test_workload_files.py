"""The CSV files that scenarios name, profiles and traces: what is read, and what is refused."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.tier import Tier
from loadtests.workload.arrivals import RatePiece, Trace, read_trace
from loadtests.workload.files import ScenarioError
from loadtests.workload.variants import Variant, read_profile

PROFILE = """\
# a comment

latency_ms , batch,host,quality,variant
10,1,a,80,large
12,1,a,80,large
  # another
30,4,a,80,large
2,1,b,70,small
3,8,"b, too",70,small
"""
TRACE = "start_s,rate_per_s\n100,5\n102,20\n103,0\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the file."""
    return tmp_path / "f.csv"


def profile(path: Path, text: str) -> tuple[Variant, ...]:
    """The variants of this profile."""
    path.write_text(text, encoding="utf-8")
    return read_profile(path, "classify")


def trace(path: Path, text: str) -> Trace:
    """The trace of this text."""
    path.write_text(text, encoding="utf-8")
    return read_trace(path)


def rows(*cells: str) -> str:
    """A profile with these rows."""
    return "\n".join(("variant,quality,batch,latency_ms", *cells)) + "\n"


def test_a_profile_has_a_variant_for_each_name(path: Path) -> None:
    """A profile gives a variant for each name, best first; the order of columns, comments and blank lines are free."""
    large, small = profile(path, PROFILE)
    assert (large.name, large.quality, large.tier, large.max_batch) == ("large", 80.0, Tier.QUALITY, 4)
    assert (small.name, small.quality, small.tier, small.max_batch) == ("small", 70.0, Tier.REALTIME, 8)
    assert [large.median_s(batch, 9) for batch in (1, 4)] == pytest.approx([0.011, 0.030])
    noise = {large.times.noise(1, random.Random(seed)) for seed in range(30)}
    assert sorted(noise) == pytest.approx([10 / 11, 12 / 11])
    assert large.task == "classify" and large.domain is None


def test_a_spreadsheets_file_is_read_alike(path: Path) -> None:
    """A byte order mark and carriage returns, as spreadsheets write them, change nothing."""
    path.write_bytes(b"\xef\xbb\xbf" + PROFILE.replace("\n", "\r\n").encode())
    assert read_profile(path, "classify") == profile(path, PROFILE)


def test_tiers_are_by_quality(path: Path) -> None:
    """The best variant has the tier quality, the worst realtime, and all between balanced."""
    made = profile(path, rows("a,1,1,9", "b,2,1,9", "c,3,1,9", "d,4,1,9", "e,4,1,9"))
    assert {one.name: one.tier for one in made} == {
        "a": Tier.REALTIME,
        "b": Tier.BALANCED,
        "c": Tier.BALANCED,
        "d": Tier.QUALITY,
        "e": Tier.QUALITY,
    }
    assert profile(path, rows("a,1,1,9"))[0].tier is Tier.QUALITY


def test_a_dominated_variant_is_kept(path: Path) -> None:
    """A variant that is both slower and worse is kept: not choosing it is up to the policy."""
    assert [one.name for one in profile(path, rows("slow,1,1,90", "good,2,1,9"))] == ["good", "slow"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("large,81,1,10", "quality: must be 80, as line 2 says of large, got '81'"),
        ("large,80,0,10", "batch: must be a whole number from 1 to 4096, got '0'"),
        ("large,80,1.0,10", "batch: must be a whole number from 1 to 4096, got '1.0'"),
        ("large,80,²,10", "batch: must be a whole number from 1 to 4096, got '²'"),
        (f"large,80,{'9' * 5000},10", "batch: must be a whole number from 1 to 4096, got '999"),
        ("large,80,1,0", "latency_ms: must be a number from 0.0001 to 3.6e+06, got '0'"),
        ("large,80,1,-4", "latency_ms: must be a number from 0.0001 to 3.6e+06, got '-4'"),
        ("large,80,1,nan", "latency_ms: must be a number from 0.0001 to 3.6e+06, got 'nan'"),
        ("large,80,1,1e-323", "latency_ms: must be a number from 0.0001 to 3.6e+06, got '1e-323'"),
        ("large,80,1,10 ms", "latency_ms: must be a number from 0.0001 to 3.6e+06, got '10 ms'"),
        ("large,80,1,", "latency_ms: must be a number from 0.0001 to 3.6e+06, got ''"),
        ("large,inf,1,10", "quality: must be a number from 0.001 to 1e+06, got 'inf'"),
        (",80,1,10", "variant: must be a name of at most 100 printable characters, got ''"),
        ("a\x1b[2J,80,1,10", "variant: must be a name of at most 100 printable characters, got 'a\\x1b[2J'"),
        ("large,80,1", "must have 4 cells, as the header has, got 3"),
        ("large,80,1,10,11", "must have 4 cells, as the header has, got 5"),
        ('"large,80,1,10', "not CSV: unexpected end of data"),
    ],
)
def test_a_row_that_is_wrong_is_told_by_line_and_column(path: Path, row: str, said: str) -> None:
    """A faulty row is refused; the error names its line and column and what is allowed."""
    with pytest.raises(ScenarioError) as refused:
        profile(path, rows("large,80,1,10", "# between", row))
    assert str(refused.value).startswith(f"{path}:4: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ": the file is empty; its header has the columns variant,quality,batch,latency_ms"),
        ("# nothing\n\n", ": the file is empty; its header has the columns variant,quality,batch,latency_ms"),
        ("\nvariant,batch\n", ":2: the header lacks quality, latency_ms, got 'variant,batch'"),
        ("variant,quality,batch,latency_ms,batch\n", ":1: the header has batch twice"),
        (rows(), ": has no rows under its header"),
    ],
)
def test_a_table_that_is_none_is_refused(path: Path, text: str, said: str) -> None:
    """A profile without header, columns or rows is refused."""
    with pytest.raises(ScenarioError) as refused:
        profile(path, text)
    assert str(refused.value) == f"{path}{said}"


def test_a_file_that_is_not_there_is_told_by_its_name(path: Path) -> None:
    """A missing profile or trace is an error that names the file."""
    for reading in (lambda: read_profile(path, "classify"), lambda: read_trace(path)):
        with pytest.raises(ScenarioError, match=r"f\.csv: cannot be read: No such file"):
            reading()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_profile_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Any bytes are read as a profile or trace, or refused with a ScenarioError."""
    path = tmp_path_factory.getbasetemp() / "any.csv"
    for header in (b"", b"variant,quality,batch,latency_ms\n", b"start_s,rate_per_s\n"):
        path.write_bytes(header + content)
        for reading in (lambda: read_profile(path, "classify"), lambda: read_trace(path)):
            with suppress(ScenarioError):
                reading()


def test_a_trace_holds_each_rate_until_the_next_row(path: Path) -> None:
    """A trace holds each rate until the next row; its last interval is as long as the one before it."""
    made = trace(path, TRACE)
    assert made == Trace((RatePiece.even(2.0, 5.0), RatePiece.even(1.0, 20.0), RatePiece.even(1.0, 0.0)))
    assert made.seconds == 4.0 and made.mean_per_s == pytest.approx(30 / 4)


def test_a_trace_is_cut_or_repeated(path: Path) -> None:
    """A trace is cut or repeated to the length of the run."""
    made = trace(path, TRACE)
    assert made.over(2.5) == Trace((RatePiece.even(2.0, 5.0), RatePiece.even(0.5, 20.0)))
    assert made.over(4.0) == made
    assert made.over(7.0) == Trace((*made.pieces, RatePiece.even(2.0, 5.0), RatePiece.even(1.0, 20.0)))


def test_a_scaled_trace_keeps_its_shape(path: Path) -> None:
    """Scaling a trace multiplies its rates and keeps its intervals."""
    assert trace(path, TRACE).scaled(3.0) == Trace(
        (RatePiece.even(2.0, 15.0), RatePiece.even(1.0, 60.0), RatePiece.even(1.0, 0.0))
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("start_s,rate_per_s\n0,5\n2,5\n2,6\n", ":4: start_s: must be later than in the row before, got '2'"),
        ("start_s,rate_per_s\n5,5\n2,5\n", ":3: start_s: must be later than in the row before, got '2'"),
        (
            "start_s,rate_per_s\n0,5\n1e-9,5\n",
            ":3: start_s: must be at least 0.01 later than in the row before, got '1e-9'",
        ),
        ("start_s,rate_per_s\n-1,5\n0,5\n", ":2: start_s: must be a number from 0 to 1e+12, got '-1'"),
        ("start_s,rate_per_s\n0,5\n1,-5\n", ":3: rate_per_s: must be a number from 0 to 1e+09, got '-5'"),
        ("start_s,rate_per_s\n0,5\n1,inf\n", ":3: rate_per_s: must be a number from 0 to 1e+09, got 'inf'"),
        ("start_s,rate_per_s\n0,0\n1,0\n", ": rate_per_s: must be more than 0 in some row"),
        (
            "start_s,rate_per_s\n0,5\n",
            ": must have at least two rows: the last interval is as long as the one before it",
        ),
        ("start_s\n0\n", ":1: the header lacks rate_per_s, got 'start_s'"),
    ],
)
def test_a_trace_that_is_wrong_is_told_by_line_and_column(path: Path, text: str, said: str) -> None:
    """A faulty trace is refused; the error names its line and column and what is allowed."""
    with pytest.raises(ScenarioError) as refused:
        trace(path, text)
    assert str(refused.value) == f"{path}{said}"
