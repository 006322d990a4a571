"""The process that a gateway's workers are forked from: it has imported what each of them needs, once.

A worker of Ray's imports for two seconds of processor time, four fifths of it libraries and modules of ours that all
the others import too. A template does that once, while Ray itself starts: a worker that is forked from it imports Ray
alone, and shares the memory of the rest. Ray's own state is never forked.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from deployments.serve import worker

OURS = (
    "deployments.engines.onnx_causal",
    "deployments.engines.onnx_seq2seq",
    "deployments.replica.replica",
    "deployments.replica.tracing",
    "deployments.serve.late",
    "gateway.api.app",
    "gateway.router",
    "gateway.service",
)
"""What replicas and ingresses import of ours, and of the engine, without Ray."""

OF_RAY = (
    "fastapi",
    "google.protobuf.json_format",
    "grpc",
    "jsonschema",
    "opentelemetry.trace",
    "requests",
    "uvicorn",
)
"""Libraries that Ray and Ray Serve import. One that they need no more may be missing."""

RAYS_PSUTIL = "psutil"
"""Ray brings one of its own, and runs no task if another was imported before it."""

SOCKET = "template.sock"
READ_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A worker that is asked for: the arguments, environment, folder and streams of the process that asks."""

    arguments: Sequence[str]
    environment: dict[str, str]
    folder: str
    streams: Sequence[int]

    def become(self) -> None:
        """Makes this process that worker, and runs it to its end."""
        for number, stream in zip(worker.STREAMS, self.streams, strict=True):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115  # open to the end
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        for name in [name for name in sys.modules if name.partition(".")[0] == RAYS_PSUTIL]:
            del sys.modules[name]
        sys.argv = [self.environment[worker.RAYS_OWN], *self.arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")


@contextmanager
def template(folder: Path) -> Iterator[None]:
    """Runs a template in a run folder during the context; Ray's workers find it by the environment."""
    path = str(folder / SOCKET)
    os.environ.update({worker.TEMPLATE: path, worker.RAYS_OWN: str(rays_own())})
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # a process with threads cannot be forked
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(64)  # who asks while it imports waits
        number = listener.fileno()
        command = [sys.executable, "-m", __name__, str(number)]
        # Python looks for modules in the folder that it is started in: in the operator's, one named gateway/ would do.
        process = subprocess.Popen(command, cwd=folder, env=one_thread, pass_fds=[number])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def rays_own() -> Path:
    """The script that Ray starts as a worker by itself. Raises RuntimeError if it is not where it was."""
    ray = find_spec("ray")  # does not import it
    script = Path(ray.origin or "" if ray else "").parent / "_private" / "workers" / "default_worker.py"
    if not script.exists():
        raise RuntimeError(f"Ray has no {script}: look at deployments/serve/template.py again")
    return script


def main() -> None:
    """Imports, then forks a worker for each that asks at the socket of this number, until the process is ended.

    Goes on in the workers alone.
    """
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        for module in OF_RAY:
            with suppress(ImportError):
                import_module(module)
        for module in OURS:
            import_module(module)
        gc.collect()
        gc.freeze()  # a collection in a worker would write to what is shared
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel takes note of the workers' ends
        wanted = _asked_for(listener)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    wanted.become()


def _asked_for(listener: socket.socket) -> Wanted:
    """Forks for each that asks; returns in the forked processes alone, with what each is to be."""
    while True:
        asking, _ = listener.accept()
        with asking, suppress(OSError, ValueError, KeyError):
            asking.settimeout(READ_WITHIN_S)
            wanted = _read(asking)
            if os.fork() == 0:
                return wanted
            for stream in wanted.streams:
                os.close(stream)
            asking.sendall(b"\n")


def _read(asking: socket.socket) -> Wanted:
    _, streams, *_ = socket.recv_fds(asking, 1, len(worker.STREAMS))
    with asking.makefile("rb") as rest:
        given = json.load(rest)
    return Wanted(given["arguments"], given["environment"], given["folder"], streams)


if __name__ == "__main__":
    main()
