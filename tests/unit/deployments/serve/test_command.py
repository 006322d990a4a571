"""`punctual serve` where it cannot begin: it says so before anything is started."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator

import pytest

from deployments.replica.tracing import TRACES_ENDPOINT
from deployments.serve.command import ServeOptions, servable
from deployments.serve.environment import PortTaken, port_held
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
def test_a_taken_port_is_said_before_anything_starts(given: LogFormat | None, form: LogFormat) -> None:
    """A port that another process has ends the command at once, with its number and nothing left behind."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        options = ServeOptions("127.0.0.1", port, "off", given, "http://127.0.0.1:4318/v1/traces/")
        with pytest.raises(PortTaken, match=str(port)), servable(options):
            raise AssertionError("something has started")
    assert os.environ[LOG_FORMAT] == form
    assert os.environ[TRACES_ENDPOINT] == "http://127.0.0.1:4318/v1/traces"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_has_one_gateway(host: str) -> None:
    """Two gateways that begin at one moment never share a port, though ingresses of one do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    with port_held(host, port):
        with pytest.raises(PortTaken, match=str(port)), port_held(host, port):
            raise AssertionError("both have it")
        serve_one_connection(family, host, port)
    with port_held(host, port):
        pass


def serve_one_connection(family: socket.AddressFamily, host: str, port: int) -> None:
    """Listen twice on a port, as two ingresses do, and accept a connection."""
    with socket.socket(family) as one, socket.socket(family) as other:
        for listener in (one, other):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
            listener.listen()
        with socket.create_connection((host, port)):
            (ready, *_), _, _ = select.select([one, other], [], [], 60)
            ready.accept()[0].close()
