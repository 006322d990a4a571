"""The script that `wrk` gets and the output that it gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import program

from loadtests.bench.peers.wrk import MARK, Wrk, find_wrk, lua_string, parsed, write_script
from loadtests.errors import WrkFailed, WrkMissing
from loadtests.sentences import classify_body

OUTPUT = """\
Running 5s test @ http://127.0.0.1:8000
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    19.31ms    7.15ms  97.28ms   86.00%
    Req/Sec   837.12     98.40     1.02k    74.00%
  4180 requests in 5.02s, 1.05MB read
  Non-2xx or 3xx responses: 7
Requests/sec:    832.67
Transfer/sec:    214.65KB
punctual-wrk {"requests":4180,"duration_us":5020000,"p50_us":18700,"p90_us":27100,"p99_us":44900,"connect":1,"read":2,\
"write":0,"status":7,"timeout":3}
"""


def unescaped(literal: str) -> bytes:
    """The bytes that Lua reads from a string literal of plain characters and three-digit escapes."""
    inner, found, at = literal[1:-1], bytearray(), 0
    while at < len(inner):
        if inner[at] == "\\":
            found.append(int(inner[at + 1 : at + 4]))
            at += 4
        else:
            found.append(ord(inner[at]))
            at += 1
    return bytes(found)


def test_a_result_is_read_from_the_output() -> None:
    """A result is read from `wrk`'s output in seconds; statuses of 400 and above and socket errors count as errors."""
    sample = parsed(OUTPUT)
    assert (sample.requests, sample.errors, sample.duration_s) == (4180, 13, 5.02)
    assert (sample.p50_s, sample.p90_s, sample.p99_s) == (0.0187, 0.0271, 0.0449)
    assert sample.throughput == pytest.approx(832.67, abs=0.01)


def test_output_without_a_result_is_a_failure_that_quotes_it() -> None:
    """Output without a result is an error that quotes it."""
    with pytest.raises(WrkFailed, match="unable to connect"):
        parsed("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_a_machine_without_wrk_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without `wrk`, the error names the package to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WrkMissing, match="apt-get install wrk"):
        find_wrk()


@given(st.binary())
def test_a_lua_literal_holds_exactly_its_bytes(content: bytes) -> None:
    """A Lua literal holds exactly its bytes: no quote, backslash, line end or byte over 127 breaks out."""
    literal = lua_string(content)
    assert literal.isascii() and literal.isprintable() and '"' not in literal[1:-1]
    assert unescaped(literal) == content


def test_the_script_carries_every_sentence_and_header(tmp_path: Path) -> None:
    """The script sends every sentence and header, in the given order."""
    bodies = [classify_body('He said "no"\\'), classify_body("na\u00efve \u2014 caf\u00e9\n]]")]
    text = write_script(tmp_path, "/classify", {"X-Checkpoint": "student"}, bodies).read_text()
    lines = text.partition("local bodies = {")[2].partition("}\nlocal requests")[0].split("\n")[1:-1]
    assert [unescaped(line.rstrip(",")) for line in lines] == bodies
    assert '["X-Checkpoint"] = "student"' in text and MARK in text


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A server that is not there gives an error or counted errors, never a clean sample."""
    program("wrk")
    script = write_script(tmp_path, "/classify", {}, [classify_body("good film"), classify_body('"\\')])
    try:
        sample = Wrk(find_wrk(), "http://127.0.0.1:9", {}, script).run(connections=1, seconds=1)
    except WrkFailed:
        return
    assert sample.errors and not sample.requests
