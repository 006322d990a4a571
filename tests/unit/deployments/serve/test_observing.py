"""Where an ingress's log and traces go, as its environment says, and how its lines reach the terminal."""

from __future__ import annotations

import json
import logging
import os
import threading
from functools import partial
from pathlib import Path

import pytest
from sample_records import RECORD
from scraped import samples

from deployments.serve.observing import (
    ACCESS_LOG,
    LOG_FORMAT,
    LOGGERS,
    LogUnwritable,
    access_log_to,
    observing,
    relayed,
    to_terminal,
    write_all,
)
from gateway.observability.access_log import LogFile
from gateway.observability.metrics import exposition


async def test_lines_that_were_lost_are_counted() -> None:
    """Lines lost by a log that cannot be written are counted in `/metrics`, which says nothing of it without a log."""
    watched = observing("one", {ACCESS_LOG: "/dev/full"})
    for _ in range(3):
        watched.observers[0].observe(RECORD)
    watched.close()
    assert samples(await exposition(watched), "punctual_access_log_dropped_total") == [({}, 3.0)]
    assert not samples(await exposition(observing("one", {})), "punctual_access_log_dropped_total")


@pytest.mark.parametrize("environ", [{}, {ACCESS_LOG: "off"}, {ACCESS_LOG: ""}])
def test_nothing_is_observed_that_was_not_asked_for(environ: dict[str, str]) -> None:
    """Without a log or traces in the environment there is no observer and no thread, and messages go where they did."""
    before = set(threading.enumerate()), [logging.getLogger(name).handlers[:] for name in LOGGERS]
    watched = observing("one", environ)
    assert watched.observers == () and watched.trace is None
    assert not set(threading.enumerate()) - before[0]
    assert before[1] == [logging.getLogger(name).handlers[:] for name in LOGGERS]
    watched.close()


def test_a_log_has_requests_and_messages(tmp_path: Path) -> None:
    """A log has requests and messages in one file, complete when closing returns, and gets no messages afterwards."""
    path = tmp_path / "log"
    watched = observing("one", {ACCESS_LOG: str(path)})
    watched.observers[0].observe(RECORD)
    logging.getLogger("punctual.gateway").error("broken", extra={"request_id": "r-2"})
    watched.close()
    logging.getLogger("punctual.gateway").error("after the end")
    told = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [(one["event"], one["request_id"]) for one in told] == [("request", "r-1"), ("log", "r-2")]


def test_a_log_that_cannot_be_written_is_told_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An ingress serves even if its log cannot be written, and reports that where Ray keeps its output."""
    watched = observing("one", {ACCESS_LOG: "/no/such/folder/log"})
    watched.observers[0].observe(RECORD)
    watched.close()
    assert "/no/such/folder/log cannot be written: No such file" in caplog.text
    assert watched.log is not None and watched.log.dropped == 1


def test_the_format_is_the_environments(tmp_path: Path) -> None:
    """The environment chooses the log's format, and an unknown one is an error at the start."""
    path = tmp_path / "log"
    watched = observing("one", {ACCESS_LOG: str(path), LOG_FORMAT: "text"})
    watched.observers[0].observe(RECORD)
    watched.close()
    assert b"classify  12.346 of 50 ms" in path.read_bytes()
    with pytest.raises(ValueError, match="xml"):
        observing("one", {ACCESS_LOG: str(path), LOG_FORMAT: "xml"})


def test_what_is_relayed_comes_out_though_writers_come_and_go(tmp_path: Path) -> None:
    """A relay outputs every line written before its end, though the ingresses that write come and go."""
    source, output = os.pipe()
    with relayed(tmp_path / "pipe", partial(write_all, output)):
        for line in ("one\n", "two\n"):
            file = LogFile(str(tmp_path / "pipe"))
            file.write(line)
            file.close()
    os.close(output)
    assert os.read(source, 100) == b"one\ntwo\n"
    assert os.read(source, 100) == b""
    os.close(source)


def test_a_relay_ends_though_its_output_is_gone(tmp_path: Path) -> None:
    """A relay ends when its output is gone, as in `punctual serve | head`: writers see a broken pipe."""
    source, output = os.pipe()
    os.close(source)
    with relayed(tmp_path / "pipe", partial(write_all, output)):
        file = LogFile(str(tmp_path / "pipe"))
        file.write("one\n")
        file.close()
    os.close(output)


def test_on_a_terminal_lines_go_through_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal a relay writes by way of `sys.stdout`, so that a progress bar there stays whole."""
    with relayed(tmp_path / "pipe", to_terminal):
        file = LogFile(str(tmp_path / "pipe"))
        file.write("one\n")
        file.close()
    assert capsys.readouterr().out == "one\n"


def test_a_path_is_told_whole_and_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log's path is made absolute, since an ingress has another folder, and is tried before anything starts."""
    monkeypatch.setenv(ACCESS_LOG, "")
    monkeypatch.chdir(tmp_path)
    with access_log_to("log", tmp_path):
        assert os.environ[ACCESS_LOG] == str(tmp_path / "log") and (tmp_path / "log").exists()
    with access_log_to("off", tmp_path):
        assert os.environ[ACCESS_LOG] == "off"
    with pytest.raises(LogUnwritable, match="no/such/folder"), access_log_to("no/such/folder", tmp_path):
        pass
