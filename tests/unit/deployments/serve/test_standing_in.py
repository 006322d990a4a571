"""Who stands in for the gateway at its port: every path is a 503 that says when to come back, but that it is alive."""

from __future__ import annotations

import socket

import httpx
import pytest

from deployments.serve.environment import port_held
from deployments.serve.standing_in import standing_in
from gateway.model.errors import Problem, Starting, Stopping

PATHS = ("/", "/classify", "/readyz", "/metrics", "/openapi.json", "/nothing", "/-/healthz", "/v1/chat/completions")


def free_port(host: str) -> int:
    """Return a port of that address which nobody has."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        free.bind((host, 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize("problem", [Starting(), Stopping("the gateway stops")], ids=lambda one: one.code)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_path_but_one_says_when_to_come_back(host: str, problem: Problem) -> None:
    """Any method of any path is a 503 with Retry-After and the request's id; `/healthz` alone is 200."""
    port = free_port(host)
    base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    with (
        port_held(host, port),
        standing_in(host, port, problem),
        httpx.Client(base_url=base, trust_env=False) as client,
    ):
        for path in PATHS:
            for method in ("GET", "POST", "OPTIONS", "HEAD"):
                body = {"inputs": "a good film"} if method == "POST" else None
                answer = client.request(method, path, json=body, headers={"X-Request-Id": "r-1"})
                told = answer.status_code, answer.headers["Retry-After"], answer.headers["X-Request-Id"]
                assert told == (503, "1", "r-1"), (method, path)
            document = client.get(path).json()
            told = document["error"] if path.startswith("/v1/") else document
            assert told["code"] == problem.code
        assert client.get("/healthz").json() == {"status": "alive"}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{base}/healthz", trust_env=False)


def test_a_port_that_cannot_be_had_is_no_fault() -> None:
    """Where another program has the port, nothing stands in, and the context goes on."""
    with socket.create_server(("127.0.0.1", 0)) as other, standing_in("127.0.0.1", other.getsockname()[1], Starting()):
        pass
