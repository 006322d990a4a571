"""Servers as child processes: started on a free port of loopback, awaited, watched for idle use, ended by handle."""

from __future__ import annotations

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
from pathlib import Path

import psutil

from deployments.observing import OFF
from gateway.catalogs.catalog import Catalog
from loadtests.children import child_environment
from loadtests.errors import ServerFailed
from loadtests.peers.gateway_server import write_job

READY_WITHIN_S = 180.0
STOP_WITHIN_S = 40.0
LOG_END = 1500


@dataclass(frozen=True)
class Server:
    """A server that is ready: its name, URL and process, which leads a group of its own."""

    name: str
    url: str
    process: subprocess.Popen[bytes]

    def family(self) -> list[psutil.Process]:
        """The process and all that descend from it."""
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]


@contextmanager
def gateway(
    catalog: Catalog, variants: Mapping[str, Path], ready_within_s: float = READY_WITHIN_S, access_log: str = OFF
) -> Iterator[Server]:
    """The gateway in processes of its own, as `punctual serve` runs it. Raises ServerFailed.

    `access_log` is a file, or `off`.
    """
    with tempfile.TemporaryDirectory(prefix="loadtests-") as folder:
        port, job = free_port(), Path(folder, "job.json")
        write_job(job, catalog, variants, port, access_log)
        arguments = ("-m", "loadtests.peers.gateway_server", str(job))
        with _started("gateway", arguments, port, ready_within_s) as server:
            yield server


@contextmanager
def fastapi(variant: Path, threads: int, ready_within_s: float = READY_WITHIN_S) -> Iterator[Server]:
    """The FastAPI baseline over one variant, called `fastapi-THREADS`. Raises ServerFailed."""
    port = free_port()
    arguments = ("-m", "loadtests.peers.fastapi_server", str(variant), str(port), str(threads))
    with _started(f"fastapi-{threads}", arguments, port, ready_within_s) as server:
        yield server


def free_port() -> int:
    """A port of loopback that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Processor time that these processes have used since they started; those that are gone count nothing."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def idle_shares(servers: Sequence[Server], seconds: float) -> dict[str, float]:
    """The share of one core that each server uses while nobody asks it anything, by its name."""
    families = {server.name: server.family() for server in servers}
    before = {name: cpu_seconds(family) for name, family in families.items()}
    threading.Event().wait(seconds)
    return {name: (cpu_seconds(family) - before[name]) / seconds for name, family in families.items()}


@contextmanager
def _started(name: str, arguments: Sequence[str], port: int, ready_within_s: float) -> Iterator[Server]:
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=child_environment(),
            start_new_session=True,
        )
        server = Server(name, url, process)
        try:
            if not _ready(process, url, ready_within_s):
                state = "is not ready" if process.poll() is None else f"ended with {process.returncode}"
                log.seek(0)
                raise ServerFailed(f"{name} {state}: {log.read().decode(errors='replace').strip()[-LOG_END:]}")
            yield server
        finally:
            _stop(server)


def _ready(process: subprocess.Popen[bytes], url: str, within_s: float) -> bool:
    pause = threading.Event()
    for _ in range(int(within_s / 0.1)):
        if process.poll() is not None:
            return False
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):  # the scheme is ours
                return True
        except OSError:
            pause.wait(0.1)
    return False


def _stop(server: Server) -> None:
    """Asks the leader to end, which ends what it started; whatever of its family is left after that is killed."""
    if server.process.poll() is not None:
        return
    family = server.family()
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    _, stubborn = psutil.wait_procs(family, timeout=1)
    for process in stubborn:
        if process.is_running():  # not another one that was given its number
            process.kill()
