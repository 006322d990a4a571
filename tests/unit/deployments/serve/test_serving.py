"""What surrounds a gateway on one host: where it is asked, whether it is ready, and what is told of a failed start."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments.replica.variant import VariantRejected
from deployments.serve.serving import NotReady, _cause, _has_joined, _url, await_ready, reserved_cpus
from gateway.catalogs.catalog import load_catalog


@pytest.fixture
def told() -> Iterator[tuple[str, dict[str, object]]]:
    """The URL of a server whose `/readyz` tells a document, and that document."""
    document: dict[str, object] = {"status": 200, "coming": []}

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(str(document["status"])))
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", document
        server.shutdown()


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a port that is held, and that nothing listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8"),
        ("0.0.0.0", "http://127.0.0.1:8"),  # noqa: S104  # nothing is bound
        ("::", "http://[::1]:8"),
    ],
)
def test_a_gateway_is_asked_where_this_host_reaches_it(host: str, url: str) -> None:
    """A gateway on every interface is asked on loopback; an IPv6 address stands in brackets."""
    assert _url(host, 8) == url


def test_readiness_is_waited_for_and_its_lack_is_told(told: tuple[str, dict[str, object]], silent: str) -> None:
    """A gateway that answers 200 is ready; one that does not is told with its last answer."""
    url, document = told
    await_ready(url, 60)
    document["status"] = 503
    with pytest.raises(NotReady, match=r"not ready within 0 s: .*503"):
        await_ready(url, 0.1)
    with pytest.raises(NotReady, match="refused"):
        await_ready(silent, 0.1)


def test_a_checkpoint_has_joined_once_it_is_no_longer_coming(told: tuple[str, dict[str, object]], silent: str) -> None:
    """A checkpoint that an ingress lists as coming has not joined, nor one that no ingress tells of."""
    url, document = told
    assert _has_joined(url, "late")
    document["coming"] = [{"checkpoint": "late"}]
    assert not _has_joined(url, "late") and _has_joined(url, "other")
    assert not _has_joined(silent, "late")


def test_a_rejected_variant_is_the_cause_of_a_failed_start() -> None:
    """Of Ray Serve's reports the line with our own error is told, else the first report."""
    report = f"a replica failed\n  deployments.{VariantRejected.__name__}: slow: golden input 0\nand more"
    assert _cause(["too many lines", report]) == "slow: golden input 0"
    assert _cause(["too many lines", "and more"]) == "too many lines"


def test_each_process_reserves_its_processors() -> None:
    """A gateway reserves what its catalog says for ingresses and for the most replicas of each checkpoint."""
    catalog = load_catalog("starter")
    assert reserved_cpus(catalog) == 1 + sum(entry.cpus for entry in catalog.checkpoints)
