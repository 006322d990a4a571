"""Sets Ray's switches, and keeps the run folder: all files and processes that must not outlive a gateway.

Every process of the cluster reads Ray's switches when it imports Ray. On one host, `configure` sets them before that,
and Ray's processes inherit them. On Kubernetes, the chart writes `cluster_environment` into every pod. This module does
not import Ray.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil

PREFIX = "punctual-"
_OWNER = "owner.pid"
_BEING_MADE_S = 60.0
_MARK = "PUNCTUAL_RUN_FOLDER"


class PortTaken(Exception):
    """Another process listens on the gateway's port."""


@contextmanager
def run_folder() -> Iterator[Path]:
    """Makes a private folder for sockets and Ray's session, after removing those of dead gateways.

    Its path is short, since Unix socket paths have at most 107 bytes. When the context ends, processes that still
    belong to the folder are ended and the folder is removed.
    """
    base = Path(tempfile.gettempdir())
    for dead in base.glob(f"{PREFIX}*"):
        if not _owned(dead):
            remove(dead)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    (folder / _OWNER).write_text(str(os.getpid()))
    try:
        yield folder
    finally:
        remove(folder)


def cluster_environment() -> dict[str, str]:
    """Ray's switches for every process of a gateway, on one host or on many nodes."""
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # the deployments share one event loop with Ray Serve's own code
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",  # the switch above would open a second HTTP server in each ingress
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",  # ... and would buffer 1,000 lines
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",  # 0.1 by default: 4 %, not 2 % of a core when idle
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "0",  # nobody reads them; 100 by default: ten wake-ups a second
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_metrics_collection": "0",  # Ray's own metrics; the gateway's are on /metrics
        "RAY_worker_niceness": "0",  # Ray's own is 15; the catalog says which replicas yield
    }


def configure(folder: Path) -> None:
    """Sets Ray's switches for this process and those it starts. A switch that is already set stays."""
    os.environ[_MARK] = str(folder)
    here = {
        # Despite its name: with 0, Ray uses loopback as the node's address, and its own ports stay on it.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    for name, value in {**cluster_environment(), **here}.items():
        os.environ.setdefault(name, value)


def require_free(host: str, port: int) -> None:
    """Raises PortTaken if something already listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"{host}:{port}: {error.strerror}") from None


def remove(folder: Path) -> None:
    """Ends every process that was started for the folder (Ray's own), then removes it."""
    left = [
        process for process in psutil.process_iter() if process.pid != os.getpid() and _started_for(process, folder)
    ]
    for process in left:
        _send(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(left, timeout=3)
    for process in stubborn:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=3)
    shutil.rmtree(folder, ignore_errors=True)


def _started_for(process: psutil.Process, folder: Path) -> bool:
    """True if the process inherited the folder's mark. Titles change, but the environment at the start does not."""
    try:
        return process.environ().get(_MARK) == str(folder)
    except psutil.Error:
        return False


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _owned(folder: Path) -> bool:
    """True if the process that made the folder still runs, or if the folder is so new that it may be in the making."""
    try:
        return psutil.pid_exists(int((folder / _OWNER).read_text()))
    except (NotADirectoryError, PermissionError):
        return True
    except (FileNotFoundError, ValueError):
        return datetime.now(UTC).timestamp() - folder.stat().st_mtime < _BEING_MADE_S
