"""The chart's small programs, executed: the readiness probe, the end of a pod, and `helm test`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rendered_chart import Document, Rendered, chart, render


@dataclass
class Gateway:
    """Replaces the gateway: a status for each path, headers for answers, and a record of requests."""

    status: dict[str, int]
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0


@contextmanager
def listening(gateway: Gateway) -> Iterator[None]:
    """Answers on a free port while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(gateway.headers)

        def _answer(self, headers: dict[str, str]) -> None:
            gateway.asked.append((self.path, self.headers["X-Latency-SLA-Ms"]))
            self.send_response(gateway.status.get(self.path, 404))
            for name, value in {**headers, "Content-Length": "2"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        gateway.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def worker(made: Rendered) -> Document:
    """The container of the first worker group."""
    container: Document = next(iter(made.workers.values()))["template"]["spec"]["containers"][0]
    return container


def is_ready(gateway: Gateway, folder: Path) -> bool:
    """Whether the probe succeeds, with the pod's /tmp in a folder of the test."""
    command = worker(render())["readinessProbe"]["exec"]["command"]
    script = command[-1].replace("/tmp/", f"{folder}/").replace("127.0.0.1/8000", f"127.0.0.1/{gateway.port}")
    done = subprocess.run([*command[:-1], script], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def test_a_pod_is_ready_once_all_serve_and_stays_so_while_an_ingress_answers(tmp_path: Path) -> None:
    """A pod becomes ready once every checkpoint serves, and then stays ready while an ingress answers."""
    gateway = Gateway({"/readyz": 503, "/-/healthz": 200})
    with listening(gateway):
        assert not is_ready(gateway, tmp_path), "not every checkpoint has served yet"
        gateway.status["/readyz"] = 200
        assert is_ready(gateway, tmp_path)
        gateway.status["/readyz"] = 503
        assert is_ready(gateway, tmp_path)
        gateway.status["/-/healthz"] = 503
        assert not is_ready(gateway, tmp_path)
    assert [path for path, _ in gateway.asked] == ["/readyz", "/readyz", "/-/healthz", "/-/healthz"]
    assert not is_ready(gateway, tmp_path), "nobody listens"


def test_a_pod_stays_while_replicas_are_in_it(tmp_path: Path) -> None:
    """A pod waits for its last replica, found by Ray's process titles, but not for itself."""
    *shell, script = worker(render())["lifecycle"]["preStop"]["exec"]["command"]
    assert script.startswith("ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION")
    loop = (
        script[script.index("for _") :]
        .replace("/proc/", f"{tmp_path}/")
        .replace("sleep 1", "rm -r $(ls -d */ | head -1)")
    )
    titles = ("ray::ServeReplica:punctual:bart", "ray::ServeReplica:punctual:gateway", "ray::IDLE", loop)
    for number, title in enumerate(titles, start=11):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "cmdline").write_text(title)
    subprocess.run([*shell, loop], cwd=tmp_path, timeout=60, check=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["13", "14"], "one round for each that was still there"


@pytest.mark.parametrize(
    ("ready", "answer", "headers", "passes"),
    [
        (200, 200, {"X-SLA-Met": "true", "X-Checkpoint": "minilm-sentiment"}, True),
        (200, 200, {"X-SLA-Met": "false", "X-Checkpoint": "minilm-sentiment"}, True),
        (200, 200, {"X-Checkpoint": "minilm-sentiment"}, False),
        (200, 200, {"X-SLA-Met": "true"}, False),
        (503, 200, {"X-SLA-Met": "true", "X-Checkpoint": "minilm-sentiment"}, False),
        (200, 503, {"X-SLA-Met": "true", "X-Checkpoint": "minilm-sentiment"}, False),
    ],
)
def test_helm_test_passes_only_where_the_gateway_answers(
    ready: int, answer: int, headers: dict[str, str], passes: bool
) -> None:
    """`helm test` passes only if the gateway is ready and answers with the checkpoint and SLA headers."""
    pod = render({"tests": {"budgetMs": 250}}).one("Pod")
    (container,) = pod["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    gateway = Gateway({"/readyz": ready, "/classify": answer}, headers)
    with listening(gateway):
        environment["URL"] = f"http://127.0.0.1:{gateway.port}"
        program = [sys.executable, *container["command"][1:], *container["args"]]
        done = subprocess.run(program, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode == 0) is passes, done.stderr
    if ready == 200:
        assert gateway.asked[-1] == ("/classify", "250")


def test_helm_test_asks_for_a_task_that_the_catalog_has() -> None:
    """`helm test` requests a task that the catalog has."""
    summarizers = [one for one in chart().values["catalog"]["checkpoints"] if one["task"] == "summarize"]
    (container,) = render({"catalog": {"checkpoints": summarizers}}).one("Pod")["spec"]["containers"]
    assert {"name": "TASK", "value": "summarize"} in container["env"]
