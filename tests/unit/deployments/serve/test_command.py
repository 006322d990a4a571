"""`punctual serve` where it cannot begin: it says so before anything is started."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import catalog

from deployments.replica.tracing import TRACES_ENDPOINT
from deployments.serve.command import ServeOptions, serve_until_stopped
from deployments.serve.environment import PortTaken
from deployments.serve.observing import LOG_FORMAT
from gateway.observability.access_log import LogFormat


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves the process as it was: its variables, and what it does at SIGTERM."""
    for name in (LOG_FORMAT, TRACES_ENDPOINT, "PUNCTUAL_RUN_FOLDER"):
        monkeypatch.setenv(name, "")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("given", "form"), [(None, LogFormat.JSON), (LogFormat.TEXT, LogFormat.TEXT), (LogFormat.JSON, LogFormat.JSON)]
)
def test_a_taken_port_is_said_before_anything_starts(given: LogFormat | None, form: LogFormat, tmp_path: Path) -> None:
    """A port that another process has ends the command at once, with its number and nothing left behind."""
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        options = ServeOptions("127.0.0.1", port, "off", given, "http://127.0.0.1:4318/v1/traces/")
        with pytest.raises(PortTaken, match=str(port)):
            serve_until_stopped(tmp_path, catalog(), {}, options, said.append)
    assert said == []
    assert os.environ[LOG_FORMAT] == form
    assert os.environ[TRACES_ENDPOINT] == "http://127.0.0.1:4318/v1/traces"
