"""Starts servers as child processes on loopback, waits until they are ready, and stops them.

`python -m loadtests.bench.peers.servers JOB` runs the gateway as `punctual serve` does. `gateway` writes the file JOB,
which names the variants.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from deployments.serve.observing import OFF
from gateway.catalogs.catalog import Catalog
from loadtests.errors import LoadTestError, ServerFailed

ROOT = Path(__file__).parents[3]
READY_WITHIN_S = 180.0
STOP_WITHIN_S = 40.0
LOOK_EVERY_S = 0.1
LOG_END = 1500
PEERS = {"litserve": ("litserve_server", "/health"), "ray-serve": ("ray_serve_server", "/readyz")}
"""Other people's servers: the module of each, and where it says that it is ready."""


@dataclass(frozen=True)
class Server:
    """A server that is ready. Its process leads its own process group."""

    name: str
    url: str
    process: subprocess.Popen[bytes]

    def family(self) -> list[psutil.Process]:
        """The process and all its descendants."""
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]


class Job(BaseModel):
    """A gateway's configuration: catalog, folder of each checkpoint's variant, port and access log."""

    model_config = ConfigDict(frozen=True)

    catalog: Catalog
    variants: dict[str, Path]
    port: int
    access_log: str = OFF


@contextmanager
def gateway(
    catalog: Catalog, variants: Mapping[str, Path], ready_within_s: float = READY_WITHIN_S, access_log: str = OFF
) -> Iterator[Server]:
    """Runs the gateway as `punctual serve` does. `access_log` is a file or `off`.

    Raises ServerFailed.
    """
    absolute = {name: folder.absolute() for name, folder in variants.items()}
    with tempfile.TemporaryDirectory(prefix="loadtests-") as folder:
        job, port = Path(folder, "job.json"), free_port()
        document = Job(catalog=catalog, variants=absolute, port=port, access_log=access_log).model_dump_json()
        job.write_text(document, encoding="utf-8")
        command = [sys.executable, "-m", "loadtests.bench.peers.servers", str(job)]
        with started("gateway", command, f"http://127.0.0.1:{port}", ready_within_s=ready_within_s) as server:
            yield server


@contextmanager
def fastapi(variant: Path, threads: int) -> Iterator[Server]:
    """Runs the FastAPI baseline with one variant, named `fastapi-THREADS`, or `fastapi-spins` for 0 threads.

    Raises ServerFailed.
    """
    port = free_port()
    command = [sys.executable, "-m", "loadtests.bench.peers.fastapi_server", str(variant), str(port), str(threads)]
    with started(f"fastapi-{threads or 'spins'}", command, f"http://127.0.0.1:{port}") as server:
        yield server


@contextmanager
def peer(name: str, variant: Path) -> Iterator[Server]:
    """Runs one of `PEERS` with one variant. Raises ServerFailed."""
    module, ready_path = PEERS[name]
    port = free_port()
    command = [sys.executable, "-m", f"loadtests.bench.peers.{module}", str(variant), str(port)]
    with started(name, command, f"http://127.0.0.1:{port}", ready_path) as server:
        yield server


@contextmanager
def started(
    name: str,
    command: Sequence[str],
    url: str,
    ready_path: str = "/readyz",
    failure: type[LoadTestError] = ServerFailed,
    ready_within_s: float = READY_WITHIN_S,
) -> Iterator[Server]:
    """Runs a server: yields it once `ready_path` answers, then stops it. Raises `failure` with the end of its log."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=child_environment(),
            start_new_session=True,
        )
        server = Server(name, url, process)
        try:
            if not _ready(process, url + ready_path, ready_within_s):
                state = "is not ready" if process.poll() is None else f"ended with {process.returncode}"
                log.seek(0)
                raise failure(f"{name} {state}: {log.read().decode(errors='replace').strip()[-LOG_END:]}")
            yield server
        finally:
            _stop(server)


def free_port() -> int:
    """A loopback port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def child_environment() -> dict[str, str]:
    """A child's environment: it can import this project's packages, and tokenizers use one thread."""
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": search, "TOKENIZERS_PARALLELISM": "false"}


def _ready(process: subprocess.Popen[bytes], url: str, within_s: float) -> bool:
    pause = threading.Event()
    for _ in range(int(within_s / LOOK_EVERY_S)):
        if process.poll() is not None:
            return False
        try:
            with urllib.request.urlopen(url, timeout=2):  # the scheme is ours
                return True
        except (OSError, HTTPException):
            pause.wait(LOOK_EVERY_S)
    return False


def _stop(server: Server) -> None:
    """Sends SIGTERM to the leader, which stops its children, and kills processes that remain."""
    if server.process.poll() is not None:
        return
    family = server.family()
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    _, remaining = psutil.wait_procs(family, timeout=1)
    for process in remaining:
        if process.is_running():  # False if another process has its id by now
            process.kill()


def _serve(job: Job) -> None:
    """Runs the gateway in this process. Blocking."""
    from deployments.serve import environment, serving
    from deployments.serve.keeping import keep

    def say(what: str) -> None:
        print(what, file=sys.stderr)

    def gateway(folder: Path) -> int:
        with environment.port_held("127.0.0.1", job.port):
            run = serving.running(folder, job.catalog, job.variants, "127.0.0.1", job.port, say, job.access_log)
            serving.serve(run, folder, say)
        return 0

    sys.exit(keep(gateway, say))


if __name__ == "__main__":
    _serve(Job.model_validate_json(Path(sys.argv[1]).read_bytes()))
