"""Sets Ray's switches, and keeps the run folder: all files and processes that must not outlive a gateway.

Every process of the cluster reads Ray's switches when it imports Ray. On one host, `configure` sets them before that,
and Ray's processes inherit them. On Kubernetes, the chart writes `cluster_environment` into every pod. This module does
not import Ray.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

PREFIX = "punctual."
_BEGUN = ".punctual-"
_LOCK = "owner.lock"
_MARK = "PUNCTUAL_RUN_FOLDER"
_LEFT_WITHIN_S = 1.0
"""Seconds that processes have to end at a SIGTERM; then they are killed. Ray's own block it (`keeping`)."""

_KILLED_WITHIN_S = 3.0
"""Seconds that the kernel may take to end what was killed."""

SOCKET_PATH_BYTES = 107
"""The longest path of a Unix socket (unix(7))."""

_LONGEST_BELOW = "/punctual.abcdefgh/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path of a socket below the base: that of Ray's object store, with a process number of seven digits."""

_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")
"""Paths that Ray's command lines carry unharmed."""

_BASES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # run folders have names that nobody can guess, and mode 0700
"""Where run folders are made if the environment's temporary folder cannot hold one."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""What is asked without a proxy."""

_LEAST_FREE_BYTES = 64 << 20
"""What a run folder needs: Ray's logs and the sockets take a few MB."""


class PortTaken(Exception):
    """Another process listens on the gateway's port."""


class NoRunFolder(Exception):
    """No folder can hold the gateway's sockets. The message says why each was left out."""


@contextmanager
def run_folder() -> Iterator[Path]:
    """Makes a private folder for sockets and Ray's session, after removing those of dead gateways.

    This process holds a lock in it for as long as it lives. When the context ends, processes that still belong to the
    folder are ended and the folder is removed. Raises NoRunFolder.
    """
    bases = [Path(tempfile.gettempdir()), *map(Path, _BASES)]
    for dead in {dead for base in bases for dead in base.glob(f"{PREFIX}*") if not _owned(dead)}:
        remove(dead)
    base = base_of(bases)
    begun = Path(tempfile.mkdtemp(prefix=_BEGUN, dir=base))
    lock = FileLock(begun / _LOCK)
    lock.acquire()
    folder = begun.rename(base / f"{PREFIX}{begun.name.removeprefix(_BEGUN)}")  # seen by others only with its lock
    try:
        yield folder
    finally:
        remove(folder)
        lock.release()


def base_of(bases: Sequence[Path]) -> Path:
    """The first folder that can hold a run folder. Raises NoRunFolder, which says what is wrong with each."""
    faults = {base: _fault_of(base) for base in bases}
    for base, fault in faults.items():
        if fault is None:
            return base
    said = "; ".join(f"{base}: {fault}" for base, fault in faults.items())
    raise NoRunFolder(f"the gateway has no folder for its sockets: {said}. Set TMPDIR to one that is short and plain")


def _fault_of(base: Path) -> str | None:
    """Why a folder cannot hold a run folder; None if it can."""
    most = SOCKET_PATH_BYTES - len(_LONGEST_BELOW)
    if not _PLAIN.fullmatch(str(base)):
        return "its name has other characters than letters, digits, dots and dashes"
    if len(str(base)) > most:
        return f"its name is longer than {most} characters"
    if not os.access(base, os.W_OK | os.X_OK):
        return "it cannot be written"
    if shutil.disk_usage(base).free < _LEAST_FREE_BYTES:
        return f"it has less than {_LEAST_FREE_BYTES >> 20} MB free"
    return None


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
        "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime would look up a telemetry host and queue names of files
        "RAY_worker_niceness": "0",  # Ray's own is 15; the catalog says which replicas yield
    }


def mark(folder: Path) -> None:
    """Marks the processes that this one starts from now on: they end with the folder."""
    os.environ[_MARK] = str(folder)


def configure(folder: Path) -> None:
    """Sets Ray's switches for this process and those it starts. A switch that is already set stays."""
    mark(folder)
    here = {
        # Despite its name: with 0, Ray uses loopback as the node's address, and its own ports stay on it.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    for name, value in {**cluster_environment(), **here}.items():
        os.environ.setdefault(name, value)
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    for name in ("no_proxy", "NO_PROXY"):  # gRPC, which Ray talks by, reads the one, other libraries the other
        os.environ[name] = ",".join(filter(None, (spared, *_LOOPBACK)))


@contextmanager
def port_held(host: str, port: int) -> Iterator[None]:
    """Keeps other programs, and other gateways, from a port during the context. Raises PortTaken.

    It listens nowhere. Ingresses of this user may listen on the port meanwhile, since they share it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe, socket.socket(family) as holder:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.close()
            _bind_shared(holder, host, port)
        except OSError as error:
            raise PortTaken(f"{host}:{port}: {error.strerror}") from None
        yield


def _bind_shared(holder: socket.socket, host: str, port: int) -> None:
    """Binds a port so that only those who share it can bind it too.

    Past connections of a server that did not share it (TIME_WAIT) are in the way of that for a minute; then those who
    merely reuse addresses, as other gateways' probes, can bind it too.
    """
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        holder.bind((host, port))
    except OSError:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))


def remove(folder: Path) -> None:
    """Ends every process that was started for the folder (Ray's own), then removes it."""
    end([one for one in psutil.process_iter() if one.pid != os.getpid() and _started_for(one, folder)])
    shutil.rmtree(folder, ignore_errors=True)


def end_session(leader: int) -> None:
    """Ends every process of a session, by the number of the process that began it."""
    end([one for one in psutil.process_iter() if _session_of(one) == leader])


def end(processes: Sequence[psutil.Process]) -> None:
    """Ends processes: by SIGTERM, and those that are left after a second by SIGKILL."""
    for process in processes:
        _send(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(processes, _LEFT_WITHIN_S)
    for process in stubborn:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(stubborn, _KILLED_WITHIN_S)


def _session_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except (ProcessLookupError, PermissionError):
        return None


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
    """True if the process that made the folder still runs, or is another user's."""
    if folder.lstat().st_uid != os.getuid():
        return True
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False
